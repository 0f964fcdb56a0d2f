"""Go programs that cannot be downloaded everywhere: compiled once, for all clones of this user.

All are compiled alike, so that a package that several of them use is compiled for the first only.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from pathlib import Path

from scripts.setup.shell import SetupFailed, run, say

ENVIRONMENT = {"CGO_ENABLED": "0"}
"""One file that needs no library, so that an image can be made of it alone."""
LINKER = ("-s", "-w")
"""Leave out what only debuggers read: that takes a good part of the time to link."""
TIMEOUT = 3600.0
"""Seconds; the slowest takes 8 minutes on two idle cores."""


def compile_program(
    goal: Path,
    package: str,
    *,
    piece: str,
    takes: str,
    folder: Path | None = None,
    stamps: Mapping[str, str] | None = None,
) -> None:
    """Compile a program, out of the way of what else runs here. It is whole as soon as it is there.

    Args:
        goal: the file to make.
        package: its package in the module `folder`, or `MODULE/PACKAGE@VERSION` of any other.
        piece: the piece of the set-up, for the line that says what is going on.
        takes: how long it takes, for the same line: `about 3 minutes`.
        stamps: variable of a package -> the value that it is linked with.

    Raises:
        SetupFailed: there is no Go, or it does not compile.
    """
    mend = f"install {goal.name}, or Go 1.26 or newer, then run it again"
    if shutil.which("go") is None:
        raise SetupFailed(f"there is neither {goal.name} nor a Go compiler here", mend)
    say(piece, f"compiling {package}: {takes} on two cores, once …")
    scratch = goal.parent / f".{goal.name}.{os.getpid()}"
    scratch.mkdir(parents=True, exist_ok=True)
    link = [*LINKER, *(f"-X {name}={value}" for name, value in (stamps or {}).items())]
    flags = ["-trimpath", f"-ldflags={' '.join(link)}"]
    environment = {**ENVIRONMENT, "GOBIN": str(scratch)}
    if folder is None:
        words = ["install", *flags, package]
    else:
        words = ["build", *flags, "-o", str(scratch / goal.name), package]
        environment["GOFLAGS"] = "-mod=readonly"
    try:
        run(
            ["nice", "-n", "10", "go", *words],
            mend=mend,
            timeout=TIMEOUT,
            env=environment,
            cwd=folder,
        )
        [made] = scratch.iterdir()
        made.replace(goal)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    say(piece, f"made {goal}")
