"""What is told of a deployment: the real workflow on a real server, its world scripted."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from datetime import timedelta
from typing import Any
from uuid import uuid4

import pytest
from temporalio import activity
from temporalio.api.deployment.v1 import WorkerDeploymentOptions
from temporalio.api.enums.v1 import WorkerVersioningMode
from temporalio.api.taskqueue.v1 import TaskQueue
from temporalio.api.workflowservice.v1 import PollWorkflowTaskQueueRequest
from temporalio.client import Client, WorkflowHandle
from temporalio.common import WorkflowIDConflictPolicy
from temporalio.service import RPCError
from temporalio.worker import Worker

from cli import watch as watching
from cli.exits import Exit
from cli.runs import DEPLOY, running
from cli.watch import Attempt, Beat, Ended, Event, Stalled, Started, StepChanged, Turned, watch
from model.artifact import Artifact
from model.deployment import Heartbeat, Outcome, StepState
from model.instance import Step
from model.steps import PushInput
from tests.workflow.world import PUSHED, World, failure, request
from workflows.deploy import DeployWorkflow

pytestmark = pytest.mark.temporal


@asynccontextmanager
async def deployment(
    client: Client, world: World, *, worker: bool = True
) -> AsyncIterator[tuple[WorkflowHandle[Any, Any], Callable[[], Worker]]]:
    """A deployment in that world, and a function that makes a worker for it."""
    queue = f"watch-{uuid4()}"

    def make() -> Worker:
        return Worker(
            client,
            task_queue=queue,
            workflows=[DeployWorkflow],
            activities=world.activities(),
            max_heartbeat_throttle_interval=timedelta(seconds=0.2),
            default_heartbeat_throttle_interval=timedelta(seconds=0.2),
        )

    handle = await client.start_workflow(
        DEPLOY,
        request(),
        id=f"deploy:shop/prod-{queue}",
        task_queue=queue,
        id_conflict_policy=WorkflowIDConflictPolicy.FAIL,
    )
    handle = client.get_workflow_handle(handle.id, run_id=handle.result_run_id)
    if not worker:
        yield handle, make
        return
    async with make():
        yield handle, make


async def events_of(client: Client, handle: WorkflowHandle[Any, Any]) -> list[Event]:
    """Every event until the end."""
    async with asyncio.timeout(60):
        return [event async for event in watch(client, handle, "http://ui/run")]


def states(events: list[Event]) -> list[tuple[Step, StepState]]:
    """The step changes alone."""
    return [(event.step, event.state) for event in events if isinstance(event, StepChanged)]


def last(events: list[Event]) -> Ended:
    """The end."""
    end = events[-1]
    assert isinstance(end, Ended)
    return end


async def test_a_deployment_that_goes_well_is_told_step_by_step(temporal: Client) -> None:
    async with deployment(temporal, World()) as (handle, _):
        events = await events_of(temporal, handle)

    first = events[0]
    assert isinstance(first, Started)
    assert (first.instance, first.actor, first.link) == ("shop/prod", "ada@laptop", "http://ui/run")
    expected = [(step, state) for step in Step for state in (StepState.RUNNING, StepState.DONE)]
    assert states(events) == expected
    end = last(events)
    assert (end.outcome, end.exit) == (Outcome.SUCCEEDED, Exit.DONE)
    assert end.progress is not None
    assert end.progress.url == "http://shop.test"


async def test_the_end_of_a_run_can_be_told_long_after_it_without_a_worker(
    temporal: Client,
) -> None:
    async with deployment(temporal, World()) as (handle, _):
        before = await events_of(temporal, handle)
    after = await events_of(temporal, handle)
    assert states(after) == states(before)
    assert last(after) == last(before)


async def test_a_failed_step_says_why_and_the_rollback_is_told(temporal: Client) -> None:
    world = World(fails={"check_health": [failure("HealthCheckFailed", "it exits at once")]})
    async with deployment(temporal, world) as (handle, _):
        events = await events_of(temporal, handle)

    failed = [e for e in events if isinstance(e, StepChanged) and e.state is StepState.FAILED]
    assert [(e.step, e.detail) for e in failed] == [(Step.HEALTH_CHECK, "it exits at once")]
    assert failed[0].failure is not None
    assert failed[0].failure.hint == "mend it"
    assert [e.phase for e in events if isinstance(e, Turned)] == ["rolling-back"]
    # Restoring the previous release uses the steps' activities, and is none of the steps.
    assert states(events)[-1] == (Step.HEALTH_CHECK, StepState.FAILED)
    end = last(events)
    assert (end.outcome, end.exit) == (Outcome.ROLLED_BACK, Exit.ROLLED_BACK)
    assert end.failure is not None
    assert end.failure.step == Step.HEALTH_CHECK


async def test_a_repeated_attempt_is_told_with_the_last_failure(temporal: Client) -> None:
    world = World(fails={"push": [failure("Transient", "registry unreachable")]})
    async with deployment(temporal, world) as (handle, _):
        events = await events_of(temporal, handle)

    attempts = [event for event in events if isinstance(event, Attempt)]
    assert [(e.step, e.attempt, e.failure.message) for e in attempts] == [
        ("push", 2, "registry unreachable")
    ]
    assert attempts[0].next_at is not None
    assert last(events).outcome == Outcome.SUCCEEDED


async def test_a_cancelled_deployment_is_told_to_its_rollback(temporal: Client) -> None:
    world = World(slow={"build": 60}, watch="build")
    async with deployment(temporal, world) as (handle, _):
        following = asyncio.create_task(events_of(temporal, handle))
        await asyncio.wait_for(world.started.wait(), 20)
        await handle.cancel(reason="lunch")
        events = await following

    turned = [(e.phase, e.reason) for e in events if isinstance(e, Turned)]
    assert ("cancelling", "lunch") in turned
    assert (Step.BUILD, StepState.CANCELLED) in states(events)
    end = last(events)
    assert (end.outcome, end.exit) == (Outcome.CANCELLED, Exit.CANCELLED)
    assert end.progress is not None


async def test_that_no_worker_answers_is_said_and_then_that_one_does(
    temporal: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watching, "PATIENCE", 1.0)
    async with deployment(temporal, World(), worker=False) as (handle, make):
        events: list[Event] = []
        workers: list[asyncio.Task[None]] = []
        async with asyncio.timeout(60):
            async for event in watch(temporal, handle):
                events.append(event)
                if isinstance(event, Stalled) and event.what == "worker" and not workers:
                    workers.append(asyncio.create_task(make().run()))
        workers[0].cancel()
        await asyncio.gather(*workers, return_exceptions=True)
    assert last(events).outcome == Outcome.SUCCEEDED
    assert [e.what for e in events if isinstance(e, Stalled)] == ["worker", ""]


async def test_a_worker_that_asks_for_work_is_busy_and_not_away(
    temporal: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watching, "PATIENCE", 4.0)
    async with deployment(temporal, World(), worker=False) as (handle, make):
        queue = (await handle.describe()).task_queue
        # A worker of a version that is not current asks, and gets nothing.
        asking = PollWorkflowTaskQueueRequest(
            namespace=temporal.namespace,
            task_queue=TaskQueue(name=queue),
            identity="busy",
            deployment_options=WorkerDeploymentOptions(
                deployment_name=queue,
                build_id="next",
                worker_versioning_mode=WorkerVersioningMode.WORKER_VERSIONING_MODE_VERSIONED,
            ),
        )

        async def ask() -> None:
            while True:
                with suppress(RPCError):
                    await temporal.workflow_service.poll_workflow_task_queue(
                        asking, timeout=timedelta(seconds=2.5)
                    )

        busy = asyncio.create_task(ask())
        following = asyncio.create_task(events_of(temporal, handle))
        await asyncio.sleep(8)
        working = asyncio.create_task(make().run())
        events = await following
        for task in (busy, working):
            task.cancel()
        await asyncio.gather(busy, working, return_exceptions=True)
    assert last(events).outcome == Outcome.SUCCEEDED
    assert [e.what for e in events if isinstance(e, Stalled)] == []


async def test_a_run_that_was_terminated_is_never_called_rolled_back(temporal: Client) -> None:
    world = World(slow={"build": 60}, watch="build")
    async with deployment(temporal, world) as (handle, _):
        await asyncio.wait_for(world.started.wait(), 20)
        await handle.terminate(reason="by hand")
        end = last(await events_of(temporal, handle))
    assert (end.outcome, end.exit) == ("lost", Exit.NEEDS_ATTENTION)
    assert end.failure is not None
    assert "by hand" in end.failure.message


async def test_who_holds_the_lock_is_known_while_it_is_held(temporal: Client) -> None:
    world = World(slow={"build": 60}, watch="build")
    async with deployment(temporal, world) as (handle, _):
        await asyncio.wait_for(world.started.wait(), 20)
        found = await running(temporal, handle.id)
        await handle.cancel()
        await events_of(temporal, handle)
    assert found is not None
    assert (found.deployment, found.actor, found.step) == (handle.run_id, "ada@laptop", "build")
    assert await running(temporal, handle.id) is None
    assert await running(temporal, "deploy:shop/nowhere") is None


async def test_heartbeats_are_told_as_progress(temporal: Client) -> None:
    @activity.defn(name="push")
    async def slow_push(given: PushInput) -> Artifact:
        for done in range(8):
            activity.heartbeat(Heartbeat(text="layer 1", done=done * 10, of=80))
            await asyncio.sleep(0.25)
        return given.artifact.model_copy(update={"image": PUSHED})

    world = World()
    others = world.activities()
    world.activities = lambda: [  # type: ignore[method-assign]
        slow_push if getattr(one, "__name__", "") == "push" else one for one in others
    ]
    async with deployment(temporal, world) as (handle, _):
        events = await events_of(temporal, handle)
    beats = [event for event in events if isinstance(event, Beat)]
    assert beats
    assert {(beat.step, beat.text, beat.of) for beat in beats} == {("push", "layer 1", 80)}
    assert [beat.done for beat in beats] == sorted({beat.done for beat in beats})
