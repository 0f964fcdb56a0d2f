"""Schedules as Temporal keeps them: made, found, changed and told.

The server turns a cron expression into a calendar and forgets the text. All that we know of a
schedule is therefore in the argument it starts its runs with, which an update can change too.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

from model.errors import ConfigurationError, NotFound
from model.schedule import PREFIX, Mode, Overlap, RedeployRequest, schedule_id

if TYPE_CHECKING:
    from temporalio.client import (
        Client,
        Schedule,
        ScheduleDescription,
        ScheduleHandle,
        ScheduleState,
    )

REDEPLOY = "RedeployWorkflow"


@dataclass(frozen=True)
class Run:
    """One run that a schedule started."""

    at: datetime
    workflow_id: str
    outcome: str
    """running, succeeded, skipped, cancelled or failed; unknown once Temporal has forgotten it."""
    why: str = ""


@dataclass(frozen=True)
class State:
    """A schedule, and how it does."""

    request: RedeployRequest
    paused: bool
    note: str
    next: tuple[datetime, ...] = ()
    runs: int = 0
    skipped: int = 0
    """Runs that were not even started, because one still ran."""
    missed: int = 0
    """Runs that were due while Temporal was down, for longer than they may be late."""
    recent: tuple[Run, ...] = field(default=())
    """The last ten, newest first."""

    @property
    def when(self) -> str:
        """The cron text and its time zone."""
        return f"{' and '.join(self.request.schedule.cron)} ({self.request.schedule.timezone})"

    @property
    def last(self) -> str:
        """How the last run ended."""
        return self.recent[0].outcome if self.recent else "-"

    def as_json(self) -> dict[str, Any]:
        """For machines."""
        return {
            "id": self.request.schedule_id,
            "instance": self.request.key,
            **self.request.schedule.model_dump(mode="json"),
            "owner": self.request.owner,
            "actor": self.request.actor,
            "paused": self.paused,
            "state_note": self.note,
            "next": [moment.isoformat() for moment in self.next],
            "runs": self.runs,
            "skipped": self.skipped,
            "missed": self.missed,
            "recent": [
                {
                    "at": run.at.isoformat(),
                    "workflow_id": run.workflow_id,
                    "outcome": run.outcome,
                    "why": run.why,
                }
                for run in self.recent
            ],
        }


class Schedules:
    """The schedules of one Temporal namespace.

    Raises (all methods):
        NotFound: the instance has no schedule.
        RPCError: Temporal does not answer.
    """

    def __init__(self, client: Client, task_queue: str) -> None:
        self._client = client
        self._queue = task_queue

    async def put(self, request: RedeployRequest, *, replace: bool) -> State:
        """Make a schedule, or (`replace`) give the one there is new settings; a pause stays.

        Raises:
            ConfigurationError: there is one, and it is not to be replaced.
        """
        from temporalio.client import ScheduleAlreadyRunningError

        try:
            await self._client.create_schedule(
                request.schedule_id,
                self._schedule(request),
                memo={"cron": list(request.schedule.cron), "owner": request.owner},
            )
        except ScheduleAlreadyRunningError:
            if not replace:
                raise ConfigurationError(
                    f"{request.key} has a schedule already",
                    hint=f"see it: helix schedule show {request.name}; change it: --replace",
                ) from None
            await self._update(request)
        return await self.get(request.key)

    async def get(self, key: str) -> State:
        """One schedule, with how its last runs ended."""
        return await self._state(await self._described(self._handle(key), key))

    async def all(self) -> list[State]:
        """Every schedule of ours, by instance."""
        found = []
        async for each in await self._client.list_schedules():
            if each.id.startswith(PREFIX):
                key = each.id.removeprefix(PREFIX)
                try:
                    found.append(await self.get(key))
                except NotFound:  # removed in this moment: the list lags behind
                    continue
        return sorted(found, key=lambda state: state.request.key)

    async def pause(self, key: str, note: str) -> State:
        """Start no more runs."""
        return await self._do(key, lambda handle: handle.pause(note=note))

    async def resume(self, key: str, note: str) -> State:
        """Start runs again."""
        return await self._do(key, lambda handle: handle.unpause(note=note))

    async def trigger(self, key: str) -> State:
        """Start a run now."""
        return await self._do(key, lambda handle: handle.trigger())

    async def backfill(self, key: str, begin: datetime, end: datetime) -> State:
        """Start the runs of a time that has passed, one after the other."""
        from temporalio.client import ScheduleBackfill, ScheduleOverlapPolicy

        missed = ScheduleBackfill(
            start_at=begin, end_at=end, overlap=ScheduleOverlapPolicy.BUFFER_ALL
        )
        return await self._do(key, lambda handle: handle.backfill(missed))

    async def remove(self, key: str) -> None:
        """Remove a schedule; a run of it goes on."""
        handle = self._handle(key)
        await self._described(handle, key)
        await handle.delete()

    async def sync(
        self,
        wanted: Mapping[str, RedeployRequest],
        here: tuple[str, tuple[str, ...]],
        *,
        dry_run: bool,
    ) -> list[tuple[str, str]]:
        """Make what helix.toml wants so, and remove what it wanted once. What was made by hand is
        left alone.

        Args:
            wanted: by the instance's key.
            here: the project, and the hosts whose schedules are ours to remove.

        Returns:
            Each instance's key, and what was done.
        """
        known = {state.request.key: state.request for state in await self.all()}
        done = []
        for key, request in wanted.items():
            old = known.get(key)
            if old is not None and old.owner != "helix.toml":
                done.append((key, "left alone: it was made by hand (helix schedule remove it)"))
                continue
            same = old is not None and old.schedule == request.schedule
            what = "unchanged" if same else "changed" if old is not None else "added"
            if not same and not dry_run:
                await self.put(request, replace=old is not None)
            done.append((key, what))
        project, hosts = here
        for key, old in known.items():
            if key in wanted or old.owner != "helix.toml":
                continue
            if old.project == project and old.host in hosts:
                if not dry_run:
                    await self.remove(key)
                done.append((key, "removed"))
        return done

    # --- inside ----------------------------------------------------------------------------------

    def _handle(self, key: str) -> ScheduleHandle:
        return self._client.get_schedule_handle(schedule_id(key))

    async def _do(self, key: str, act: Callable[[ScheduleHandle], Any]) -> State:
        handle = self._handle(key)
        await self._described(handle, key)
        await act(handle)
        return await self.get(key)

    async def _update(self, request: RedeployRequest) -> None:
        from temporalio.client import ScheduleUpdate, ScheduleUpdateInput

        def change(given: ScheduleUpdateInput) -> ScheduleUpdate:
            return ScheduleUpdate(self._schedule(request, given.description.schedule.state))

        await self._handle(request.key).update(change)

    def _schedule(self, request: RedeployRequest, state: ScheduleState | None = None) -> Schedule:
        from temporalio.client import (
            Schedule,
            ScheduleActionStartWorkflow,
            ScheduleOverlapPolicy,
            SchedulePolicy,
            ScheduleSpec,
            ScheduleState,
        )
        from temporalio.common import (
            SearchAttributeKey,
            SearchAttributePair,
            TypedSearchAttributes,
        )

        settings = request.schedule
        # Never TERMINATE_OTHER: a deployment that is terminated is not rolled back.
        overlap = {
            Overlap.SKIP: ScheduleOverlapPolicy.SKIP,
            Overlap.BUFFER: ScheduleOverlapPolicy.BUFFER_ONE,
            Overlap.CANCEL: ScheduleOverlapPolicy.CANCEL_OTHER,
        }
        what = {Mode.REDEPLOY: "redeploys", Mode.REBUILD: "rebuilds"}[settings.mode]
        attributes = {"DeployInstance": request.key, "DeployTrigger": "schedule"}
        return Schedule(
            action=ScheduleActionStartWorkflow(
                REDEPLOY,
                request,
                id=request.schedule_id,
                task_queue=self._queue,
                static_summary=f"schedule {what} **{request.key}**",
                typed_search_attributes=TypedSearchAttributes(
                    [
                        SearchAttributePair(SearchAttributeKey.for_keyword(name), value)
                        for name, value in attributes.items()
                    ]
                ),
            ),
            spec=ScheduleSpec(
                cron_expressions=list(settings.cron),
                time_zone_name=settings.timezone,
                jitter=timedelta(seconds=settings.jitter) if settings.jitter else None,
            ),
            policy=SchedulePolicy(
                overlap=overlap[settings.overlap],
                catchup_window=timedelta(seconds=settings.catch_up),
                pause_on_failure=settings.pause_on_failure,
            ),
            state=state or ScheduleState(note=f"{' and '.join(settings.cron)} {settings.note}"),
        )

    async def _described(self, handle: ScheduleHandle, key: str) -> ScheduleDescription:
        from temporalio.service import RPCError, RPCStatusCode

        try:
            return await handle.describe()
        except RPCError as error:
            if error.status is not RPCStatusCode.NOT_FOUND:
                raise
            raise NotFound(f"{key} has no schedule", hint="see them: helix schedule list") from None

    async def _state(self, found: ScheduleDescription) -> State:
        from temporalio.client import ScheduleActionStartWorkflow

        action = found.schedule.action
        assert isinstance(action, ScheduleActionStartWorkflow)
        payloads: Any = action.args
        (request,) = await self._client.data_converter.decode(payloads, [RedeployRequest])
        info, state = found.info, found.schedule.state
        recent = [
            await self._ran(each.started_at, each.action)
            for each in sorted(info.recent_actions, key=lambda each: each.started_at, reverse=True)
        ]
        return State(
            request=request,
            paused=state.paused,
            note=state.note or "",
            next=tuple(info.next_action_times),
            runs=info.num_actions,
            skipped=info.num_actions_skipped_overlap,
            missed=info.num_actions_missed_catchup_window,
            recent=tuple(recent),
        )

    async def _ran(self, at: datetime, action: Any) -> Run:
        from temporalio.client import WorkflowExecutionStatus, WorkflowFailureError
        from temporalio.service import RPCError

        from model.schedule import Redeployed

        id = action.workflow_id
        handle = self._client.get_workflow_handle(
            id, run_id=action.first_execution_run_id, result_type=Redeployed
        )
        try:
            description = await handle.describe()
            if description.status is WorkflowExecutionStatus.RUNNING:
                return Run(at, id, "running")
            ended = await handle.result(follow_runs=False)
        except WorkflowFailureError as error:
            cancelled = description.status is WorkflowExecutionStatus.CANCELED
            lines = str(getattr(error.cause, "message", error.cause)).splitlines() or [""]
            return Run(at, id, "cancelled" if cancelled else "failed", lines[0])
        except RPCError:
            return Run(at, id, "unknown")
        return Run(at, id, ended.outcome, ended.why)
