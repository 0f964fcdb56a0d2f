"""How many of many deployments end well although calls fail: `make soak`.

Keeps what it measured in docs/reliability.md. The workflow, the activities and the provider are the
real ones; the platform is the stand-in of the tests, behind a line that makes calls fail.
"""

from __future__ import annotations

import argparse
import asyncio
import logging
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from model.deployment import Outcome
from tests.contract.pipeline import pipeline
from tests.contract.test_fly_provider import FlyWorld, lead_to
from tests.fakes.fly import FakeFly
from tests.services.registry import plain_registry
from tests.services.temporal import time_skipping_server

PAGE = Path(__file__).parent.parent / "docs" / "reliability.md"
BAD_EVERY = 10
TEXT = """\
# Reliability

Measured by `make soak`: one deployment after the other of one instance of the kind
`fly`, by the real workflow, activities and provider, against the stand-in of Fly's API that the
tests use. A part of all its calls fails at random: cut off before or after they were carried out,
refused, throttled. Every tenth release is bad.

A deployment ends well if a good release serves afterwards, or a bad one was rolled back and the one
before it serves; and if nothing else runs. The goal is 99.9 %.

| calls that fail | failed calls | deployments | ended well | |
|---|---|---|---|---|
{rows}

Each kind's contract tests do the same with fewer deployments, and the crash tests kill the worker
and the server in each step: see [Contributing](../CONTRIBUTING.md). No real cloud is in these
figures.
"""


@dataclass
class Soak:
    """What came of it."""

    rate: float
    ended_well: int = 0
    ended_badly: list[str] = field(default_factory=list)
    failed_calls: int = 0

    @property
    def row(self) -> str:
        """One line of the table."""
        number = self.ended_well + len(self.ended_badly)
        share = f"{self.ended_well / number:.2%}"
        cells = f"{self.rate:.0%}", self.failed_calls, number, self.ended_well, share
        return f"| {' | '.join(map(str, cells))} |"


@contextmanager
def platform() -> Iterator[FlyWorld]:
    """The stand-in, and the environment that leads to it."""
    with (
        tempfile.TemporaryDirectory() as folder,
        FakeFly() as fly,
        plain_registry(Path(folder)) as images,
        pytest.MonkeyPatch.context() as patch,
    ):
        lead_to(fly.address, patch)
        yield FlyWorld(fly, images, patch)


async def soak(deployments: int, rate: float, seed: int) -> Soak:
    """One deployment after the other, of one instance."""
    found, serves = Soak(rate), ""
    with platform() as world, tempfile.TemporaryDirectory() as folder:
        async with (
            time_skipping_server() as env,
            pipeline(env, Path(folder), dict(world.secrets)) as worker,
        ):
            with world.failing(rate, seed) as injected:
                for number in range(1, deployments + 1):
                    bad = number % BAD_EVERY == 0
                    instance = world.instance(f"r{number}", "exit" if bad else "serve")
                    ended = await worker.deploy(instance, world.artifact(str(number % 2 + 1)))
                    serves = serves if bad else f"r{number}"
                    wanted = Outcome.ROLLED_BACK if bad else Outcome.SUCCEEDED
                    runs = world.answer(), len(world.running())
                    if ended.outcome is wanted and runs == (serves, 1):
                        found.ended_well += 1
                    else:
                        found.ended_badly.append(f"{number}: {ended.outcome}: {ended.failure}")
                        serves = world.answer()
                found.failed_calls = len(injected)
    return found


def main() -> int:
    """Run it, print what came of it. The exit code is 1 if any deployment ended badly."""
    options = argparse.ArgumentParser(prog="python -m benchmarks.soak")
    options.add_argument("--deployments", type=int, default=1000)
    options.add_argument("--rates", type=float, nargs="+", default=[0.01, 0.1])
    options.add_argument("--seed", type=int, default=1)
    options.add_argument("--print", action="store_true", help="do not write docs/reliability.md")
    chosen = options.parse_args()
    logging.disable()  # each attempt that fails is logged
    found = [asyncio.run(soak(chosen.deployments, rate, chosen.seed)) for rate in chosen.rates]
    text = TEXT.format(rows="\n".join(one.row for one in found))
    print(text)
    badly = [line for one in found for line in one.ended_badly]
    print("\n".join(badly))
    if not chosen.print:
        PAGE.write_text(text)
    return 1 if badly else 0


if __name__ == "__main__":
    sys.exit(main())
