"""Who is told how a deployment ended, and that it never waits for them.

On the real server: the one that skips time stops skipping for good once a workflow has ended before
its child.
"""

from __future__ import annotations

import uuid
from datetime import timedelta
from typing import Any

import pytest
from temporalio.client import Client, WorkflowExecutionStatus, WorkflowFailureError
from temporalio.worker import Worker

from model.deployment import Outcome, Progress
from model.instance import Channel
from tests.workflow.world import World, failure, request
from workflows.deploy import DeployWorkflow
from workflows.notify import NotifyWorkflow

TEAM = Channel(name="team", kind="slack", url="env:SLACK")
OPS = Channel(name="ops", kind="webhook", url="https://ops.test", on=("rolled-back",))


async def told(
    client: Client, world: World, **asked: Any
) -> tuple[Progress, WorkflowExecutionStatus | None, list[str]]:
    """A deployment's end, the end of what told of it, and whom it reached."""
    queue = str(uuid.uuid4())
    async with Worker(
        client,
        task_queue=queue,
        workflows=[DeployWorkflow, NotifyWorkflow],
        activities=world.activities(),
        max_cached_workflows=0,
        max_concurrent_workflow_task_polls=1,
        max_heartbeat_throttle_interval=timedelta(milliseconds=100),
    ):
        handle = await client.start_workflow(
            DeployWorkflow.run,
            request(notifications=(TEAM, OPS), **asked),
            id=queue,
            task_queue=queue,
        )
        try:
            progress = await handle.result()
        except WorkflowFailureError:
            progress = await handle.query(DeployWorkflow.progress)
        telling = client.get_workflow_handle(f"notify:shop/prod:{handle.first_execution_run_id}")
        try:
            reached = list(await telling.result())
        except WorkflowFailureError:
            reached = []
        status = (await telling.describe()).status
    return progress, status, reached


async def test_those_who_want_to_hear_of_an_end_are_told(temporal: Client) -> None:
    world = World()
    progress, _, reached = await told(temporal, world)
    assert progress.outcome is Outcome.SUCCEEDED
    assert reached == ["team"]
    assert world.calls.index("notify team") > world.calls.index("record_end")
    notice = world.told[0].notice
    assert (notice.outcome, notice.url, notice.by) == (
        "succeeded",
        "http://shop.test",
        "ada@laptop",
    )


async def test_a_failure_is_told_with_its_step_and_what_to_do(
    temporal: Client,
) -> None:
    world = World(fails={"build": [failure("BuildFailed", "no such file")]})
    progress, _, reached = await told(temporal, world)
    assert progress.outcome is Outcome.ROLLED_BACK
    assert reached == ["team", "ops"]
    notice = world.told[0].notice
    assert (notice.step, notice.code, notice.failure) == ("build", "BuildFailed", "no such file")
    assert notice.hint == "mend it"


async def test_a_receiver_that_is_away_is_tried_again(temporal: Client) -> None:
    world = World(fails={"notify team": [failure(), failure("Throttled")]})
    _, status, reached = await told(temporal, world)
    assert reached == ["team"] and status is WorkflowExecutionStatus.COMPLETED
    assert world.calls.count("notify team") == 3


@pytest.mark.parametrize("build", [[], [failure("BuildFailed")]], ids=["good", "bad"])
async def test_one_that_refuses_for_good_harms_nobody(temporal: Client, build: list[Any]) -> None:
    world = World(
        fails={"notify team": [failure("ConfigurationError", "gone")], "build": list(build)}
    )
    progress, status, _ = await told(temporal, world)
    assert progress.outcome is (Outcome.ROLLED_BACK if build else Outcome.SUCCEEDED)
    assert status is WorkflowExecutionStatus.FAILED
    assert ("notify ops" in world.calls) is bool(build)
