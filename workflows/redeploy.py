"""Deploy an instance because its schedule says so, under the same lock as a person's push."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Any, TypeVar

from temporalio import workflow
from temporalio.common import SearchAttributeKey, SearchAttributePair, TypedSearchAttributes
from temporalio.exceptions import (
    ApplicationError,
    CancelledError,
    ChildWorkflowError,
    FailureError,
    WorkflowAlreadyStartedError,
)
from temporalio.workflow import ChildWorkflowCancellationType, ParentClosePolicy

with workflow.unsafe.imports_passed_through():
    from activities.schedule import ScheduleActivities
    from model.deployment import DeployRequest, Progress
    from model.schedule import (
        Overlap,
        Prepared,
        PrepareInput,
        Redeployed,
        RedeployRequest,
        SkippedInput,
    )
    from workflows.deploy import DeployWorkflow
    from workflows.policies import LOCK_PAUSE, LOCK_PAUSE_LONGEST, LOCK_WAIT, POLICIES
    from workflows.routing import queue_of

if TYPE_CHECKING:
    from collections.abc import Callable

A = TypeVar("A")
R = TypeVar("R")

Deployment = workflow.ChildWorkflowHandle[DeployWorkflow, Progress]


@workflow.defn(name="RedeployWorkflow")
class RedeployWorkflow:
    """One run of a schedule. Temporal appends the time to its id, so the id is no lock: the
    deployment is a child, and the child's id is."""

    step = "redeploy"
    """For the log."""

    @workflow.init
    def __init__(self, request: RedeployRequest) -> None:
        self._request = request
        self._run = workflow.info().run_id
        self._say("getting ready")

    @workflow.run
    async def run(self, request: RedeployRequest) -> Redeployed:
        """How it ended, unless it failed.

        Raises:
            ApplicationError: the deployment's failure, its type and message, so that the schedule
                counts it; or why there was nothing that could be deployed.
            CancelledError: cancelled, and the deployment rolled back.
        """
        prepared = await self._call(
            ScheduleActivities.prepare_redeploy,
            PrepareInput(run=self._run, request=request),
            f"find out what to deploy to {request.key}",
        )
        if prepared.request is None:
            return await self._skipped(prepared.skip)
        started = await self._start(prepared.request, prepared)
        if started is None:
            return await self._skipped("the instance is being deployed already")
        self._say(f"deployment {started.first_execution_run_id} runs")
        return await self._end(started)

    async def _start(self, deployment: DeployRequest, prepared: Prepared) -> Deployment | None:
        """Take the lock, which may mean to wait for it; None if it cannot be had."""
        latest = workflow.now() + timedelta(seconds=LOCK_WAIT)
        pause = LOCK_PAUSE
        while True:
            try:
                return await workflow.start_child_workflow(
                    DeployWorkflow.run,
                    deployment,
                    id=deployment.workflow_id,
                    # Terminating the deployment would leave its rollback out.
                    parent_close_policy=ParentClosePolicy.REQUEST_CANCEL,
                    cancellation_type=ChildWorkflowCancellationType.WAIT_CANCELLATION_COMPLETED,
                    search_attributes=_attributes(deployment),
                    static_summary=f"{deployment.trigger} of **{self._request.key}**: "
                    f"{deployment.reason}"[:200],
                    static_details=self._details(prepared.commit),
                )
            except WorkflowAlreadyStartedError:
                if self._request.schedule.overlap is not Overlap.BUFFER or workflow.now() > latest:
                    return None
            self._say("waiting: the instance is being deployed already")
            await workflow.sleep(pause, summary="the instance is being deployed already")
            pause = min(2 * pause, LOCK_PAUSE_LONGEST)

    async def _end(self, started: Deployment) -> Redeployed:
        id = started.first_execution_run_id or ""
        try:
            progress = await started
        except ChildWorkflowError as error:
            if workflow.cancellation_reason() is not None:
                raise
            if isinstance(error.cause, CancelledError):
                # A person's decision: no failure that the schedule should be paused for.
                self._say(f"deployment {id} was cancelled")
                return Redeployed(
                    outcome="cancelled", why="somebody cancelled the deployment", deployment=id
                )
            raise _readable(error) from error
        self._say(f"release {progress.number} runs")
        return Redeployed(outcome="succeeded", deployment=id, number=progress.number)

    async def _skipped(self, why: str) -> Redeployed:
        why = await self._call(
            ScheduleActivities.record_skipped,
            SkippedInput(run=self._run, request=self._request, why=why),
            "note in the ledger that nothing is deployed",
        )
        self._say(f"skipped: {why}")
        return Redeployed(outcome="skipped", why=why)

    async def _call(self, activity: Callable[[Any, A], R], argument: A, summary: str) -> R:
        result: R = await workflow.execute_activity_method(
            activity,
            argument,
            **POLICIES[activity.__name__].config(summary, queue=queue_of(self._request.host)),
        )
        return result

    def _say(self, now: str) -> None:
        """The run's page in the Temporal UI."""
        workflow.set_current_details(f"**{self._request.key}**: {now}\n\n{self._details()}")

    def _details(self, commit: str = "") -> str:
        schedule = self._request.schedule
        facts = {
            "schedule": f"{' and '.join(schedule.cron)} ({schedule.timezone})",
            "deploys": schedule.mode.value,
            "from": f"{schedule.git} {schedule.ref}".strip(),
            "commit": commit,
            "when it is being deployed already": schedule.overlap.value,
            "kept by": f"{self._request.owner}, {self._request.actor}",
            "note": schedule.note,
        }
        return "\n".join(f"- {name}: {value}" for name, value in facts.items() if value)


def _attributes(deployment: DeployRequest) -> TypedSearchAttributes:
    values = {
        "DeployInstance": deployment.instance.key,
        "DeployTrigger": deployment.trigger.value,
    }
    return TypedSearchAttributes(
        [
            SearchAttributePair(SearchAttributeKey.for_keyword(name), value)
            for name, value in values.items()
        ]
    )


def _readable(error: ChildWorkflowError) -> ApplicationError:
    """The deployment's own failure, rather than «child workflow failed»."""
    cause = error.cause
    if isinstance(cause, ApplicationError):
        return ApplicationError(cause.message, type=cause.type)
    message = cause.message if isinstance(cause, FailureError) else str(error)
    return ApplicationError(message, type="DeployFailed")
