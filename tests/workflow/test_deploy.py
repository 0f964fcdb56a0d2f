"""The deploy workflow on a server that skips time: every failure at every step, every cancel."""

from __future__ import annotations

import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Any

import pytest
from temporalio.client import WorkflowExecutionStatus, WorkflowFailureError, WorkflowHandle
from temporalio.exceptions import ApplicationError, WorkflowAlreadyStartedError
from temporalio.exceptions import CancelledError as Cancelled
from temporalio.testing import WorkflowEnvironment
from temporalio.worker import Worker

from model.deployment import DeployRequest, Outcome, Progress, StepState
from model.errors import error_classes
from model.instance import Step, StepPolicy
from model.platform import Revision
from tests.workflow.world import FORWARD, STEP_ACTIVITIES, World, failure, request
from workflows.deploy import DeployWorkflow
from workflows.destroy import DestroyWorkflow

Handle = WorkflowHandle[DeployWorkflow, Progress]

AWAY = ["restore_release", "await_release old", "check_health old", "promote_release old"]
"""How a previous release comes back."""


@asynccontextmanager
async def deploying(
    env: WorkflowEnvironment, world: World, asked: DeployRequest | None = None
) -> AsyncIterator[Handle]:
    """A deployment that has just been started, and a worker that carries it out."""
    queue = str(uuid.uuid4())
    async with Worker(
        env.client,
        task_queue=queue,
        workflows=[DeployWorkflow, DestroyWorkflow],
        activities=world.activities(),
        max_heartbeat_throttle_interval=timedelta(milliseconds=100),
        max_cached_workflows=0,  # replays the workflow at every task
        max_concurrent_workflow_task_polls=1,
    ):
        yield await env.client.start_workflow(
            DeployWorkflow.run, asked or request(), id=queue, task_queue=queue
        )


async def outcome(handle: Handle) -> tuple[Progress, BaseException | None]:
    """How it ended: the last progress, and what the run failed with."""
    try:
        return await handle.result(), None
    except WorkflowFailureError as error:
        progress = await handle.query(DeployWorkflow.progress)
        return progress, error.cause


def states(progress: Progress) -> dict[str, str]:
    return {str(record.step): str(record.state) for record in progress.steps}


async def test_six_steps_in_their_order_make_a_release(skipping: WorkflowEnvironment) -> None:
    world = World()
    async with deploying(skipping, world) as handle:
        progress, error = await outcome(handle)
    assert error is None
    assert world.calls == list(FORWARD)
    assert progress.outcome is Outcome.SUCCEEDED
    assert progress.revision == Revision(id="new")
    assert progress.url == "http://shop.test"
    assert progress.artifact is not None and progress.artifact.identity == "sha256:" + "2" * 64
    assert set(states(progress).values()) == {StepState.DONE.value}
    assert world.ended[0].progress == progress


@pytest.mark.parametrize("name", STEP_ACTIVITIES)
@pytest.mark.parametrize("code", sorted({cls.code for cls in error_classes()}))
async def test_a_failed_step_rolls_back_what_was_begun(
    skipping: WorkflowEnvironment, name: str, code: str
) -> None:
    world = World(fails={name: [failure(code)] * 1000})
    async with deploying(skipping, world) as handle:
        progress, error = await outcome(handle)
    begun = STEP_ACTIVITIES.index(name) >= STEP_ACTIVITIES.index("start_release")
    after = [call for call in world.calls if call in AWAY]
    assert after == (AWAY if begun else [])
    assert world.calls[-1] == "record_end" and "promote_release" not in world.calls
    assert isinstance(error, ApplicationError) and error.type == code
    assert progress.outcome is Outcome.ROLLED_BACK
    assert progress.failure is not None and progress.failure.hint == "mend it"
    assert progress.failure.step in {step.value for step in Step}
    assert states(progress)[progress.failure.step] == StepState.FAILED.value
    attempts = world.calls.count(name)
    retryable = {cls.code for cls in error_classes() if cls.retryable}
    if code in retryable:
        assert attempts > 1
    elif code == "AuthExpired" and name in {"push", "start_release"}:
        assert attempts == 3 and world.calls.count("authenticate") == 3
    else:
        assert attempts == 1


