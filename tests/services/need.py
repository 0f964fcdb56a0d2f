"""What a test needs from the machine, and what happens when it is not there.

On a newcomer's laptop a missing service skips the tests that need it, and says so. In CI nothing
may be skipped by accident: HELIX_TEST_REQUIRE names the tiers that must run; a missing one fails.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import NoReturn

import pytest

TIERS = (
    "temporal", "time-skipping", "engine", "registry", "postgres", "supply-chain", "collector",
    "prometheus", "kubernetes", "browser", "swarm", "stack", "namespaces",
)  # fmt: skip


def missing(tier: str, what: str, mend: str) -> NoReturn:
    """Skip, or fail where the tier is promised."""
    promised = os.environ.get("HELIX_TEST_REQUIRE", "")
    text = f"{tier}: {what}; {mend}"
    if promised == "all" or tier in promised.split(","):
        pytest.fail(text, pytrace=False)
    pytest.skip(text)


def cache_dir() -> Path:
    """Where the set-up keeps the tools it made."""
    base = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    return Path(base) / "helix-deploy"


def program(name: str, tier: str, mend: str = "run: make tools") -> str:
    """The path of a program, from PATH or the set-up's cache."""
    found = shutil.which(name) or shutil.which(name, path=str(cache_dir() / "bin"))
    return found or missing(tier, f"there is no {name} here", mend)
