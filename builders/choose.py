"""Chooses the best builder of this machine for a Dockerfile."""

from __future__ import annotations

import functools
import os
import time

from builders.base import Builder
from builders.buildx import BuildxBuilder
from builders.classic import ClassicBuilder
from builders.cli import CliBuilder
from builders.client import Engine, describe
from builders.dockerfile import FEATURES, Dockerfile
from builders.engine import EngineBuilder
from model.artifact import BuildSettings
from model.errors import ConfigurationError

ORDER: tuple[type[Builder], ...] = (BuildxBuilder, CliBuilder, EngineBuilder, ClassicBuilder)
"""The best first: only the first two are clients with all of BuildKit's features."""

_TRUSTED_FOR = 60
_MEND = {
    "mount": "install the buildx plugin, or a newer engine",
    "secret": "install the buildx plugin: https://github.com/docker/buildx",
    "chmod": "install the buildx plugin, or set the mode with RUN chmod",
    "heredoc": "upgrade the engine to 23 or later, begin the file with "
    "«# syntax=docker/dockerfile:1», or write it without",
    "link": "upgrade the engine to 23 or later, begin the file with "
    "«# syntax=docker/dockerfile:1», or write COPY without it",
}


def choose(settings: BuildSettings, dockerfile_text: str) -> Builder:
    """The builder for a Dockerfile: the first of `ORDER` that this machine has.

    Args:
        settings: the build's own.
        dockerfile_text: the whole file.

    Raises:
        ConfigurationError: it needs what that builder lacks.
        PlatformUnhealthy: there is no engine.
    """
    best = available(describe(), os.environ.get("PATH", ""), int(time.time() / _TRUSTED_FOR))[0]
    needed = Dockerfile(dockerfile_text).features
    if "syntax" in needed and "syntax" in best.features:
        needed -= {"heredoc", "link", "chmod", "mount"}  # the frontend it names brings them
    if settings.secrets:
        needed |= {"secret"}
    # Without BuildKit the line is a comment, and matters only for what it would have brought.
    for feature in sorted(needed - best.features - {"syntax"}):
        raise ConfigurationError(
            f"{settings.dockerfile} uses {FEATURES[feature]}, which the builder of this machine "
            f"({best.name}) cannot build",
            hint=_MEND[feature],
        )
    return best


@functools.lru_cache(maxsize=8)
def available(engine: Engine, path: str, period: int) -> tuple[Builder, ...]:
    """Every builder of this machine, the best first; looked for at most once a minute.

    Args:
        engine: which engine they would build with.
        path: where commands are looked for.
        period: which minute it is.
    """
    return tuple(found for cls in ORDER if (found := cls.probe()) is not None)
