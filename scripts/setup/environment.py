"""The Python environment: `.venv` with exactly what `requirements.lock` says, and the CLI in it."""

from __future__ import annotations

import hashlib
import re
import sys
import tempfile
from pathlib import Path

from scripts.setup.shell import ROOT, VENV, SetupFailed, run, say

LOCK = ROOT / "requirements.lock"
WORKER_LOCK = ROOT / "requirements-worker.lock"
"""The part of it that the worker's image holds."""
STAMP = VENV / ".made-from"
PYTHON = VENV / "bin" / "python"
NEEDS = (3, 11)


def ensure() -> None:
    """Make or update `.venv`. Does nothing if the lock and pyproject.toml are those it is made
    from."""
    wanted = hashlib.sha256(LOCK.read_bytes() + (ROOT / "pyproject.toml").read_bytes()).hexdigest()
    if STAMP.exists() and STAMP.read_text() == wanted and PYTHON.exists():
        say("environment", f"found {VENV.name}")
        return
    if sys.version_info < NEEDS:
        found = ".".join(map(str, sys.version_info[:3]))
        raise SetupFailed(
            f"Python 3.11 or newer is needed, and python3 is {found}",
            "install it, then: make env PYTHON=python3.11",
        )
    say("environment", f"making {VENV.name} from {LOCK.name} …")
    if not PYTHON.exists():
        run([sys.executable, "-m", "venv", VENV], mend="on Debian: apt-get install python3-venv")
    uv = _uv()
    mend = "check the network and the proxy settings of pip, then run it again"
    options = ["--quiet", "--require-hashes", "--requirement", str(LOCK)]
    run([*uv, "pip", "install", "--python", PYTHON, *options], mend=mend)
    # setuptools is in the lock, so the build needs nothing that has no hash.
    here = ["--quiet", "--no-deps", "--no-build-isolation", "--editable", str(ROOT)]
    run([*uv, "pip", "install", "--python", PYTHON, *here], mend=mend)
    STAMP.write_text(wanted)
    say("environment", f"made {VENV.name}; the command is {VENV.name}/bin/helix")


def _uv() -> list[str | Path]:
    """Our own uv, which installs in seconds what takes pip a minute."""
    uv = VENV / "bin" / "uv"
    block = pinned("uv")
    if not uv.exists() or run([uv, "--version"], mend="").split()[1] not in block:
        with tempfile.NamedTemporaryFile("w", suffix=".txt") as only:
            only.write(block)
            only.flush()
            run(
                [PYTHON, "-m", "pip", "install", "--quiet", "--require-hashes", "-r", only.name],
                mend="check the network and the proxy settings of pip, then run it again",
            )
    return [uv]


def pinned(package: str) -> str:
    """The lines of the lock that pin this package: its version and its hashes."""
    pattern = rf"^{re.escape(package)}==.*?(?=^[^\s#]|\Z)"
    found = re.search(pattern, LOCK.read_text(), re.MULTILINE | re.DOTALL)
    if found is None:
        raise SetupFailed(f"{LOCK.name} does not pin {package}", "make lock")
    return found.group()


def lock() -> None:
    """Write both locks anew, for every platform: all extras with the development group, and of
    these what the worker's image holds."""
    _compile(LOCK, "--all-extras", "--group", "dev")
    _compile(WORKER_LOCK, "--extra", "worker", "--group", "build", "--constraint", LOCK.name)


def _compile(goal: Path, *what: str) -> None:
    run(
        [
            *_uv(), "pip", "compile", "pyproject.toml", *what,
            "--universal", "--generate-hashes", "--python-version", "3.11", "--no-emit-index-url",
            "--custom-compile-command", "make lock", "--quiet", "--output-file", goal.name,
        ],
        mend="mend the dependencies in pyproject.toml",
        cwd=ROOT,
    )  # fmt: skip
    say("lock", f"wrote {goal.name}: {goal.read_text().count('==')} packages")
