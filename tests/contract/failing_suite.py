"""What a provider must do while the calls to its platform fail at random.

A kind's world says how to let them fail, and its tests inherit both suites:

    class TestMine(ProviderSuite, FailingSuite): ...
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from contextlib import AbstractContextManager
from pathlib import Path

import pytest
from temporalio.testing import WorkflowEnvironment

from helix_deploy.testing import World
from model.deployment import Outcome
from tests.contract.pipeline import pipeline

DEPLOYMENTS = 9
"""How many follow each other while calls fail; every fourth is of a bad release."""


class FailingWorld(World):
    """A platform whose calls can be made to fail."""

    secrets: Mapping[str, str] = {}
    """Secret reference -> value, of all that instances and credentials name."""

    @abstractmethod
    def failing(self, rate: float, seed: int) -> AbstractContextManager[list[str]]:
        """In this block, let this part of all calls to the platform fail: cut off before or after
        they were carried out, refused for a while, throttled. Yields what went wrong so far."""


class FailingSuite:
    """Deployments by the real workflow and activities, one after the other."""

    @pytest.mark.parametrize(("rate", "seed"), [(0.01, 1), (0.1, 2)])
    async def test_every_deployment_ends_well_although_calls_fail(
        self,
        world: FailingWorld,
        skipping: WorkflowEnvironment,
        tmp_path: Path,
        rate: float,
        seed: int,
    ) -> None:
        await every_deployment_ends_well(world, skipping, tmp_path, rate, seed)


async def every_deployment_ends_well(
    world: FailingWorld, skipping: WorkflowEnvironment, tmp_path: Path, rate: float, seed: int
) -> None:
    """While this part of all calls fails: good releases are released, bad ones rolled back, and
    nothing is left of the instance in the end, if the kind can remove it."""
    folder = tmp_path / "worker"
    folder.mkdir(exist_ok=True)  # the world may have put its artifacts there
    serves = ""
    with world.opened() as provider:
        can = provider.capabilities
    async with pipeline(skipping, folder, dict(world.secrets)) as worker:
        with world.failing(rate, seed) as injected:
            for number in range(1, DEPLOYMENTS + 1):
                bad = number % 4 == 0
                how = "exit" if can.programs else "sick"
                instance = world.instance(f"r{number}", how if bad else "serve")
                ended = await worker.deploy(instance, world.artifact(str(number % 2 + 1)))
                told = f"{number}: {ended.failure}; injected: {injected}"
                wanted = Outcome.ROLLED_BACK if bad else Outcome.SUCCEEDED
                assert ended.outcome is wanted, told
                assert ended.failure is None or ended.failure.code == "HealthCheckFailed", told
                serves = serves if bad else f"r{number}"
                assert world.answer() == serves, told
                assert len(world.running()) == 1, told
            if can.removes:
                await worker.destroy(world.instance("r0"))
        assert not can.removes or world.remains() == [], injected
    assert injected, "nothing failed: the test proves nothing"
