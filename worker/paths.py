"""Where Helix Deploy keeps its files on this machine. Nothing but the standard library, so that a
command can look before it imports anything else."""

from __future__ import annotations

import os
from pathlib import Path


def state_dir() -> Path:
    """What must survive: ledger, Temporal's database, sources, logs. HELIX_STATE_DIR moves it."""
    if chosen := os.environ.get("HELIX_STATE_DIR"):
        return Path(chosen).expanduser().absolute()
    return _base("XDG_STATE_HOME", ".local/state") / "helix-deploy"


def cache_dir() -> Path:
    """What can be fetched or made again: tools."""
    return _base("XDG_CACHE_HOME", ".cache") / "helix-deploy"


def env_file(state: Path, instance_key: str) -> Path:
    """Where the values of an instance's `env:` secret references are handed to the worker. One
    file an instance: two projects may use one name for different secrets."""
    from hashlib import sha256

    return state / "env" / f"{sha256(instance_key.encode()).hexdigest()[:24]}.env"


def private_dir(path: Path) -> Path:
    """Make a folder that only its owner may enter; one that is there stays as it is.

    Raises:
        OSError: it cannot be made.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    path.mkdir(mode=0o700, exist_ok=True)
    return path


def write_private(path: Path, text: str) -> None:
    """Replace a file at once, readable by its owner alone; a reader sees the old or the new one.

    Raises:
        OSError: it cannot be written.
    """
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    draft.unlink(missing_ok=True)
    with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        file.write(text)
    draft.replace(path)


def _base(variable: str, default: str) -> Path:
    # The XDG specification: a relative path in the variable is to be ignored.
    chosen = Path(os.environ.get(variable, ""))
    return chosen if chosen.is_absolute() else Path.home() / default
