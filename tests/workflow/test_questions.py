"""A deployment asks a person, and what becomes of it with each answer and with none."""

from __future__ import annotations

import asyncio

import pytest
from temporalio.client import WorkflowUpdateFailedError
from temporalio.exceptions import ApplicationError
from temporalio.exceptions import CancelledError as Cancelled
from temporalio.testing import WorkflowEnvironment

from model.deployment import Choice, Decision, Outcome, Progress, StepState
from model.instance import Approval, Guidance
from tests.workflow.test_deploy import AWAY, Handle, deploying, outcome, states
from tests.workflow.world import World, failure, request
from workflows.deploy import DeployWorkflow

APPROVAL = Approval(window=3600)
GUIDANCE = Guidance(window=3600)


async def asked(handle: Handle) -> Progress:
    """Wait until the deployment asks something."""
    for _ in range(200):
        progress = await handle.query(DeployWorkflow.progress)
        if progress.question is not None:
            return progress
        await asyncio.sleep(0.05)
    raise AssertionError("it asked nothing")


async def answer(handle: Handle, choice: Choice, by: str = "ada", why: str = "") -> None:
    await handle.execute_update(DeployWorkflow.decide, Decision(choice=choice, by=by, why=why))


async def test_an_approved_release_goes_on(skipping: WorkflowEnvironment) -> None:
    world = World()
    async with deploying(skipping, world, request(approval=APPROVAL)) as handle:
        progress = await asked(handle)
        assert progress.question is not None and progress.question.about == "approval"
        assert "start_release" not in world.calls and "push" in world.calls
        await answer(handle, Choice.APPROVE, why="looks good")
        progress, error = await outcome(handle)
    assert error is None and progress.outcome is Outcome.SUCCEEDED
    assert [(one.by, one.why) for one in progress.decisions] == [("ada", "looks good")]


async def test_a_rejected_release_touches_nothing(skipping: WorkflowEnvironment) -> None:
    world = World()
    async with deploying(skipping, world, request(approval=APPROVAL)) as handle:
        await asked(handle)
        await answer(handle, Choice.REJECT, why="not on a Friday")
        progress, error = await outcome(handle)
    assert isinstance(error, ApplicationError) and error.type == "Rejected"
    assert "not on a Friday" in str(error)
    assert progress.outcome is Outcome.ROLLED_BACK
    assert "start_release" not in world.calls and "restore_release" not in world.calls


@pytest.mark.parametrize("otherwise", ["reject", "approve"])
async def test_without_an_answer_the_deadline_decides(
    skipping: WorkflowEnvironment, otherwise: str
) -> None:
    wanted = Approval.model_validate({"window": 86400, "otherwise": otherwise})
    async with deploying(skipping, World(), request(approval=wanted)) as handle:
        progress, error = await outcome(handle)
    assert (error is None) == (otherwise == "approve")
    assert progress.decisions[0].by == "nobody"


async def test_only_the_first_of_two_answers_counts(skipping: WorkflowEnvironment) -> None:
    async with deploying(skipping, World(), request(approval=APPROVAL)) as handle:
        await asked(handle)
        results = await asyncio.gather(
            answer(handle, Choice.APPROVE, "ada"),
            answer(handle, Choice.REJECT, "bob"),
            return_exceptions=True,
        )
        progress, _ = await outcome(handle)
    assert sum(isinstance(one, WorkflowUpdateFailedError) for one in results) == 1
    assert len(progress.decisions) == 1


async def test_answers_that_fit_no_question_are_refused(skipping: WorkflowEnvironment) -> None:
    wanted = Approval(window=3600, by=("ada",))
    async with deploying(skipping, World(), request(approval=wanted)) as handle:
        await asked(handle)
        for choice, by in ((Choice.RETRY, "ada"), (Choice.APPROVE, "mallory")):
            with pytest.raises(WorkflowUpdateFailedError):
                await answer(handle, choice, by)
        await handle.signal(DeployWorkflow.answer, Decision(choice=Choice.APPROVE, by="mallory"))
        await answer(handle, Choice.APPROVE)
        progress, _ = await outcome(handle)
    assert [one.by for one in progress.decisions] == ["ada"]


async def test_a_cancel_while_waiting_ends_it(skipping: WorkflowEnvironment) -> None:
    async with deploying(skipping, World(), request(approval=APPROVAL)) as handle:
        await asked(handle)
        await handle.cancel()
        progress, error = await outcome(handle)
    assert isinstance(error, Cancelled) and progress.question is None


async def test_a_failed_step_can_be_tried_again(skipping: WorkflowEnvironment) -> None:
    world = World(fails={"push": [failure("QuotaExceeded")]})
    async with deploying(skipping, world, request(guidance=GUIDANCE)) as handle:
        progress = await asked(handle)
        assert progress.question is not None and progress.question.about == "push"
        assert Choice.SKIP not in progress.question.choices
        await answer(handle, Choice.RETRY)
        progress, error = await outcome(handle)
    assert error is None and world.calls.count("push") == 2
    assert world.calls.count("build") == 1


async def test_a_health_check_can_be_skipped(skipping: WorkflowEnvironment) -> None:
    world = World(fails={"check_health": [failure("HealthCheckFailed")]})
    async with deploying(skipping, world, request(guidance=GUIDANCE)) as handle:
        await asked(handle)
        await answer(handle, Choice.SKIP, why="the probe is wrong")
        progress, error = await outcome(handle)
    assert error is None and states(progress)["health-check"] == StepState.SKIPPED.value


@pytest.mark.parametrize("answered", [True, False])
async def test_rolled_back_if_a_person_says_so_or_nobody_does(
    skipping: WorkflowEnvironment, answered: bool
) -> None:
    world = World(fails={"check_health": [failure("HealthCheckFailed")]})
    async with deploying(skipping, world, request(guidance=GUIDANCE)) as handle:
        if answered:
            await asked(handle)
            await answer(handle, Choice.ROLL_BACK)
        progress, error = await outcome(handle)
    assert isinstance(error, ApplicationError) and error.type == "HealthCheckFailed"
    assert [call for call in world.calls if call in AWAY] == AWAY
    assert progress.outcome is Outcome.ROLLED_BACK


async def test_a_release_that_goes_bad_while_it_is_watched_is_rolled_back(
    skipping: WorkflowEnvironment,
) -> None:
    world = World(fails={"bake": [failure("HealthCheckFailed", "it answers 500 now")]})
    async with deploying(skipping, world, request(bake=600)) as handle:
        progress, error = await outcome(handle)
    assert progress.outcome is Outcome.ROLLED_BACK
    assert [call for call in world.calls if call in AWAY] == AWAY
    assert "it answers 500 now" in str(error)


async def test_a_cancel_while_it_is_watched_rolls_back(skipping: WorkflowEnvironment) -> None:
    world = World(slow={"bake": 2}, watch="bake")
    async with deploying(skipping, world, request(bake=600)) as handle:
        await world.started.wait()
        await handle.cancel()
        progress, error = await outcome(handle)
    assert isinstance(error, Cancelled) and progress.outcome is Outcome.CANCELLED
    assert [call for call in world.calls if call in AWAY] == AWAY


async def test_a_watched_release_that_stays_good_succeeds(skipping: WorkflowEnvironment) -> None:
    world = World()
    async with deploying(skipping, world, request(bake=600)) as handle:
        progress, error = await outcome(handle)
    assert error is None and progress.outcome is Outcome.SUCCEEDED and "bake" in world.calls
