"""The real command against a real Temporal server; the steps are played by a script."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from temporalio.client import Client
from temporalio.worker import Worker

from tests.workflow.world import World, failure
from workflows.deploy import DeployWorkflow
from workflows.destroy import DestroyWorkflow

pytestmark = pytest.mark.temporal

ROOT = Path(__file__).parents[2]


@dataclass
class Ended:
    """How a command ended."""

    exit: int
    out: str
    err: str

    @property
    def text(self) -> str:
        """Everything it printed."""
        return self.out + self.err

    @property
    def events(self) -> list[dict[str, Any]]:
        """Its JSON lines."""
        return [json.loads(line) for line in self.out.splitlines()]


@dataclass
class Shop:
    """A project folder, and the command run in it with its own state and task queue."""

    folder: Path
    address: str
    client: Client
    name: str = field(default_factory=lambda: f"shop-{uuid4().hex[:8]}")
    queue: str = field(default_factory=lambda: f"cli-{uuid4()}")

    def __post_init__(self) -> None:
        (self.folder / "helix.toml").write_text(
            f'[project]\nname = "{self.name}"\n\n[cloud.prod.docker]\nimage = "acme/shop:1"\n'
        )

    async def begin(self, *words: str) -> asyncio.subprocess.Process:
        """Start a command."""
        clean = {key: value for key, value in os.environ.items() if not key.startswith("HELIX_")}
        return await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "cli",
            *words,
            cwd=self.folder,
            env={
                **clean,
                "PYTHONPATH": str(ROOT),
                "TEMPORAL_ADDRESS": self.address,
                "HELIX_STATE_DIR": str(self.folder / "state"),
                "HELIX_TASK_QUEUE": self.queue,
            },
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )

    async def run(self, *words: str) -> Ended:
        """Run a command to its end."""
        return await ended(await self.begin(*words))

    @asynccontextmanager
    async def worker(self, world: World) -> AsyncIterator[None]:
        """A worker that takes this shop's deployments."""
        async with Worker(
            self.client,
            task_queue=self.queue,
            workflows=[DeployWorkflow, DestroyWorkflow],
            activities=world.activities(),
        ):
            yield


async def ended(process: asyncio.subprocess.Process) -> Ended:
    """Wait for a command."""
    async with asyncio.timeout(60):
        out, err = await process.communicate()
    assert process.returncode is not None
    return Ended(process.returncode, out.decode(), err.decode())


@pytest.fixture
def shop(temporal: Client, tmp_path: Path) -> Shop:
    """A shop on the shared server."""
    return Shop(tmp_path, temporal.service_client.config.target_host, temporal)


async def test_a_push_that_goes_well_ends_with_0_and_the_address(shop: Shop) -> None:
    async with shop.worker(World()):
        done = await shop.run("push", "--reason", "first")
    assert done.exit == 0, done.text
    assert "http://shop.test" in done.out
    assert "health-check: done" in done.out
    assert "\x1b" not in done.text


async def test_what_the_ui_shows_says_who_what_and_why(shop: Shop) -> None:
    async with shop.worker(World()):
        await shop.run("push", "--reason", "spring cleaning")
    found = await shop.client.get_workflow_handle(f"deploy:{shop.name}/prod").describe()
    assert "spring cleaning" in (await found.static_summary() or "")
    assert "- kind: docker" in (await found.static_details() or "")
    attributes = {pair.key.name: pair.value for pair in found.typed_search_attributes}
    assert attributes["DeployInstance"] == f"{shop.name}/prod"
    assert attributes["DeployTrigger"] == "push"


async def test_every_view_is_a_query_that_the_server_answers(shop: Shop) -> None:
    world = World(fails={"check_health": [failure("HealthCheckFailed")]})
    async with shop.worker(world):
        assert (await shop.run("push")).exit == 3
        assert (await shop.run("push")).exit == 0
    told = await shop.run("views", "prod", "--json")
    queries = {one["name"]: one["query"] for one in json.loads(told.out)["views"]}
    counts: dict[str, int] = {}
    for _ in range(50):  # what is listed lags behind what has happened
        counts = {
            name: (await shop.client.count_workflows(query)).count
            for name, query in queries.items()
        }
        if (counts["all"], counts["running"]) == (2, 0):
            break
        await asyncio.sleep(0.2)
    assert counts == {"all": 2, "failed": 1, "running": 0, "waiting": 0, "scheduled": 0}


async def test_a_failure_ends_with_3_its_cause_and_what_to_do(shop: Shop) -> None:
    world = World(fails={"check_health": [failure("HealthCheckFailed", "it exits at once")]})
    async with shop.worker(world):
        done = await shop.run("push")
    assert done.exit == 3
    assert "error: health-check failed: it exits at once" in done.err
    assert "what to do: mend it" in done.err
    assert "undone: previous release restored" in done.err
    assert "helix retry" in done.err


async def test_events_are_one_object_a_line_from_start_to_end(shop: Shop) -> None:
    async with shop.worker(World()):
        events = (await shop.run("push", "--json")).events
    assert [events[0]["event"], events[-1]["event"]] == ["start", "end"]
    assert (events[-1]["outcome"], events[-1]["exit"]) == ("succeeded", 0)
    documented = (ROOT / "docs" / "cli-events.md").read_text()
    assert all(f"### `{event['event']}`" in documented for event in events)


