"""Builds with a docker CLI that has the BuildKit client in it: versions 18.09 to 22."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path
from typing import ClassVar

from builders.client import describe
from builders.command import CommandBuilder

_VERSION = re.compile(r"Docker version (\d+)\.(\d+)")
_FOLDERS = ("/usr/bin", "/usr/local/bin")
"""Where a second docker CLI may be that another one on the PATH hides."""


def find_cli() -> str | None:
    """The path of a docker CLI with BuildKit in it. Later ones need the buildx plugin for that."""
    folders = [*os.environ.get("PATH", "").split(os.pathsep), *_FOLDERS]
    for path in dict.fromkeys(os.path.realpath(Path(folder, "docker")) for folder in folders):
        if not os.access(path, os.X_OK) or not os.path.isfile(path):
            continue
        try:
            said = subprocess.run(
                [path, "--version"], capture_output=True, text=True, timeout=10, check=False
            ).stdout
        except (OSError, subprocess.TimeoutExpired):
            continue
        if (version := _VERSION.match(said)) and (18, 9) <= (int(version[1]), int(version[2])) < (
            23,
        ):
            return path
    return None


class CliBuilder(CommandBuilder):
    """`docker build` with DOCKER_BUILDKIT=1."""

    name: ClassVar[str] = "docker-cli"

    def __init__(self, path: str, features: frozenset[str]) -> None:
        self.command = (path, "build")
        self.variables = {"DOCKER_BUILDKIT": "1"}
        self.features = features

    @classmethod
    def probe(cls) -> CliBuilder | None:
        """See `Builder.probe`."""
        features = describe().features
        path = find_cli() if features is not None else None
        return cls(path, features | {"secret"}) if path and features is not None else None