async def test_a_first_deployment_that_fails_leaves_nothing(skipping: WorkflowEnvironment) -> None:
    world = World(previous=None, fails={"check_health": [failure("HealthCheckFailed")]})
    async with deploying(skipping, world) as handle:
        progress, _ = await outcome(handle)
    assert [call for call in world.calls if call in AWAY] == ["restore_release"]
    assert progress.undone == ("release removed",)
    assert progress.outcome is Outcome.ROLLED_BACK


@pytest.mark.parametrize("name", STEP_ACTIVITIES)
@pytest.mark.parametrize("deaf", [False, True], ids=["hears", "deaf"])
async def test_a_cancel_during_a_step_undoes_it_after_the_step_has_stopped(
    skipping: WorkflowEnvironment, name: str, deaf: bool
) -> None:
    world = World(slow={name: 0.6}, watch=name, deaf={name} if deaf else set())
    async with deploying(skipping, world) as handle:
        await world.started.wait()
        await handle.cancel()
        progress, error = await outcome(handle)
        description = await handle.describe()
    assert isinstance(error, Cancelled)
    assert description.status is WorkflowExecutionStatus.CANCELED
    assert progress.outcome is Outcome.CANCELLED
    begun = STEP_ACTIVITIES.index(name) >= STEP_ACTIVITIES.index("start_release")
    assert [call for call in world.calls if call in AWAY] == (AWAY if begun else [])
    following = STEP_ACTIVITIES[STEP_ACTIVITIES.index(name) + 1 :]
    assert not set(world.calls) & set(following)
    assert world.ended and world.ended[-1].progress.outcome is Outcome.CANCELLED


async def test_a_cancel_after_the_release_is_healthy_comes_too_late(
    skipping: WorkflowEnvironment,
) -> None:
    for name in ("promote_release", "record_end"):
        world = World(slow={name: 0.4}, watch=name)
        async with deploying(skipping, world) as handle:
            await world.started.wait()
            await handle.cancel()
            progress, error = await outcome(handle)
        assert error is None and progress.outcome is Outcome.SUCCEEDED
        assert "restore_release" not in world.calls


@pytest.mark.parametrize("name", AWAY)
async def test_a_cancel_during_the_rollback_does_not_stop_it(
    skipping: WorkflowEnvironment, name: str
) -> None:
    world = World(
        fails={"check_health": [failure("HealthCheckFailed")]}, slow={name: 0.4}, watch=name
    )
    async with deploying(skipping, world) as handle:
        await world.started.wait()
        await handle.cancel()
        progress, error = await outcome(handle)
    assert [call for call in world.calls if call in AWAY] == AWAY
    assert isinstance(error, ApplicationError) and error.type == "HealthCheckFailed"
    assert progress.outcome is Outcome.ROLLED_BACK


async def test_a_rollback_is_tried_until_it_succeeds(skipping: WorkflowEnvironment) -> None:
    world = World(
        fails={
            "check_health": [failure("HealthCheckFailed")],
            "restore_release": [failure("PermissionDenied"), failure(), failure("Conflict")],
        }
    )
    async with deploying(skipping, world) as handle:
        progress, _ = await outcome(handle)
    assert world.calls.count("restore_release") == 4
    assert progress.outcome is Outcome.ROLLED_BACK


async def test_a_rollback_that_cannot_succeed_asks_for_a_person(
    skipping: WorkflowEnvironment,
) -> None:
    for impossible in (failure("NothingToRestore", "the old one is gone"), failure()):
        world = World(
            fails={
                "check_health": [failure("HealthCheckFailed")],
                "restore_release": [impossible] * 10_000,
            }
        )
        async with deploying(skipping, world, request(rollback_deadline=60)) as handle:
            progress, error = await outcome(handle)
        assert isinstance(error, ApplicationError) and error.type == "RollbackFailed"
        assert "helix rollback --instance prod" in str(error)
        assert progress.outcome is Outcome.NEEDS_ATTENTION
        assert len(progress.left) == 1
        assert world.ended[-1].progress.outcome is Outcome.NEEDS_ATTENTION


