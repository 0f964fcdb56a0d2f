"""Builds with buildx, BuildKit's own client, called directly: no docker CLI is needed."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import ClassVar

from builders.client import describe
from builders.command import CommandBuilder

_PLUGIN_FOLDERS = (
    "/usr/local/lib/docker/cli-plugins",
    "/usr/local/libexec/docker/cli-plugins",
    "/usr/lib/docker/cli-plugins",
    "/usr/libexec/docker/cli-plugins",
    "/Applications/Docker.app/Contents/Resources/cli-plugins",
)
"""Where docker CLIs look for plugins."""


def find_buildx() -> str | None:
    """The path of a buildx on this machine: a plugin, on the PATH, or in our own cache."""
    for path in _candidates():
        if path.is_file() and os.access(path, os.X_OK):
            return str(path)
    return None


def _candidates() -> Iterator[Path]:
    own = Path(os.environ.get("DOCKER_CONFIG") or Path.home() / ".docker")
    for folder in (own / "cli-plugins", *map(Path, _PLUGIN_FOLDERS)):
        yield folder / "docker-buildx"
    for name in ("docker-buildx", "buildx"):
        if found := shutil.which(name):
            yield Path(found)
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    yield cache / "helix-deploy" / "bin" / "buildx"


class BuildxBuilder(CommandBuilder):
    """buildx with the engine's own BuildKit, whatever builder the user has selected: the image must
    end up in the engine."""

    name: ClassVar[str] = "buildx"

    def __init__(self, path: str, features: frozenset[str]) -> None:
        # An attestation would make the result an index, whose digest is not the image's.
        self.command = (path, "build", "--load", "--provenance=false", "--sbom=false")
        self.variables = {}
        self.features = features

    @classmethod
    def probe(cls) -> BuildxBuilder | None:
        """See `Builder.probe`."""
        path = find_buildx()
        features = describe().features if path else None
        return cls(path, features | {"secret"}) if path and features is not None else None
