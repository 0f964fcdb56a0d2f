"""Reads a running deployment from Temporal, as a stream of events.

Two sources, because neither knows everything. The history, read by long poll, says within
milliseconds when a step starts or ends, and is complete for a run that ended long ago. The
description, read twice a second, says what the history keeps silent until a step is over: failed
attempts, and how far the current one is. Neither needs a worker.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Literal

from cli.exits import BY_OUTCOME, Exit
from model.artifact import Artifact
from model.base import Record
from model.deployment import (
    DeployRequest,
    Failure,
    Heartbeat,
    Outcome,
    Progress,
    StepState,
)
from model.errors import HelixError
from model.instance import Step
from model.steps import STEP_OF, Identities, Validated
from worker.errors import Unreachable

if TYPE_CHECKING:
    from temporalio.api.common.v1 import Payloads
    from temporalio.api.failure.v1 import Failure as RawFailure
    from temporalio.api.history.v1 import HistoryEvent
    from temporalio.api.workflow.v1 import PendingActivityInfo
    from temporalio.client import Client, WorkflowExecutionDescription, WorkflowHandle

PATIENCE = 5.0
"""Seconds after which work that no worker takes is worth a word."""
INTERVAL = 0.5
"""Seconds between two descriptions."""

CONTINUED = {"start_release"}
"""Activities that do not end their step when they end."""
TASK = "workflow task"
"""The key of the deployment's own next move, among the work that waits for a worker."""
BY_A_WORKER = {
    "workflow_task_completed_event_attributes",
    "activity_task_started_event_attributes",
}
"""What only a worker brings about."""


class Started(Record):
    """The deployment exists. Always the first event."""

    event: Literal["start"] = "start"
    at: datetime
    deployment: str
    instance: str
    trigger: str
    actor: str = ""
    reason: str = ""
    link: str = ""
    """The run's page in the Temporal UI."""


class StepChanged(Record):
    """A step started, ended or was skipped. One that failed may run again: after expired
    credentials, or elsewhere if its worker is gone."""

    event: Literal["step"] = "step"
    at: datetime
    step: Step
    state: StepState
    seconds: float | None = None
    """How long it took, once it ended."""
    detail: str = ""
    failure: Failure | None = None


class Attempt(Record):
    """An attempt failed, and the step is tried again."""

    event: Literal["attempt"] = "attempt"
    at: datetime
    step: str
    """A step, or the activity's name if it belongs to none."""
    attempt: int
    """The number of the attempt that comes, or runs now."""
    failure: Failure
    next_at: datetime | None = None
    """When it comes; None if it runs already."""


class Beat(Record):
    """How far the running attempt is."""

    event: Literal["progress"] = "progress"
    at: datetime
    step: str
    text: str = ""
    done: int = 0
    of: int = 0


class Turned(Record):
    """The deployment changed its course."""

    event: Literal["phase"] = "phase"
    at: datetime
    phase: str
    """releasing, cancelling, rolling-back, baking, or asking-… when it waits for a person."""
    reason: str = ""


class Stalled(Record):
    """Something that the deployment needs does not answer; or (`what` empty) does so again."""

    event: Literal["stalled"] = "stalled"
    at: datetime
    what: str = ""
    """`worker`: none drives the deployment. `step`: none has taken an activity, for all are busy or
    gone. `temporal`: the server. Empty: all is well again."""
    detail: str = ""


class Ended(Record):
    """The deployment is over. Always the last event."""

    event: Literal["end"] = "end"
    at: datetime
    deployment: str
    outcome: str
    """An `Outcome`, or `lost` if it was ended from outside, without its rollback."""
    exit: int
    seconds: float
    failure: Failure | None = None
    progress: Progress | None = None


Event = Started | StepChanged | Attempt | Beat | Turned | Stalled | Ended


