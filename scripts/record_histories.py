"""Record the histories that every later version of the workflows must still be able to replay.

    python scripts/record_histories.py [SCENARIO…]

Runs the scenarios, or all of them, against a real Temporal server with a scripted outside world,
and keeps their histories in tests/histories/. A history, once released, is never changed: a new
version of the workflows adds files under its own version, and replays all of them.
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

from temporalio.client import (
    Client,
    WorkflowFailureError,
    WorkflowHandle,
    WorkflowUpdateFailedError,
)
from temporalio.worker import Worker

sys.path.insert(0, str(Path(__file__).parent.parent))

import contextlib

from model.deployment import Choice, Decision, DeployRequest
from model.instance import Approval, Channel, Guidance
from model.policy import Policy
from model.schedule import Overlap, Prepared, RedeployRequest, ScheduleSettings
from tests.services.temporal import dev_server
from tests.workflow.world import STEP_ACTIVITIES, World, failure, request
from workflows.deploy import DeployWorkflow
from workflows.notify import NotifyWorkflow
from workflows.redeploy import RedeployWorkflow

HISTORIES = Path(__file__).parent.parent / "tests" / "histories"


@dataclass
class Scenario:
    """One run worth keeping: of a deployment, or of a schedule."""

    world: World
    asked: DeployRequest | RedeployRequest = field(default_factory=request)
    cancel_at: str = ""
    answers: tuple[Choice, ...] = ()
    """What a person says to its questions, one after the other."""
    in_the_way: bool = False
    """A person's deployment has the lock until the run has met it."""


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
    found |= asking() | held() | told()
    return {f"deploy-{name}": scenario for name, scenario in found.items()} | {
        f"redeploy-{name}": scenario for name, scenario in scheduled().items()
    }


def asking() -> dict[str, Scenario]:
    """Deployments that ask a person, or are watched after they got the traffic."""

    def sick() -> World:
        return World(fails={"check_health": [failure("HealthCheckFailed")]})

    approval, guided = request(approval=Approval()), request(guidance=Guidance())
    nobody = request(approval=Approval(window=1))
    return {
        "approved": Scenario(World(), approval, answers=(Choice.APPROVE,)),
        "rejected": Scenario(World(), approval, answers=(Choice.REJECT,)),
        "approved-by-nobody": Scenario(World(), nobody),
        "told-to-retry": Scenario(sick(), guided, answers=(Choice.RETRY,)),
        "told-to-skip": Scenario(sick(), guided, answers=(Choice.SKIP,)),
        "told-to-roll-back": Scenario(sick(), guided, answers=(Choice.ROLL_BACK,)),
        "baked": Scenario(World(), request(bake=1)),
        "bake-failed": Scenario(
            World(fails={"bake": [failure("HealthCheckFailed")]}), request(bake=1)
        ),
    }


def held() -> dict[str, Scenario]:
    """Deployments whose image is held to a policy, and whose answers are recorded at once."""
    signed = Policy(signed_by=("-----BEGIN PUBLIC KEY-----",))
    guided = request(guidance=Guidance())
    return {
        "held-to-policy": Scenario(
            World(), request(policy=signed, approval=Approval()), answers=(Choice.APPROVE,)
        ),
        "refused-by-policy": Scenario(
            World(fails={"check_policy": [failure("PolicyViolation")]}), request(policy=signed)
        ),
        "answer-recorded": Scenario(
            World(fails={"push": [failure("Conflict")]}), guided, answers=(Choice.RETRY,)
        ),
    }


def told() -> dict[str, Scenario]:
    """Deployments of which somebody is told."""
    team = Channel(name="team", kind="slack", url="env:SLACK_URL")
    asked = request(notifications=(team,))
    return {
        "told": Scenario(World(), asked),
        "failed-and-told": Scenario(World(fails={"build": [failure("BuildFailed")]}), asked),
    }


def scheduled() -> dict[str, Scenario]:
    """Runs of schedules."""

    def asked(overlap: Overlap = Overlap.SKIP) -> RedeployRequest:
        settings = ScheduleSettings(cron=("0 4 * * *",), overlap=overlap)
        return RedeployRequest(project="shop", name="prod", schedule=settings, actor="ada@laptop")

    sick = World(fails={"check_health": [failure("HealthCheckFailed")]})
    slow = "check_health"
    return {
        "succeeded": Scenario(World(), asked()),
        "failed": Scenario(sick, asked()),
        "frozen": Scenario(World(prepared=Prepared(skip="frozen until Monday")), asked()),
        "skipped": Scenario(World(slow={"build": 2}, watch="build"), asked(), in_the_way=True),
        "waited": Scenario(
            World(slow={"build": 2}, watch="build"), asked(Overlap.BUFFER), in_the_way=True
        ),
        "cancelled": Scenario(World(slow={slow: 5}, watch=slow), asked(), cancel_at=slow),
    }


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
    kind = "RedeployWorkflow" if isinstance(scenario.asked, RedeployRequest) else "DeployWorkflow"
    async with Worker(
        client,
        task_queue=queue,
        workflows=[DeployWorkflow, RedeployWorkflow, NotifyWorkflow],
        activities=scenario.world.activities(),
        max_heartbeat_throttle_interval=timedelta(milliseconds=100),
    ):
        if scenario.in_the_way:
            lock = scenario.asked.workflow_id
            first = await client.start_workflow(
                DeployWorkflow.run, request(), id=lock, task_queue=queue
            )
            await scenario.world.started.wait()
        handle: WorkflowHandle[Any, Any] = await client.start_workflow(
            kind, scenario.asked, id=f"run:{name}", task_queue=queue
        )
        for choice in scenario.answers:
            await answer(handle, choice)
        if scenario.cancel_at:
            await scenario.world.started.wait()
            await handle.cancel(reason="recorded")
        with contextlib.suppress(WorkflowFailureError):
            await handle.result()
        if scenario.in_the_way:
            await first.result()
        history = await handle.fetch_history()
    path = HISTORIES / f"{name}.v{version('helix-deploy')}.json"
    path.write_text(json.dumps(anonymous(json.loads(history.to_json())), indent=1) + "\n")
    print(f"{path.name}: {len(history.events)} events")


async def answer(handle: WorkflowHandle[Any, Any], choice: Choice) -> None:
    """Answer the deployment's question as soon as it has one."""
    said = Decision(choice=choice, by="ada@laptop", why="recorded")
    for _ in range(100):
        with contextlib.suppress(WorkflowUpdateFailedError):  # it asks nothing yet
            await handle.execute_update(DeployWorkflow.decide, said)
            return
        await asyncio.sleep(0.1)


async def main(names: list[str]) -> None:
    """Record the scenarios of these names, or all."""
    HISTORIES.mkdir(exist_ok=True)
    async with dev_server() as client:
        for name, scenario in scenarios().items():
            if not names or name in names:
                await record(client, name, scenario)


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1:]))