async def test_a_second_push_ends_with_5_and_names_the_first(shop: Shop) -> None:
    world = World(slow={"build": 60}, watch="build")
    async with shop.worker(world):
        first = await shop.begin("push")
        await asyncio.wait_for(world.started.wait(), 30)
        second = await shop.run("push", "--json")
        running = await shop.client.get_workflow_handle(f"deploy:{shop.name}/prod").describe()
        assert second.exit == 5
        (told,) = second.events
        assert told["error"]["code"] == "AlreadyDeploying"
        assert running.run_id[-12:][:8] in told["error"]["message"]
        assert "at step build" in told["error"]["message"]
        assert "helix follow" in told["error"]["hint"] and "helix cancel" in told["error"]["hint"]
        cancelled = await shop.run("cancel", "prod", "--reason", "enough")
        assert cancelled.exit == 0, cancelled.text
        done = await ended(first)
    assert done.exit == 7
    assert "cancelling: enough" in done.out


async def test_replace_waits_for_the_rollback_of_the_first(shop: Shop) -> None:
    world = World(slow={"check_health": 60}, watch="check_health")
    async with shop.worker(world):
        first = await shop.begin("push")
        await asyncio.wait_for(world.started.wait(), 30)
        world.slow.clear()
        second = await shop.run("push", "--replace")
        assert second.exit == 0, second.text
        assert (await ended(first)).exit == 7
    restored = world.calls.index("restore_release")
    assert restored < len(world.calls) - 1 - world.calls[::-1].index("start_release")


async def test_ctrl_c_lets_go_and_the_deployment_goes_on(shop: Shop) -> None:
    world = World(slow={"build": 6}, watch="build")
    async with shop.worker(world):
        pushing = await shop.begin("push")
        await asyncio.wait_for(world.started.wait(), 30)
        await asyncio.sleep(0.5)
        pushing.send_signal(signal.SIGINT)
        done = await ended(pushing)
        assert done.exit == 130
        assert "goes on" in done.err and "helix follow" in done.err and "helix cancel" in done.err
        followed = await shop.run("follow", "prod")
    assert followed.exit == 0, followed.text
    assert "http://shop.test" in followed.out


async def test_detach_says_how_to_come_back(shop: Shop) -> None:
    world = World(slow={"build": 1})
    async with shop.worker(world):
        done = await shop.run("push", "--detach", "--json")
        (event,) = done.events
        assert (done.exit, event["event"]) == (0, "start")
        handle = shop.client.get_workflow_handle(
            f"deploy:{shop.name}/prod", run_id=event["deployment"]
        )
        await handle.result()


async def test_without_a_worker_a_push_ends_with_6_within_seconds(shop: Shop) -> None:
    began = time.monotonic()
    done = await shop.run("push")
    assert done.exit == 6
    assert time.monotonic() - began < 10
    assert "no worker polls the task queue" in done.err
    assert "helix worker" in done.err


async def test_without_temporal_a_push_ends_with_6_within_seconds(shop: Shop) -> None:
    shop.address = "127.0.0.1:9"
    began = time.monotonic()
    done = await shop.run("push")
    assert done.exit == 6, done.text
    assert time.monotonic() - began < 15
    assert "127.0.0.1:9" in done.err


async def test_status_and_history_work_without_temporal(shop: Shop) -> None:
    shop.address = "127.0.0.1:9"
    status = await shop.run("status")
    assert status.exit == 0, status.text
    assert "never released" in status.out
    assert "cannot tell what is being deployed" in status.err
    history = await shop.run("history", "--json")
    assert json.loads(history.out)["deployments"] == []


async def test_status_says_what_is_being_deployed(shop: Shop) -> None:
    world = World(slow={"build": 60}, watch="build")
    async with shop.worker(world):
        pushing = await shop.begin("push")
        await asyncio.wait_for(world.started.wait(), 30)
        told = json.loads((await shop.run("status", "--json")).out)
        assert told["instances"][0]["deployment"]["phase"] == "build"
        assert told["temporal"] == "ok"
        assert (await shop.run("cancel")).exit == 0
        assert (await ended(pushing)).exit == 7


async def test_what_is_not_running_cannot_be_cancelled(shop: Shop) -> None:
    async with shop.worker(World()):
        done = await shop.run("cancel")
    assert done.exit == 2
    assert "never deployed" in done.err


async def test_destroy_wants_a_confirmation_and_takes_the_lock(shop: Shop) -> None:
    world = World(slow={"build": 60}, watch="build")
    async with shop.worker(world):
        unasked = await shop.run("destroy", "prod")
        assert unasked.exit == 2 and "--yes" in unasked.err
        pushing = await shop.begin("push")
        await asyncio.wait_for(world.started.wait(), 30)
        assert (await shop.run("destroy", "prod", "--yes")).exit == 5
        assert "destroy" not in world.calls
        await shop.run("cancel")
        await ended(pushing)
        done = await shop.run("destroy", "prod", "--yes", "--json")
    assert done.exit == 0, done.text
    assert json.loads(done.out)["destroyed"] is True
    assert world.calls[-2:] == ["destroy", "record_destroyed"]


async def test_a_wrong_helix_toml_ends_with_2_and_says_where(shop: Shop) -> None:
    (shop.folder / "helix.toml").write_text('[project]\nname = "x"\n[cloud.prod.dokcer]\n')
    done = await shop.run("push")
    assert done.exit == 2
    assert "helix.toml:3" in done.err
    assert "docker" in done.err