async def watch(
    client: Client, handle: WorkflowHandle[Any, Any], link: str = ""
) -> AsyncIterator[Event]:
    """The events of one run, from its beginning to its end, however long that takes.

    Args:
        handle: names the workflow and its run.
        link: the run's page in the UI, for `Started`.
    """
    reader = Reader(client, handle, link)
    queue: asyncio.Queue[Event] = asyncio.Queue()
    sources = [
        asyncio.create_task(reader.history(queue.put_nowait)),
        asyncio.create_task(reader.pending(queue.put_nowait)),
    ]
    try:
        while True:
            waiting = asyncio.create_task(queue.get())
            await asyncio.wait([waiting, *sources], return_when=asyncio.FIRST_COMPLETED)
            if not waiting.done() and queue.empty():
                waiting.cancel()
                for source in sources:
                    if source.done():
                        source.result()  # raises what ended it
                raise RuntimeError("the history ended without an end")
            event = await waiting
            yield event
            if isinstance(event, Ended):
                return
    finally:
        for source in sources:
            source.cancel()
        await asyncio.gather(*sources, return_exceptions=True)


class Reader:
    """Turns what Temporal knows of one run into events, each said once."""

    def __init__(self, client: Client, handle: WorkflowHandle[Any, Any], link: str) -> None:
        self._client = client
        self._handle = handle
        self._link = link
        self._converter = client.data_converter
        self._began: datetime = datetime.now(UTC)
        self._deployment = handle.run_id or ""
        self._activities: dict[int, str] = {}
        """The history's event id of an activity -> its type."""
        self._steps: dict[Step, StepChanged] = {}
        self._rolling_back = False
        self._attempts: dict[str, int] = {}
        self._beats: dict[str, Heartbeat] = {}
        self._untaken: dict[str, float] = {}
        """Work that waits for a worker -> since when (monotonic)."""
        self._stalled = ""

    # The history ----------------------------------------------------------------------------

    async def history(self, emit: Callable[[Event], None]) -> None:
        """Follow the history to the run's end; a server that is away is waited for."""
        from temporalio.service import RPCError, RPCStatusCode

        read = 0
        while True:
            try:
                async for event in self._handle.fetch_history_events(wait_new_event=True):
                    if event.event_id <= read:
                        continue
                    self._all_is_well(emit, "temporal")
                    if event.WhichOneof("attributes") in BY_A_WORKER:
                        self._all_is_well(emit, "worker", "step")
                    read = event.event_id
                    for said in await self._said(event):
                        emit(said)
                        if isinstance(said, Ended):
                            return
                await asyncio.sleep(INTERVAL)
            except RPCError as error:
                if error.status in (RPCStatusCode.NOT_FOUND, RPCStatusCode.PERMISSION_DENIED):
                    raise
                self._stall(emit, "temporal", f"Temporal does not answer: {error.message}")
                await asyncio.sleep(INTERVAL)

    async def _said(self, event: HistoryEvent) -> list[Event]:
        """What one event of the history means."""
        kind = event.WhichOneof("attributes") or ""
        handler = getattr(self, f"_on_{kind.removesuffix('_event_attributes')}", None)
        if handler is None:
            return []
        at = event.event_time.ToDatetime(UTC)
        said: list[Event] = await handler(event.event_id, at, getattr(event, kind))
        return said

    async def _on_workflow_execution_started(self, _: int, at: datetime, what: Any) -> list[Event]:
        request = await self._decoded(what.input, DeployRequest)
        self._began = at
        self._deployment = what.original_execution_run_id
        if request is None:
            return []
        return [
            Started(
                at=at,
                deployment=self._deployment,
                instance=request.instance.key,
                trigger=request.trigger,
                actor=request.actor,
                reason=request.reason,
                link=self._link,
            )
        ]

    async def _on_activity_task_scheduled(self, id: int, at: datetime, what: Any) -> list[Event]:
        name = what.activity_type.name
        self._activities[id] = name
        self._attempts.pop(name, None)
        self._beats.pop(name, None)
        step = self._step_of(name)
        if step is None:
            return []
        said = self._skipped(at, before=step)
        known = self._steps.get(step)
        if known is None or known.state is not StepState.RUNNING:
            said.append(self._step(step, at, StepState.RUNNING))
        return said

    async def _on_activity_task_completed(self, _: int, at: datetime, what: Any) -> list[Event]:
        name = self._activities[what.scheduled_event_id]
        step = self._step_of(name)
        if step is None or name in CONTINUED:
            return []
        return [self._step(step, at, StepState.DONE, await self._detail(name, what.result))]

    async def _on_activity_task_failed(self, _: int, at: datetime, what: Any) -> list[Event]:
        step = self._step_of(self._activities[what.scheduled_event_id])
        if step is None:
            return []
        failure = await self._failure(what.failure, step)
        return [self._step(step, at, StepState.FAILED, failure.message, failure)]

    _on_activity_task_timed_out = _on_activity_task_failed

    async def _on_activity_task_canceled(self, _: int, at: datetime, what: Any) -> list[Event]:
        step = self._step_of(self._activities[what.scheduled_event_id])
        return [] if step is None else [self._step(step, at, StepState.CANCELLED)]

    async def _on_workflow_execution_cancel_requested(
        self, _: int, at: datetime, what: Any
    ) -> list[Event]:
        return [Turned(at=at, phase="cancelling", reason=what.cause)]

    async def _on_upsert_workflow_search_attributes(
        self, _: int, at: datetime, what: Any
    ) -> list[Event]:
        from temporalio.converter import DefaultPayloadConverter

        payload = what.search_attributes.indexed_fields.get("DeployStep")
        if payload is None:
            return []
        value = DefaultPayloadConverter().from_payload(payload)
        phase = value[0] if isinstance(value, list) and value else value
        if phase == "rolling-back":
            self._rolling_back = True
            return [Turned(at=at, phase="rolling-back")]
        if phase in ("baking", "checking-policy") or str(phase).startswith("asking-"):
            return [Turned(at=at, phase=str(phase))]
        if phase == "releasing":
            return [*self._skipped(at), Turned(at=at, phase="releasing")]
        return []

    async def _on_workflow_execution_completed(
        self, _: int, at: datetime, what: Any
    ) -> list[Event]:
        progress = await self._decoded(what.result, Progress)
        return self._ended(at, Outcome.SUCCEEDED, progress)

    async def _on_workflow_execution_failed(self, _: int, at: datetime, what: Any) -> list[Event]:
        from temporalio.exceptions import ApplicationError

        error = await self._converter.decode_failure(what.failure)
        progress = None
        if isinstance(error, ApplicationError) and error.details:
            with suppress(ValueError):
                progress = Progress.model_validate(error.details[0])
        if progress is not None and progress.outcome is not None:
            return self._ended(at, progress.outcome, progress)
        failure = await self._failure(what.failure, None)
        outcome = Outcome.NEEDS_ATTENTION
        return self._ended(at, outcome, progress, failure)

    async def _on_workflow_execution_canceled(self, _: int, at: datetime, __: Any) -> list[Event]:
        return self._ended(at, Outcome.CANCELLED, await progress_of(self._handle))

    async def _on_workflow_execution_terminated(
        self, _: int, at: datetime, what: Any
    ) -> list[Event]:
        return self._lost(at, "it was terminated", what.reason)

    async def _on_workflow_execution_timed_out(
        self, _: int, at: datetime, what: Any
    ) -> list[Event]:
        return self._lost(at, "it timed out", "")

    def _lost(self, at: datetime, how: str, reason: str) -> list[Event]:
        failure = Failure(
            step="",
            code="Lost",
            message=f"{how} from outside: nothing was rolled back"
            + (f" ({reason})" * bool(reason)),
            hint="run: helix status, then helix rollback if the wrong release serves",
        )
        return self._ended(at, None, None, failure)

    def _ended(
        self,
        at: datetime,
        outcome: Outcome | None,
        progress: Progress | None,
        failure: Failure | None = None,
    ) -> list[Event]:
        exit = BY_OUTCOME[outcome] if outcome else Exit.NEEDS_ATTENTION
        return [
            Ended(
                at=at,
                deployment=self._deployment,
                outcome=outcome or "lost",
                exit=exit,
                seconds=(at - self._began).total_seconds(),
                failure=failure or (progress.failure if progress else None),
                progress=progress,
            )
        ]

    # The steps ------------------------------------------------------------------------------

    def _step_of(self, activity: str) -> Step | None:
        """On the way back, the same activities restore the previous release."""
        return None if self._rolling_back else STEP_OF.get(activity)

    def _step(
        self,
        step: Step,
        at: datetime,
        state: StepState,
        detail: str = "",
        failure: Failure | None = None,
    ) -> StepChanged:
        seconds = None
        before = self._steps.get(step)
        if state is not StepState.RUNNING and before is not None:
            began = before.at if before.state is StepState.RUNNING else at
            seconds = round((at - began).total_seconds(), 3)
        change = StepChanged(
            at=at, step=step, state=state, seconds=seconds, detail=detail, failure=failure
        )
        self._steps[step] = change
        return change

    def _skipped(self, at: datetime, before: Step | None = None) -> list[Event]:
        """The steps that were passed over on the way to `before`."""
        order = list(Step)
        passed = order[: order.index(before)] if before else order
        return [
            self._step(step, at, StepState.SKIPPED) for step in passed if step not in self._steps
        ]

    async def _detail(self, activity: str, result: Payloads) -> str:
        """One line about what a step made, from its result."""
        if activity == "validate":
            found = await self._decoded(result, Validated)
            return "; ".join(found.notes) if found else ""
        if activity in ("build", "push"):
            made = await self._decoded(result, Artifact)
            if made is None:
                return ""
            return f"unchanged: {made.short}" if made.reused else made.short
        if activity == "authenticate":
            known = await self._decoded(result, Identities)
            return (
                ", ".join(f"{one.who} at {one.where}" for one in known.identities) if known else ""
            )
        if activity == "check_health":
            return await self._decoded(result, str) or ""
        return ""

    # What runs at this moment ---------------------------------------------------------------

    async def pending(self, emit: Callable[[Event], None]) -> None:
        """Look at the running activities, twice a second, for as long as it is not cancelled."""
        from temporalio.service import RPCError

        while True:
            with suppress(RPCError, Unreachable):  # the history says that the server is away
                description = await self._handle.describe()
                for info in description.raw_description.pending_activities:
                    for event in await self._pending(info):
                        emit(event)
                await self._untaken_work(description, emit)
            await asyncio.sleep(INTERVAL)

    async def _pending(self, info: PendingActivityInfo) -> list[Event]:
        """What is new about a running activity."""
        name = info.activity_type.name
        step = self._step_of(name)
        label = step.value if step else name
        now = datetime.now(UTC)
        said: list[Event] = []
        if info.attempt > self._attempts.get(name, 1) and info.HasField("last_failure"):
            self._attempts[name] = info.attempt
            upcoming = info.HasField("next_attempt_schedule_time")
            said.append(
                Attempt(
                    at=now,
                    step=label,
                    attempt=info.attempt,
                    failure=await self._failure(info.last_failure, step),
                    next_at=info.next_attempt_schedule_time.ToDatetime(UTC) if upcoming else None,
                )
            )
        beat = await self._decoded(info.heartbeat_details, Heartbeat)
        if beat is not None and beat != self._beats.get(name) and (beat.text or beat.of):
            self._beats[name] = beat
            said.append(Beat(at=now, step=label, text=beat.text, done=beat.done, of=beat.of))
        return said

    async def _untaken_work(
        self, description: WorkflowExecutionDescription, emit: Callable[[Event], None]
    ) -> None:
        """Say when nobody has taken a piece of work for a while, and when somebody has. A worker
        that goes on asking for work is there, however busy it is."""
        from worker.client import pollers

        now = time.monotonic()
        waiting = dict(_waiting_work(description))
        self._untaken = {key: self._untaken.get(key, now) for key in waiting}
        overdue = [key for key, since in self._untaken.items() if now - since >= PATIENCE]
        if overdue and overdue[0] != TASK:
            self._stall(emit, "step", waiting[overdue[0]])
        elif overdue and not await pollers(self._client, description.task_queue, within=PATIENCE):
            self._stall(emit, "worker", waiting[TASK])
        elif not waiting:
            self._all_is_well(emit, "worker", "step")

    def _stall(self, emit: Callable[[Event], None], what: str, detail: str) -> None:
        if self._stalled != what:
            self._stalled = what
            emit(Stalled(at=datetime.now(UTC), what=what, detail=detail))

    def _all_is_well(self, emit: Callable[[Event], None], *what: str) -> None:
        if self._stalled in what:
            self._stalled = ""
            emit(Stalled(at=datetime.now(UTC)))

    # Decoding -------------------------------------------------------------------------------

    async def _decoded(self, payloads: Payloads, kind: type[Any]) -> Any:
        """The first payload as a value of a type; None if there is none, or it is another."""
        if not payloads.payloads:
            return None
        try:
            values = await self._converter.decode(payloads.payloads[:1], [kind])
        except HelixError:  # a key is missing: nothing of this run can be read
            raise
        except Exception:  # an unreadable detail must not end the watching
            return None
        return values[0]

    async def _failure(self, raw: RawFailure, step: Step | None) -> Failure:
        """Why an attempt failed, from whatever the failure carries."""
        from temporalio.exceptions import ApplicationError, TimeoutError

        name = step.value if step else ""
        error = await self._converter.decode_failure(raw)
        if isinstance(error, ApplicationError):
            if error.details:
                with suppress(ValueError):
                    failure = Failure.model_validate(error.details[0])
                    return failure.model_copy(update={"step": name})
            return Failure(step=name, code=error.type or "Transient", message=error.message)
        if isinstance(error, TimeoutError):
            what = "the worker fell silent" if "heartbeat" in str(error).lower() else "out of time"
            return Failure(step=name, code="TimedOut", message=what)
        return Failure(step=name, code="Transient", message=str(error))


