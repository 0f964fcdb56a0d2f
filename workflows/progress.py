"""The journal of a deployment: what the query, the UI and the search attributes show."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from temporalio import workflow
from temporalio.common import SearchAttributeKey
from temporalio.exceptions import ActivityError, ApplicationError, FailureError, TimeoutError
from temporalio.exceptions import TimeoutType as Timeout

with workflow.unsafe.imports_passed_through():
    from pydantic import ValidationError

    from model.artifact import Artifact
    from model.deployment import (
        Decision,
        DeployRequest,
        Failure,
        Outcome,
        Progress,
        Question,
        StepRecord,
        StepState,
    )
    from model.instance import Step
    from model.platform import Identity, Revision
    from workflows import metrics, page

STEP = SearchAttributeKey.for_keyword("DeployStep")
IMAGE = SearchAttributeKey.for_keyword("DeployImage")


@dataclass
class StepNote:
    """What a step wants said of itself once it is done."""

    detail: str = ""


class Journal:
    """Keeps `Progress` current, and with it everything a person sees in the Temporal UI."""

    def __init__(self, deployment: str, request: DeployRequest) -> None:
        self._request = request
        self.progress = Progress(
            deployment=deployment,
            steps=tuple(StepRecord(step=step) for step in Step),
            artifact=request.artifact,
            pushed=request.pushed,
        )
        self.step_name = "start"

    @property
    def number(self) -> int:
        """The release's number."""
        return self.progress.number

    def numbered(self, number: int) -> None:
        """The ledger gave the deployment its number."""
        self._set(number=number)

    def found(self, previous: Revision | None) -> None:
        """What runs now."""
        self._set(previous=previous)

    def built(self, artifact: Artifact) -> None:
        """The artifact is known."""
        self._set(artifact=artifact)
        workflow.upsert_search_attributes([IMAGE.value_set(artifact.short)])

    def pushed(self, artifact: Artifact) -> None:
        """The artifact is in the registry."""
        self._set(artifact=artifact, pushed=True)

    def checked(self, notes: tuple[str, ...]) -> None:
        """What the policy's checks found."""
        self._set(checks=notes)

    def identified(self, identities: tuple[Identity, ...]) -> None:
        """Who we are everywhere."""
        self._set(identities=identities)

    def phase(self, phase: str) -> None:
        """What goes on between the steps."""
        self.step_name = phase
        self._set(phase=phase)
        workflow.upsert_search_attributes([STEP.value_set(phase)])

    def promoted(self, revision: Revision, url: str) -> None:
        """The release has the traffic."""
        self._set(revision=revision, url=url)

    def asking(self, question: Question) -> None:
        """The deployment waits for a person."""
        self._set(question=question)
        self.phase(f"asking-{question.about}")

    def answered(self, question: Question, decision: Decision) -> None:
        """Somebody answered, or nobody did in time."""
        self._set(question=None, decisions=(*self.progress.decisions, decision))
        self.phase(question.about)

    def rolling_back(self, failure: Failure, cancelled: bool) -> None:
        """A step failed, or a person cancelled."""
        self._set(failure=None if cancelled else failure, question=None)
        self.phase("rolling-back")

    def ended(
        self,
        outcome: Outcome,
        *,
        undone: Sequence[str] = (),
        left: Sequence[str] = (),
    ) -> None:
        """One of the legal ends. The step attribute keeps naming where a failure happened."""
        self._set(
            phase=outcome.value,
            outcome=outcome,
            undone=tuple(undone),
            left=tuple(left),
            cancel=workflow.cancellation_reason(),
        )
        metrics.deployment_ended(outcome, undone=len(undone), left=len(left))
        failure = self.progress.failure
        workflow.upsert_search_attributes(
            [STEP.value_set(failure.step if failure else outcome.value)]
        )

    def skip(self, step: Step, why: str) -> None:
        """The step had nothing to do."""
        self._step(step, state=StepState.SKIPPED, detail=why)

    @contextmanager
    def step(self, step: Step) -> Iterator[StepNote]:
        """The step runs for as long as the block does."""
        note = StepNote()
        self.phase(step.value)
        self._step(
            step, state=StepState.RUNNING, started_at=workflow.now(), ended_at=None, detail=""
        )
        try:
            yield note
        except BaseException as error:
            failed = isinstance(error, FailureError) and workflow.cancellation_reason() is None
            state = StepState.FAILED if failed else StepState.CANCELLED
            detail = failure_of(error, step.value).message if failed else "cancelled"
            self._step(step, state=state, ended_at=workflow.now(), detail=detail)
            self.step_name = step.value
            raise
        self._step(step, state=StepState.DONE, ended_at=workflow.now(), detail=note.detail)

    def _step(self, step: Step, **changes: object) -> None:
        self._set(
            steps=tuple(
                record.model_copy(update=changes) if record.step is step else record
                for record in self.progress.steps
            )
        )

        if changes.get("ended_at") is not None:
            metrics.step_ended(next(one for one in self.progress.steps if one.step is step))

    def _set(self, **changes: object) -> None:
        self.progress = self.progress.model_copy(update=changes)
        workflow.set_current_details(page.markdown(self.progress, self._request.instance.key))


def failure_of(error: BaseException, step: str) -> Failure:
    """Why a step failed, from whatever the activity's failure carries."""
    cause = error.cause if isinstance(error, ActivityError) else error
    if isinstance(cause, ApplicationError):
        if cause.details:
            try:
                return Failure.model_validate(cause.details[0]).model_copy(update={"step": step})
            except ValidationError:
                pass
        return Failure(step=step, code=cause.type or "DeployFailed", message=cause.message)
    if isinstance(cause, TimeoutError):
        kind = cause.type.name.lower().replace("_", "-") if cause.type else "time"
        return Failure(
            step=step,
            code="TimedOut",
            message=f"it did not finish in time ({kind} limit)",
            hint=f"raise [deploy.<instance>.steps.{step}] timeout or deadline, "
            "and see whether a worker runs: helix doctor",
        )
    return Failure(step=step, code="DeployFailed", message=str(cause) or "cancelled")


def worker_is_gone(error: ActivityError) -> bool:
    """Whether a worker's own queue did not hand the activity to anyone."""
    cause = error.cause
    return isinstance(cause, TimeoutError) and cause.type is Timeout.SCHEDULE_TO_START
