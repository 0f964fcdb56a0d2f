"""A schedule's run: the same lock as a person's push, and the deployment's end as its own."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from temporalio.client import WorkflowExecutionStatus, WorkflowFailureError, WorkflowHandle
from temporalio.exceptions import ApplicationError
from temporalio.testing import WorkflowEnvironment
from temporalio.worker import Worker

from model.deployment import DeployRequest
from model.schedule import Overlap, Prepared, RedeployRequest, ScheduleSettings
from tests.workflow.world import World, failure, request
from workflows.deploy import DeployWorkflow
from workflows.redeploy import RedeployWorkflow

Handle = WorkflowHandle[Any, Any]


def asked(overlap: Overlap = Overlap.SKIP) -> RedeployRequest:
    """A run's request for an instance of its own."""
    settings = ScheduleSettings(cron=("0 4 * * *",), overlap=overlap)
    return RedeployRequest(project=uuid.uuid4().hex, name="prod", schedule=settings, actor="ada@pc")


def by_hand(given: RedeployRequest) -> DeployRequest:
    """A person's push of the same instance."""
    one = request()
    named = {"project": given.project, "name": given.name}
    return one.model_copy(update={"instance": one.instance.model_copy(update=named)})


@asynccontextmanager
async def working(env: WorkflowEnvironment, world: World) -> AsyncIterator[str]:
    """A worker; gives its task queue."""
    queue = str(uuid.uuid4())
    async with Worker(
        env.client,
        task_queue=queue,
        workflows=[DeployWorkflow, RedeployWorkflow],
        activities=world.activities(),
        max_cached_workflows=0,
        max_concurrent_workflow_task_polls=1,
    ):
        yield queue


async def begin(env: WorkflowEnvironment, queue: str, given: RedeployRequest) -> Handle:
    return await env.client.start_workflow(
        RedeployWorkflow.run, given, id=f"run:{given.key}", task_queue=queue
    )


async def push(env: WorkflowEnvironment, queue: str, given: RedeployRequest) -> Handle:
    return await env.client.start_workflow(
        DeployWorkflow.run, by_hand(given), id=given.workflow_id, task_queue=queue
    )


async def test_a_run_deploys_under_the_instances_lock(skipping: WorkflowEnvironment) -> None:
    world, given = World(), asked()
    async with working(skipping, world) as queue:
        ended = await (await begin(skipping, queue, given)).result()
    assert (ended.outcome, ended.number) == ("succeeded", 2)
    lock = await skipping.client.get_workflow_handle(given.workflow_id).describe()
    assert (lock.run_id, lock.workflow_type) == (ended.deployment, "DeployWorkflow")


async def test_a_failed_deployment_fails_the_run_with_its_own_words(
    skipping: WorkflowEnvironment,
) -> None:
    world = World(fails={"check_health": [failure("HealthCheckFailed", "it exits at once")]})
    async with working(skipping, world) as queue:
        with pytest.raises(WorkflowFailureError) as raised:
            await (await begin(skipping, queue, asked())).result()
    cause = raised.value.cause
    assert isinstance(cause, ApplicationError) and cause.type == "HealthCheckFailed"
    assert "it exits at once" in cause.message
    assert "restore_release" in world.calls


async def test_a_persons_deployment_in_the_way_is_left_alone(skipping: WorkflowEnvironment) -> None:
    world, given = World(slow={"build": 2}, watch="build"), asked()
    async with working(skipping, world) as queue:
        person = await push(skipping, queue, given)
        await world.started.wait()
        ended = await (await begin(skipping, queue, given)).result()
        assert ended.outcome == "skipped" and "already" in ended.why
        assert "record_skipped" in world.calls
        assert (await person.result()).outcome == "succeeded"
    assert world.calls.count("build") == 1


async def test_a_run_that_may_wait_goes_after_it(skipping: WorkflowEnvironment) -> None:
    world, given = World(slow={"build": 1}, watch="build"), asked(Overlap.BUFFER)
    async with working(skipping, world) as queue:
        person = await push(skipping, queue, given)
        await world.started.wait()
        run = await begin(skipping, queue, given)
        assert (await person.result()).outcome == "succeeded"
        assert (await run.result()).outcome == "succeeded"
    assert world.calls.count("build") == 2


async def test_what_is_frozen_is_skipped(skipping: WorkflowEnvironment) -> None:
    world = World(prepared=Prepared(skip="deployments are frozen until Monday"))
    async with working(skipping, world) as queue:
        ended = await (await begin(skipping, queue, asked())).result()
    assert (ended.outcome, ended.why) == ("skipped", "deployments are frozen until Monday")
    assert world.calls == ["prepare_redeploy", "record_skipped"]


async def test_a_cancelled_run_rolls_its_deployment_back(skipping: WorkflowEnvironment) -> None:
    world, given = World(slow={"check_health": 5}, watch="check_health"), asked()
    async with working(skipping, world) as queue:
        run = await begin(skipping, queue, given)
        await asyncio.wait_for(world.started.wait(), 30)
        await run.cancel()
        with pytest.raises(WorkflowFailureError):
            await run.result()
        description = await run.describe()
    assert description.status is WorkflowExecutionStatus.CANCELED
    assert "restore_release" in world.calls and world.calls[-1] == "record_end"


async def test_a_deployment_that_a_person_cancels_is_no_failure(
    skipping: WorkflowEnvironment,
) -> None:
    world, given = World(slow={"check_health": 5}, watch="check_health"), asked()
    async with working(skipping, world) as queue:
        run = await begin(skipping, queue, given)
        await asyncio.wait_for(world.started.wait(), 30)
        await skipping.client.get_workflow_handle(given.workflow_id).cancel()
        assert (await run.result()).outcome == "cancelled"
