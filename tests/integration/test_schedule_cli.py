"""`helix schedule` against a real Temporal server; the steps are played by a script."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
from temporalio.client import Client
from temporalio.worker import Worker

from tests.integration.test_cli_deploy import Shop
from tests.workflow.world import World, failure
from workflows.deploy import DeployWorkflow
from workflows.redeploy import RedeployWorkflow

pytestmark = pytest.mark.temporal

NEVER = ("--cron", "0 4 1 1 *")


@pytest.fixture
async def shop(temporal: Client, tmp_path: Path) -> AsyncIterator[Shop]:
    """A shop on the shared server, whose schedule is gone afterwards."""
    made = Shop(tmp_path, temporal.service_client.config.target_host, temporal)
    yield made
    await made.run("schedule", "remove", "prod")


@asynccontextmanager
async def working(shop: Shop, world: World) -> AsyncIterator[None]:
    async with Worker(
        shop.client,
        task_queue=shop.queue,
        workflows=[DeployWorkflow, RedeployWorkflow],
        activities=world.activities(),
    ):
        yield


async def shown(shop: Shop) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((await shop.run("schedule", "show", "prod", "--json")).out)
    return found


async def until(shop: Shop, outcome: str, runs: int = 1) -> dict[str, Any]:
    """Wait until as many runs have ended like this."""
    state: dict[str, Any] = {}
    for _ in range(30):
        state = await shown(shop)
        if [one["outcome"] for one in state["recent"]].count(outcome) >= runs:
            return state
        await asyncio.sleep(0.3)
    raise AssertionError(f"no run has {outcome}: {state}")


async def add(shop: Shop, *words: str) -> None:
    done = await shop.run("schedule", "add", "prod", *words)
    assert done.exit == 0, done.text


async def test_a_schedule_is_made_told_and_removed(shop: Shop) -> None:
    async with working(shop, World()):
        await add(shop, *NEVER, "--timezone", "Europe/Berlin", "--rebuild", "--catch-up", "2h")
        again = await shop.run("schedule", "add", "prod", *NEVER)
        assert again.exit == 2 and "--replace" in again.text
        state = await shown(shop)
        assert (state["cron"], state["timezone"]) == (["0 4 1 1 *"], "Europe/Berlin")
        assert (state["mode"], state["catch_up"], state["paused"]) == ("rebuild", 7200, False)
        assert state["next"]
        assert (await shop.run("schedule", "pause", "prod", "--reason", "moving")).exit == 0
        assert (await shown(shop))["paused"]
        await add(shop, "--cron", "30 5 1 1 *", "--replace")
        state = await shown(shop)
        assert (state["cron"], state["paused"]) == (["30 5 1 1 *"], True)
        assert (await shop.run("schedule", "resume", "prod")).exit == 0
        assert not (await shown(shop))["paused"]
        assert (await shop.run("schedule", "remove", "prod")).exit == 0
        gone = await shop.run("schedule", "show", "prod")
        assert gone.exit == 2 and "no schedule" in gone.text


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--cron", "0 25 * * *"), "«25» is no hour"),
        (("--cron", "0 4 * *"), "4 fields"),
        ((*NEVER, "--timezone", "Berlin"), "time zone «Berlin»"),
        ((*NEVER, "--overlap", "terminate"), "--overlap"),
        ((*NEVER, "--catch-up", "soon"), "«soon» is no duration"),
        ((*NEVER, "--ref", "main"), "--git"),
        ((*NEVER, "--redeploy", "--git", "https://git.test/a"), "must be built"),
        ((*NEVER, "--git", "https://me:pw@git.test/a"), "credential"),
        ((*NEVER, "--git", "ext::sh"), "no repository"),
    ],
)
async def test_what_cannot_work_is_refused_before_anything_is_sent(
    shop: Shop, words: tuple[str, ...], said: str
) -> None:
    done = await shop.run("schedule", "add", "prod", *words)
    assert done.exit == 2 and said in done.text, done.text


async def test_a_short_cron_deploys_again_and_again(shop: Shop) -> None:
    async with working(shop, World()):
        await add(shop, "--cron", "*/2 * * * * * *")
        state = await until(shop, "succeeded", runs=2)
    assert len({one["workflow_id"] for one in state["recent"]}) == len(state["recent"])


async def test_a_failure_pauses_it_if_it_should(shop: Shop) -> None:
    world = World(fails={"check_health": [failure("HealthCheckFailed", "it exits at once")]})
    async with working(shop, world):
        await add(shop, *NEVER, "--pause-on-failure")
        assert (await shop.run("schedule", "trigger", "prod")).exit == 0
        state = await until(shop, "failed")
        assert "it exits at once" in state["recent"][0]["why"]
        for _ in range(30):
            if (state := await shown(shop))["paused"]:
                break
    assert state["paused"]


async def test_a_start_is_spread_over_the_jitter(shop: Shop) -> None:
    async with working(shop, World()):
        await add(shop, "--cron", "0 4 * * *", "--jitter", "1h")
        state = await shown(shop)
    starts = [datetime.fromisoformat(each) for each in state["next"]]
    assert {one.hour for one in starts} == {4}
    assert len({(one.minute, one.second) for one in starts}) > 1


async def test_a_run_that_may_cancel_waits_for_the_rollback_of_the_one_before(shop: Shop) -> None:
    world = World(slow={"check_health": 60}, watch="check_health")
    async with working(shop, world):
        await add(shop, *NEVER, "--overlap", "cancel")
        await shop.run("schedule", "trigger", "prod")
        await asyncio.wait_for(world.started.wait(), 30)
        world.slow.clear()
        await shop.run("schedule", "trigger", "prod")
        state = await until(shop, "succeeded")
    assert [one["outcome"] for one in state["recent"]] == ["succeeded", "cancelled"]
    restored = world.calls.index("restore_release")
    assert restored < len(world.calls) - 1 - world.calls[::-1].index("start_release")


async def test_a_run_that_may_wait_begins_when_the_one_before_has_ended(shop: Shop) -> None:
    world = World(slow={"build": 2}, watch="build")
    async with working(shop, world):
        await add(shop, *NEVER, "--overlap", "buffer")
        await shop.run("schedule", "trigger", "prod")
        await asyncio.wait_for(world.started.wait(), 30)
        await shop.run("schedule", "trigger", "prod")
        await until(shop, "succeeded", runs=2)
    order = [one for one in world.calls if one in ("record_start", "record_end")]
    assert order == ["record_start", "record_end"] * 2


async def test_what_was_missed_is_made_up_for_one_after_the_other(shop: Shop) -> None:
    async with working(shop, World()):
        await add(shop, "--cron", "0 4 * * *")
        begin, end = "2026-11-20T00:00", "2026-11-22T00:00"
        done = await shop.run("schedule", "backfill", "prod", "--from", begin, "--to", end)
        assert done.exit == 0, done.text
        await until(shop, "succeeded", runs=2)


async def test_a_scheduled_deployment_in_the_way_refuses_a_push(shop: Shop) -> None:
    world = World(slow={"build": 3}, watch="build")
    async with working(shop, world):
        await add(shop, *NEVER)
        await shop.run("schedule", "trigger", "prod")
        await asyncio.wait_for(world.started.wait(), 20)
        refused = await shop.run("push")
        assert refused.exit == 5, refused.text
        await until(shop, "succeeded")


async def test_a_push_in_the_way_makes_a_run_skip(shop: Shop) -> None:
    world = World(slow={"build": 4}, watch="build")
    async with working(shop, world):
        await add(shop, *NEVER)
        push = await shop.begin("push", "--json")
        await asyncio.wait_for(world.started.wait(), 20)
        await shop.run("schedule", "trigger", "prod")
        state = await until(shop, "skipped")
        assert "already" in state["recent"][0]["why"]
        await push.communicate()
        assert push.returncode == 0


async def test_helix_toml_makes_changes_and_removes_its_own(shop: Shop) -> None:
    file = shop.folder / "helix.toml"
    bare = file.read_text()

    async def sync() -> list[dict[str, str]]:
        done = await shop.run("schedule", "sync", "--json")
        assert done.exit == 0, done.text
        changes: list[dict[str, str]] = json.loads(done.out)["changes"]
        return changes

    async with working(shop, World()):
        file.write_text(bare + '[deploy.prod.schedule]\ncron = "0 4 1 1 *"\njitter = "5m"\n')
        assert [one["change"] for one in await sync()] == ["added"]
        assert [one["change"] for one in await sync()] == ["unchanged"]
        file.write_text(bare + '[deploy.prod.schedule]\ncron = "0 5 1 1 *"\n')
        assert [one["change"] for one in await sync()] == ["changed"]
        assert (await shown(shop))["cron"] == ["0 5 1 1 *"]
        file.write_text(bare)
        for _ in range(20):  # the list lags behind
            if changes := await sync():
                break
        assert [one["change"] for one in changes] == ["removed"]
