"""Runs the pieces of the set-up that are asked for: `python3 -m scripts.setup [GROUP]`."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable

from scripts.setup import (
    buildx,
    collector,
    engine,
    environment,
    images,
    kubernetes,
    packages,
    stack,
    supply_chain,
    temporal,
    test_server,
    worker_image,
)
from scripts.setup.shell import SetupFailed, fail

TEST_PROGRAMS = (
    "docker", "docker-registry", "caddy", "redis-server", "busybox", "htpasswd", "openssl", "ssh",
    "pg_ctl", "chromium", "prometheus", "promtool", "ip", "nsenter",
)  # fmt: skip

PIECES: dict[str, Callable[[], None]] = {
    "environment": environment.ensure,
    "temporal": temporal.ensure,
    "engine": engine.ensure,
    "images": images.ensure,
    "packages": lambda: packages.ensure(*TEST_PROGRAMS),
    "test-server": test_server.ensure,
    "buildx": buildx.ensure,
    "collector": collector.ensure,
    "supply-chain": supply_chain.ensure,
    "kubernetes": kubernetes.ensure,
    "stack": stack.ensure,
    "image": worker_image.ensure,
    "lock": environment.lock,
}
GROUPS = {
    "env": ("environment",),
    "demo": ("environment", "temporal", "engine", "images"),
    "tests": (
        "environment", "temporal", "engine", "packages", "images", "test-server", "buildx",
        "collector", "supply-chain", "kubernetes", "stack",
    ),
}  # fmt: skip


def main(words: list[str]) -> int:
    """Run the pieces in order; the exit code is 1 at the first that fails."""
    parser = argparse.ArgumentParser(prog="python3 -m scripts.setup")
    parser.add_argument("what", nargs="*", help=f"of: {', '.join([*GROUPS, *PIECES])}")
    asked = parser.parse_args(words).what or ["env"]
    names = [piece for word in asked for piece in GROUPS.get(word, (word,))]
    if unknown := [name for name in names if name not in PIECES]:
        parser.error(f"there is no piece «{unknown[0]}»; there are {', '.join([*GROUPS, *PIECES])}")
    for name in dict.fromkeys(names):
        try:
            PIECES[name]()
        except SetupFailed as error:
            fail(error, name)
            return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
