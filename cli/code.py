"""What code is installed, as a digest that changes whenever it does: it tells apart a process that
was started from other code. Nothing but the standard library."""

from __future__ import annotations

import hashlib
import os
import site
import sys
from collections.abc import Iterable
from pathlib import Path

WORKER = (
    "activities", "builders", "ledger", "model", "project", "providers", "registries", "worker",
    "workflows",
)  # fmt: skip
"""The packages a worker runs."""
ALL = (*WORKER, "cli")


def digest(packages: Iterable[str]) -> str:
    """Changes with any file of these packages, with the Python that runs them, and with what else
    is installed there, such as a package that brings a kind."""
    root = Path(__file__).resolve().parent.parent
    found = hashlib.sha256(sys.executable.encode())
    for folder in filter(os.path.isdir, site.getsitepackages()):
        found.update(str(os.stat(folder).st_mtime_ns).encode())
    for package in packages:
        for folder, _, names in sorted(os.walk(root / package)):
            for name in sorted(names):
                if name.endswith(".py"):
                    facts = os.stat(os.path.join(folder, name))
                    found.update(f"{folder}/{name} {facts.st_size} {facts.st_mtime_ns}".encode())
    return found.hexdigest()
