"""The policy stands between the push and everything that touches the target."""

from __future__ import annotations

import asyncio

import pytest
from temporalio.exceptions import ApplicationError
from temporalio.exceptions import CancelledError as Cancelled
from temporalio.testing import WorkflowEnvironment

from model.deployment import Choice, Decision, Outcome, Trigger
from model.instance import Approval
from model.policy import Policy
from tests.workflow.test_deploy import AWAY, deploying, outcome
from tests.workflow.test_questions import answer, asked
from tests.workflow.world import OLD, World, failure, request
from workflows.deploy import DeployWorkflow

SIGNED = Policy(signed_by=("-----BEGIN PUBLIC KEY-----",))


async def test_an_image_is_looked_at_after_the_push_and_before_anybody_is_asked(
    skipping: WorkflowEnvironment,
) -> None:
    world = World()
    asking = request(policy=SIGNED, approval=Approval(window=3600))
    async with deploying(skipping, world, asking) as handle:
        await asked(handle)
        assert world.calls[-2:] == ["push", "check_policy"]
        await answer(handle, Choice.APPROVE)
        progress, error = await outcome(handle)
    assert error is None
    assert progress.checks == ("signed",)
    assert world.calls.index("check_policy") < world.calls.index("start_release")


async def test_an_image_that_is_refused_touches_nothing(skipping: WorkflowEnvironment) -> None:
    world = World(fails={"check_policy": [failure("PolicyViolation", "not signed")]})
    async with deploying(skipping, world, request(policy=SIGNED)) as handle:
        progress, error = await outcome(handle)
    assert isinstance(error, ApplicationError) and error.type == "PolicyViolation"
    assert progress.outcome is Outcome.ROLLED_BACK
    assert progress.failure is not None and progress.failure.step == "checking-policy"
    assert world.calls.count("check_policy") == 1
    assert not set(world.calls) & {"start_release", *AWAY}


@pytest.mark.parametrize(
    ("policy", "trigger"),
    [(Policy(approval=True, registries=("ghcr.io",)), Trigger.PUSH), (SIGNED, Trigger.ROLLBACK)],
)
async def test_what_asks_nothing_of_the_image_costs_no_activity(
    skipping: WorkflowEnvironment, policy: Policy, trigger: Trigger
) -> None:
    world = World(previous=OLD)
    async with deploying(skipping, world, request(policy=policy, trigger=trigger)) as handle:
        _, error = await outcome(handle)
    assert error is None and "check_policy" not in world.calls


async def test_a_cancel_during_the_check_is_heard(skipping: WorkflowEnvironment) -> None:
    world = World(slow={"check_policy": 0.6}, watch="check_policy", deaf={"check_policy"})
    async with deploying(skipping, world, request(policy=SIGNED)) as handle:
        await world.started.wait()
        await handle.cancel(reason="wrong branch (ada@laptop)")
        progress, error = await outcome(handle)
    assert isinstance(error, Cancelled)
    assert "start_release" not in world.calls
    assert world.ended[0].progress.cancel == progress.cancel == "wrong branch (ada@laptop)"


async def test_every_answer_is_recorded_at_once_and_when_it_was_given(
    skipping: WorkflowEnvironment,
) -> None:
    world = World()
    async with deploying(skipping, world, request(approval=Approval(window=3600))) as handle:
        await asked(handle)
        await handle.signal(
            DeployWorkflow.answer, Decision(choice=Choice.APPROVE, by="the Temporal UI")
        )
        progress, _ = await outcome(handle)
    calls = world.calls
    assert calls.index("record_decision approve") < calls.index("start_release")
    assert progress.decisions[0].at is not None
    assert progress.cancel is None


async def test_a_ledger_that_does_not_answer_holds_no_approved_release_up(
    skipping: WorkflowEnvironment,
) -> None:
    world = World(fails={"record_decision approve": [failure()] * 10_000})
    async with deploying(skipping, world, request(approval=Approval(window=3600))) as handle:
        await asked(handle)
        await answer(handle, Choice.APPROVE)
        progress, error = await asyncio.wait_for(outcome(handle), 60)
    assert error is None and len(progress.decisions) == 1
