"""Record the histories that every later version of the workflows must still be able to replay.

    python scripts/record_histories.py        (make histories)

Runs each scenario against a real Temporal server with a scripted outside world, and keeps the
history in tests/histories/. A history, once released, is never changed: a new version of the
workflows adds files under its own version, and replays all of them.
"""

from __future__ import annotations

import asyncio
import json
import sys
import uuid
from dataclasses import dataclass, field
from datetime import timedelta
from importlib.metadata import version
from pathlib import Path
from typing import Any

from temporalio.client import Client, WorkflowFailureError
from temporalio.worker import Worker

sys.path.insert(0, str(Path(__file__).parent.parent))

import contextlib

from model.deployment import DeployRequest
from tests.services.temporal import dev_server
from tests.workflow.world import STEP_ACTIVITIES, World, failure, request
from workflows.deploy import DeployWorkflow

HISTORIES = Path(__file__).parent.parent / "tests" / "histories"


@dataclass
class Scenario:
    """One deployment worth keeping."""

    world: World
    asked: DeployRequest = field(default_factory=request)
    cancel_at: str = ""


def scenarios() -> dict[str, Scenario]:
    """Every path through the workflow."""
    found = {
        "succeeded": Scenario(World()),
        "first": Scenario(World(previous=None)),
        "first-failed": Scenario(
            World(previous=None, fails={"check_health": [failure("HealthCheckFailed")]})
        ),
        "retried": Scenario(World(fails={"push": [failure(), failure()]})),
        "reauthenticated": Scenario(World(fails={"push": [failure("AuthExpired")]})),
        "needs-attention": Scenario(
            World(
                fails={
                    "check_health": [failure("HealthCheckFailed")],
                    "restore_release": [failure("NothingToRestore")],
                }
            )
        ),
        "unrecorded": Scenario(World(fails={"prune": [failure("NotFound")]})),
    }
    for name in STEP_ACTIVITIES:
        found[f"failed-at-{name}"] = Scenario(World(fails={name: [failure("Conflict")]}))
        found[f"cancelled-at-{name}"] = Scenario(World(slow={name: 5}, watch=name), cancel_at=name)
    return found


def anonymous(value: Any) -> Any:
    """The history without what only this machine knows: its name, and the paths in tracebacks."""
    if isinstance(value, list):
        return [anonymous(one) for one in value]
    if isinstance(value, dict):
        return {
            key: anonymous(one)
            for key, one in value.items()
            if key not in {"stackTrace", "identity", "binaryChecksum"}
        }
    return value


async def record(client: Client, name: str, scenario: Scenario) -> None:
    """Run one scenario and keep its history."""
    queue = str(uuid.uuid4())
    async with Worker(
        client,
        task_queue=queue,
        workflows=[DeployWorkflow],
        activities=scenario.world.activities(),
        max_heartbeat_throttle_interval=timedelta(milliseconds=100),
    ):
        handle = await client.start_workflow(
            DeployWorkflow.run, scenario.asked, id=f"deploy:{name}", task_queue=queue
        )
        if scenario.cancel_at:
            await scenario.world.started.wait()
            await handle.cancel(reason="recorded")
        with contextlib.suppress(WorkflowFailureError):
            await handle.result()
        history = await handle.fetch_history()
    path = HISTORIES / f"deploy-{name}.v{version('helix-deploy')}.json"
    path.write_text(json.dumps(anonymous(json.loads(history.to_json())), indent=1) + "\n")
    print(f"{path.name}: {len(history.events)} events")


async def main() -> None:
    """Record everything."""
    HISTORIES.mkdir(exist_ok=True)
    async with dev_server() as client:
        for name, scenario in scenarios().items():
            await record(client, name, scenario)


if __name__ == "__main__":
    asyncio.run(main())