def _waiting_work(
    description: WorkflowExecutionDescription,
) -> list[tuple[str, str]]:
    """The pieces of work that a worker could take now: a key, and a sentence for people."""
    from temporalio.api.enums.v1 import PendingActivityState, PendingWorkflowTaskState

    raw = description.raw_description
    found = []
    task = raw.pending_workflow_task
    if (
        raw.HasField("pending_workflow_task")
        and task.state == PendingWorkflowTaskState.PENDING_WORKFLOW_TASK_STATE_SCHEDULED
    ):
        found.append((TASK, "no worker answers"))
    for info in raw.pending_activities:
        if (
            info.state == PendingActivityState.PENDING_ACTIVITY_STATE_SCHEDULED
            and not info.HasField("next_attempt_schedule_time")
        ):
            name = info.activity_type.name
            found.append((info.activity_id, f"no worker has taken «{name}» yet"))
    return found


async def progress_of(handle: WorkflowHandle[Any, Any], timeout: float = 3) -> Progress | None:
    """What the deployment says of itself, running or ended; None if no worker answers for it."""
    from datetime import timedelta

    from temporalio.client import WorkflowQueryFailedError, WorkflowQueryRejectedError
    from temporalio.service import RPCError

    try:
        found: Progress = await handle.query(
            "progress", result_type=Progress, rpc_timeout=timedelta(seconds=timeout)
        )
    except (RPCError, WorkflowQueryFailedError, WorkflowQueryRejectedError):
        return None
    return found
