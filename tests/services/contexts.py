"""Build contexts for tests."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable
from pathlib import Path

from project.ignore import Ignore, Inherited

_TREE = ("a.txt", "b.md", "d/a.txt", "d/b.md", "d/e/a.txt", "d/e/f/c.go", "x/d/a.txt", "xtmp")

IGNORE_CASES: list[tuple[str, tuple[str, ...], tuple[str, ...]]] = [
    ("", _TREE, _TREE),
    ("a.txt\n", _TREE, tuple(f for f in _TREE if f != "a.txt")),
    ("/a.txt\n", _TREE, tuple(f for f in _TREE if f != "a.txt")),
    ("*.txt\n", _TREE, tuple(f for f in _TREE if f != "a.txt")),
    ("**/*.txt\n", _TREE, ("b.md", "d/b.md", "d/e/f/c.go", "xtmp")),
    ("**/a.txt\n", _TREE, ("b.md", "d/b.md", "d/e/f/c.go", "xtmp")),
    ("d\n", _TREE, ("a.txt", "b.md", "x/d/a.txt", "xtmp")),
    ("d/\n", _TREE, ("a.txt", "b.md", "x/d/a.txt", "xtmp")),
    ("**/d\n", _TREE, ("a.txt", "b.md", "xtmp")),
    ("d/**\n", _TREE, ("a.txt", "b.md", "x/d/a.txt", "xtmp")),
    ("d/*\n", _TREE, ("a.txt", "b.md", "x/d/a.txt", "xtmp")),
    ("d/*\n!d/e\n", _TREE, ("a.txt", "b.md", "d/e/a.txt", "d/e/f/c.go", "x/d/a.txt", "xtmp")),
    ("d\n!d/e/f\n", _TREE, ("a.txt", "b.md", "d/e/f/c.go", "x/d/a.txt", "xtmp")),
    ("*\n!**/*.go\n", _TREE, ("d/e/f/c.go",)),
    ("*\n!d\nd/e\n", _TREE, ("d/a.txt", "d/b.md")),
    ("**\n!b.md\n", _TREE, ("b.md",)),
    ("!b.md\nb.md\n", _TREE, tuple(f for f in _TREE if f != "b.md")),
    ("?.txt\n", _TREE, tuple(f for f in _TREE if f != "a.txt")),
    ("[ab].*\n", _TREE, tuple(f for f in _TREE if f not in ("a.txt", "b.md"))),
    ("[^a].md\n", _TREE, tuple(f for f in _TREE if f != "b.md")),
    ("**tmp\n", _TREE, tuple(f for f in _TREE if f != "xtmp")),
    ("d/../b.md\n", _TREE, tuple(f for f in _TREE if f != "b.md")),
    ("d/*/a.txt\n", _TREE, tuple(f for f in _TREE if f != "d/e/a.txt")),
    ("**/e/**\n", _TREE, tuple(f for f in _TREE if not f.startswith("d/e/"))),
    ("x*\n", _TREE, tuple(f for f in _TREE if not f.startswith("x"))),
    ("\\a.txt\n", _TREE, _TREE),
    ("\\*.txt\n", _TREE, _TREE),
    ("b\\.md\n", _TREE, tuple(f for f in _TREE if f != "b.md")),
    ("d/e*\n!d/e/a.txt\n", _TREE, tuple(f for f in _TREE if f != "d/e/f/c.go")),
    ("D\n", _TREE, _TREE),
]
"""Text of the `.dockerignore`, the files there are, and the ones that reach the build."""


def left_in(ignore: Ignore, files: Iterable[str]) -> list[str]:
    """The files that patterns leave in, each decided from its topmost folder down."""
    kept = []
    for file in files:
        parts, inherited, out = file.split("/"), (), False
        passed: Inherited = inherited
        for depth in range(1, len(parts) + 1):
            out, passed = ignore.match("/".join(parts[:depth]), passed)
        if not out:
            kept.append(file)
    return sorted(kept)


def write(context: Path, files: dict[str, str]) -> Path:
    """Make a context of these files."""
    for name, text in files.items():
        path = context / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return context


def with_shell(context: Path, dockerfile: str = "") -> Path:
    """A context whose Dockerfile can run commands without any image to pull: busybox on nothing.

    Args:
        context: the folder to write to.
        dockerfile: what follows the base.
    """
    busybox = shutil.which("busybox") or "/bin/busybox"
    context.mkdir(parents=True, exist_ok=True)
    shutil.copy(busybox, context / "busybox")
    os.chmod(context / "busybox", 0o755)
    (context / "Dockerfile").write_text(f"{SHELL_BASE}{dockerfile}")
    return context


SHELL_BASE = "FROM scratch\nCOPY busybox /bin/sh\nCOPY busybox /bin/busybox\n"
"""The three lines that `with_shell` begins a Dockerfile with."""
