"""Finds the helix.toml that a command is about."""

from __future__ import annotations

from pathlib import Path

from model.errors import ConfigurationError, NotFound

FILE = "helix.toml"
_FIRST_GENERATION = "config.hx.json"


def find_file(start: Path | None = None) -> Path:
    """The helix.toml of a folder or the nearest one above it.

    Args:
        start: a folder, or the file itself; the current folder if None.

    Raises:
        NotFound: there is none.
        ConfigurationError: a project of HelixDB's first generation is there instead.
    """
    start = Path.cwd() if start is None else start
    if not start.is_dir():
        if start.exists() or start.suffix == ".toml":
            if not start.exists():
                raise NotFound(f"there is no file {start}", hint="helix init makes one")
            return start.absolute()
        raise NotFound(f"there is no folder {start}", hint="check the path")
    folder = start.absolute()
    for place in (folder, *folder.parents):
        if (place / FILE).is_file():
            return place / FILE
        if (place / _FIRST_GENERATION).is_file():
            raise ConfigurationError(
                f"{place} is a project of HelixDB's first generation ({_FIRST_GENERATION})",
                hint="run «helix migrate» of HelixDB v2.3.5 in it first",
            )
    raise NotFound(
        f"there is no {FILE} in {folder} or above it", hint="run «helix init» in the project"
    )
