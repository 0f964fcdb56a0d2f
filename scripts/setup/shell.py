"""How a piece of the set-up runs commands, says what it did, and says what to do when it failed."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
"""The clone."""
VENV = ROOT / ".venv"
CACHE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "helix-deploy"
"""Tools that take long to make, shared by all clones of this user."""
BIN = CACHE / "bin"
TAIL_LINES = 15


class SetupFailed(Exception):
    """A piece that cannot be had here.

    Args:
        what: what failed, one sentence; the end of the command's output may follow it.
        mend: what the person can type or install now.
    """

    def __init__(self, what: str, mend: str) -> None:
        super().__init__(what)
        self.what = what
        self.mend = mend


def say(piece: str, text: str) -> None:
    """One line of progress."""
    print(f"  {piece:<12} {text}", flush=True)


def program(name: str) -> str | None:
    """The path of a program, from PATH or else from our own tools."""
    return shutil.which(name) or shutil.which(name, path=str(BIN))


def run(
    command: Sequence[str | Path],
    *,
    mend: str,
    timeout: float = 900,
    env: Mapping[str, str] | None = None,
    stdin: bytes = b"",
    cwd: Path | None = None,
) -> str:
    """Run a command to its end and return what it printed on its standard output.

    Args:
        mend: what to do if it fails.
        timeout: seconds.
        env: added to our own environment.

    Raises:
        SetupFailed: it is not installed, failed, or took too long.
    """
    words = [str(word) for word in command]
    started = time.monotonic()
    try:
        done = subprocess.run(
            words,
            input=stdin,
            capture_output=True,
            timeout=timeout,
            env={**os.environ, **(env or {})},
            cwd=cwd,
        )
    except FileNotFoundError:
        raise SetupFailed(f"{words[0]} is not installed", mend) from None
    except subprocess.TimeoutExpired:
        spent = time.monotonic() - started
        raise SetupFailed(f"«{' '.join(words)}» did not end in {spent:.0f} s", mend) from None
    if done.returncode != 0:
        output = (done.stdout + done.stderr).decode(errors="replace").splitlines()
        tail = "\n    ".join(line for line in output[-TAIL_LINES:])
        command_line = " ".join(words)
        raise SetupFailed(f"«{command_line}» ended with {done.returncode}:\n    {tail}", mend)
    return done.stdout.decode(errors="replace")


def is_root() -> bool:
    """Whether packages can be installed and daemons started."""
    return hasattr(os, "geteuid") and os.geteuid() == 0


def fail(error: SetupFailed, piece: str) -> None:
    """Say which piece failed and how to mend it."""
    print(f"\n{piece} failed: {error.what}\n\n  to mend it: {error.mend}", file=sys.stderr)