async def test_a_previous_release_that_is_sick_gets_its_traffic_back_and_is_reported(
    skipping: WorkflowEnvironment,
) -> None:
    world = World(
        fails={
            "await_release": [failure("HealthCheckFailed")],
            "check_health old": [failure("HealthCheckFailed", "it answers 500")],
        }
    )
    async with deploying(skipping, world) as handle:
        progress, _ = await outcome(handle)
    assert world.calls[-2:] == ["promote_release old", "record_end"]
    assert progress.outcome is Outcome.NEEDS_ATTENTION


async def test_expired_credentials_are_renewed_and_the_step_repeated(
    skipping: WorkflowEnvironment,
) -> None:
    world = World(fails={"push": [failure("AuthExpired")]})
    async with deploying(skipping, world) as handle:
        _, error = await outcome(handle)
    assert error is None
    assert world.calls[3:7] == ["authenticate", "push", "authenticate", "push"]


async def test_a_build_is_redone_elsewhere_when_its_worker_is_gone(
    skipping: WorkflowEnvironment,
) -> None:
    world = World(queues=["a-queue-nobody-polls"])
    async with deploying(skipping, world) as handle:
        progress, error = await outcome(handle)
    assert error is None and progress.outcome is Outcome.SUCCEEDED
    assert world.calls.count("validate") == 2 and world.calls.count("build") == 1


async def test_what_is_given_is_not_built_or_pushed_again(skipping: WorkflowEnvironment) -> None:
    world = World()
    async with deploying(skipping, world) as handle:
        first, _ = await outcome(handle)
    again = World()
    asked = request(artifact=first.artifact, pushed=True)
    async with deploying(skipping, again, asked) as handle:
        progress, error = await outcome(handle)
    assert error is None
    assert not {"build", "push"} & set(again.calls)
    assert states(progress)["build"] == states(progress)["push"] == StepState.SKIPPED.value
    assert progress.artifact == first.artifact


async def test_the_projects_own_policy_replaces_the_default(skipping: WorkflowEnvironment) -> None:
    world = World(fails={"build": [failure()] * 1000})
    asked = request(steps={Step.BUILD: StepPolicy(attempts=2)})
    async with deploying(skipping, world, asked) as handle:
        await outcome(handle)
    assert world.calls.count("build") == 2


async def test_one_deployment_at_a_time_per_instance(skipping: WorkflowEnvironment) -> None:
    world = World(slow={"build": 0.5})
    async with deploying(skipping, world) as handle:
        with pytest.raises(WorkflowAlreadyStartedError) as refused:
            await skipping.client.start_workflow(
                DeployWorkflow.run, request(), id=handle.id, task_queue=handle.id
            )
        assert refused.value.run_id == handle.result_run_id
        await handle.result()


async def test_a_failure_to_write_the_ledger_does_not_undo_a_healthy_release(
    skipping: WorkflowEnvironment,
) -> None:
    world = World(fails={"record_end": [failure()] * 10_000, "prune": [failure()] * 10})
    async with deploying(skipping, world) as handle:
        progress, error = await outcome(handle)
    assert error is None and progress.outcome is Outcome.SUCCEEDED
    assert "restore_release" not in world.calls


async def test_the_page_of_the_run_says_what_failed(skipping: WorkflowEnvironment) -> None:
    world = World(fails={"build": [failure("BuildFailed", "COPY hello.py: no such file")]})
    async with deploying(skipping, world) as handle:
        await outcome(handle)
        details: Any = await handle.query("__temporal_workflow_metadata")
    page = str(details)
    assert "COPY hello.py: no such file" in page and "rolled-back" in page
