"""The durable record of releases and of who made them; it outlives Temporal's own retention."""

from __future__ import annotations

import logging
import random
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime
from typing import TypeVar

from sqlalchemy import ColumnElement, Select, exists, not_, or_, select, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from ledger.database import open_engine, translated
from ledger.models import DeploymentRow, EventRow, InstanceRow
from ledger.schema import migrate
from model.audit import FIRST, AuditEvent, InstanceRecord, read_cancel
from model.deployment import (
    Decision,
    DeploymentRecord,
    DeployRequest,
    DestroyRequest,
    Outcome,
    Progress,
)
from model.errors import NotFound
from model.instance import Instance
from model.names import short_id
from model.stats import Sample

T = TypeVar("T")
logger = logging.getLogger(__name__)

ANSWERED = "answered"
"""The outcome of an event that is a person's answer to a deployment."""
ATTEMPTS = 100
"""How often a write that lost a race is repeated. Every round has a winner, so this many writers
at one moment are served."""


class Ledger:
    """Reads and writes the ledger. Safe in any number of threads and processes at once.

    The tables are made, or brought up to date, on first use. Every write may be repeated: it is
    keyed by the deployment.

    Args:
        url: sqlite:///path or postgresql://…

    Raises (all methods):
        Transient: the database is locked or unreachable; the same call may succeed soon.
        PermissionDenied, ConfigurationError, PlatformUnhealthy: it can never work like this.
    """

    def __init__(self, url: str) -> None:
        self._engine = open_engine(url)
        self._writer = self._engine.execution_options(writes=True)
        self._migrated = False
        self._migrating = threading.Lock()

    @property
    def where(self) -> str:
        """Its URL without a password, for people."""
        return self._engine.url.render_as_string(hide_password=True)

    def dispose(self) -> None:
        """Give back the connections. The ledger may still be used afterwards."""
        self._engine.dispose()

    # Deployments ----------------------------------------------------------------------------------

    def open(self, deployment: str, request: DeployRequest, started_at: datetime) -> int:
        """Note that a deployment begins. Returns its number, counted per instance from 1; the same
        one each time it is called for the same deployment."""

        def work(session: Session) -> int:
            return self._open(session, deployment, request, started_at).number

        return self._write(work)

    def close(
        self,
        deployment: str,
        progress: Progress,
        ended_at: datetime,
        request: DeployRequest | None = None,
    ) -> None:
        """Note how a deployment ended. The first end that is written stays.

        Args:
            request: opens the deployment too if that was never written.

        Raises:
            NotFound: it was never opened, and there is no `request` to do it now.
        """

        def work(session: Session) -> None:
            row = session.get(DeploymentRow, deployment, with_for_update=True)
            if row is None:
                if request is None:
                    raise NotFound(f"the ledger knows no deployment {deployment}")
                row = self._open(session, deployment, request, ended_at)
            end = progress.model_dump(mode="json")
            if row.ended_at is not None:
                if row.progress != end:
                    logger.warning("deployment %s has another end already: kept", deployment)
                return
            row.ended_at = ended_at
            row.progress = end
            row.outcome = progress.outcome.value if progress.outcome else None
            for decision in progress.decisions:
                self._append_once(session, _decided(row.deployment, row.instance_key, decision))
            if progress.cancel is not None:
                self._append(session, _cancelled(row, progress.cancel))
            self._append(session, _ended(row, progress))

        self._write(work)

    def decided(
        self, deployment: str, instance_key: str, decision: Decision, about: str
    ) -> AuditEvent:
        """Note what was answered to a deployment's question, once."""
        event = _decided(deployment, instance_key, decision, about)
        return self._write(lambda session: self._append_once(session, event))

    def mark_retired(self, deployment: str) -> None:
        """Note that no rollback can go back to this deployment's release any more."""

        def work(session: Session) -> None:
            row = session.get(DeploymentRow, deployment, with_for_update=True)
            if row is not None:
                row.retired = True

        self._write(work)

    def destroyed(self, request: DestroyRequest, at: datetime) -> None:
        """Note that an instance is gone from its platform, and with it all its releases."""

        def work(session: Session) -> None:
            row = self._instance(session, request.instance, at)
            if row.destroyed_at is not None:
                return
            row.destroyed_at = at
            session.execute(
                update(DeploymentRow).where(DeploymentRow.instance_key == row.key, _SUCCEEDED),
                {"retired": True},
            )
            event = AuditEvent(
                at=at,
                actor=request.actor,
                origin=origin(request.actor),
                action="destroy",
                instance_key=row.key,
                reason=request.reason,
                outcome="done",
                detail={"data": request.data},
            )
            self._append(session, event)

        self._write(work)

    def get(self, deployment: str) -> DeploymentRecord:
        """One deployment.

        Args:
            deployment: its id, or the beginning of the id or of its short form.

        Raises:
            NotFound: there is none, or there are several.
        """
        query = (
            select(DeploymentRow)
            .where(
                or_(
                    DeploymentRow.deployment.startswith(deployment, autoescape=True),
                    DeploymentRow.short.startswith(deployment, autoescape=True),
                )
            )
            .limit(10)
        )
        found = self._records(query) if deployment else []
        exact = [one for one in found if deployment == one.deployment] or found
        if len(exact) == 1:
            return exact[0]
        if exact:
            names = ", ".join(short_id(one.deployment) for one in exact)
            raise NotFound(f"several deployments begin with «{deployment}»: {names}")
        raise NotFound(f"there is no deployment «{deployment}»", hint="list them: helix history")

    def history(self, instance_key: str = "", limit: int = 50) -> list[DeploymentRecord]:
        """Deployments, newest first: of one instance, or of all if none is named."""
        query = select(DeploymentRow).limit(limit)
        if instance_key:
            query = query.where(DeploymentRow.instance_key == instance_key)
        return self._records(query)

    def samples(
        self, since: datetime, until: datetime, keys: Sequence[str] | None = None
    ) -> list[Sample]:
        """The deployments that began in a time and have ended, oldest first, for statistics.

        Args:
            keys: of these instances alone.
        """
        row = DeploymentRow
        query = (
            select(
                row.deployment, row.instance_key, row.started_at, row.ended_at, row.outcome,
                row.progress["steps"], row.progress["failure"],
            )
            .where(row.started_at >= since, row.started_at < until, row.outcome.is_not(None))
            .order_by(row.started_at)
        )  # fmt: skip
        if keys is not None:
            query = query.where(row.instance_key.in_(keys))
        with translated(self._engine), self._session() as session:
            return [
                Sample(
                    deployment=deployment,
                    instance=key,
                    started_at=began,
                    ended_at=ended,
                    outcome=outcome,
                    steps=steps or (),
                    failure=failure,
                )
                for deployment, key, began, ended, outcome, steps, failure in session.execute(query)
            ]

    # Releases -------------------------------------------------------------------------------------

    def releases(self, instance_key: str) -> list[DeploymentRecord]:
        """The releases that are still there to go back to, newest first, the current one included:
        deployments that succeeded and were not retired."""
        query = select(DeploymentRow).where(
            DeploymentRow.instance_key == instance_key,
            DeploymentRow.retired.is_(False),
            _SUCCEEDED,
        )
        return self._records(query)

    def current_release(self, instance_key: str) -> DeploymentRecord | None:
        """The release that should be running, as far as we know."""
        return next(iter(self.releases(instance_key)), None)

    def find_release(self, instance_key: str, number: int) -> DeploymentRecord:
        """The release of this number, to go back to.

        Raises:
            NotFound: it never succeeded, or is no longer there; says which ones are.
        """
        releases = self.releases(instance_key)
        for release in releases:
            if release.number == number:
                return release
        kept = ", ".join(str(one.number) for one in releases)
        raise NotFound(
            f"{instance_key} has no release {number} to go back to",
            hint=f"there are: {kept}" if kept else "it has no release at all: helix push",
        )

    def instances(self) -> list[InstanceRecord]:
        """Every instance that was ever deployed, by key."""
        with translated(self._engine), self._session() as session:
            rows = session.scalars(select(InstanceRow).order_by(InstanceRow.key))
            return [
                InstanceRecord(
                    key=row.key,
                    project=row.project,
                    name=row.name,
                    kind=row.kind,
                    created_at=row.created_at,
                    destroyed_at=row.destroyed_at,
                    deployments=row.last_number,
                )
                for row in rows
            ]

    # Audit ----------------------------------------------------------------------------------------

    def append_event(self, event: AuditEvent) -> AuditEvent:
        """Add an event at the end of the chain. Returns it as written, numbered and sealed."""
        return self._write(lambda session: self._append(session, event))

    def append_once(self, event: AuditEvent) -> AuditEvent:
        """As `append_event`, unless there is an event of the same deployment, action and outcome
        already, which is then returned."""

        return self._write(lambda session: self._append_once(session, event))

    def events(
        self, instance_key: str = "", *, after: int = 0, limit: int = 1000
    ) -> list[AuditEvent]:
        """Events, oldest first: of one instance, or of all if none is named.

        Args:
            after: leave out those up to this number.
        """
        query = select(EventRow).where(EventRow.number > after)
        if instance_key:
            query = query.where(EventRow.instance_key == instance_key)
        return self._events(query.order_by(EventRow.number).limit(limit))

    def trail(self, instance_key: str = "") -> Iterator[AuditEvent]:
        """All events, oldest first, as `events` in pages."""
        after = 0
        while page := self.events(instance_key, after=after):
            yield from page
            after = page[-1].number

    def last_events(
        self,
        instance_key: str = "",
        *,
        action: str = "",
        actor: str = "",
        since: datetime | None = None,
        limit: int = 50,
    ) -> list[AuditEvent]:
        """The newest events that fit, oldest of them first.

        Args:
            actor: a part of who it was.
            since: none that are older.
        """
        query = select(EventRow)
        if instance_key:
            query = query.where(EventRow.instance_key == instance_key)
        if action:
            query = query.where(EventRow.action == action)
        if actor:
            query = query.where(EventRow.actor.contains(actor, autoescape=True))
        if since is not None:
            query = query.where(EventRow.at >= since)
        return self._events(query.order_by(EventRow.number.desc()).limit(limit))[::-1]

    def untold(self) -> list[DeploymentRecord]:
        """Deployments whose beginning, or end, no event tells of: their events were taken away."""

        def told(*outcomes: ColumnElement[bool]) -> ColumnElement[bool]:
            same = EventRow.deployment == DeploymentRow.deployment
            return exists().where(same, EventRow.action == DeploymentRow.trigger, *outcomes)

        began = told(EventRow.outcome == "started")
        ended = or_(
            DeploymentRow.ended_at.is_(None), told(EventRow.outcome == DeploymentRow.outcome)
        )
        return self._records(select(DeploymentRow).where(or_(not_(began), not_(ended))))

    def _events(self, query: Select[EventRow]) -> list[AuditEvent]:
        with translated(self._engine), self._session() as session:
            rows = session.scalars(query)
            return [AuditEvent.model_validate(row, from_attributes=True) for row in rows]

    # Inside a transaction -------------------------------------------------------------------------

    def _open(
        self, session: Session, deployment: str, request: DeployRequest, started_at: datetime
    ) -> DeploymentRow:
        known = session.get(DeploymentRow, deployment)
        if known is not None:
            return known
        instance = self._instance(session, request.instance, started_at)
        instance.last_number += 1
        instance.kind = request.instance.target.kind
        instance.destroyed_at = None
        progress = Progress(deployment=deployment, number=instance.last_number)
        row = DeploymentRow(
            deployment=deployment,
            short=short_id(deployment),
            instance_key=instance.key,
            number=instance.last_number,
            trigger=request.trigger.value,
            actor=request.actor,
            started_at=started_at,
            ended_at=None,
            outcome=None,
            retired=False,
            request=request.model_dump(mode="json"),
            progress=progress.model_dump(mode="json"),
        )
        session.add(row)
        if request.override_freeze:
            self._append(session, _overridden(row, request))
        self._append(session, _started(row, request))
        return row

    def _instance(self, session: Session, instance: Instance, now: datetime) -> InstanceRow:
        """The instance's row, locked until the transaction ends: its counter is the queue."""
        row = session.get(InstanceRow, instance.key, with_for_update=True)
        if row is None:
            row = InstanceRow(
                key=instance.key,
                project=instance.project,
                name=instance.name,
                kind=instance.target.kind,
                created_at=now,
                last_number=0,
                destroyed_at=None,
            )
            session.add(row)
            session.flush()
        return row

    def _append(self, session: Session, event: AuditEvent) -> AuditEvent:
        session.flush()
        last = session.scalars(select(EventRow).order_by(EventRow.number.desc()).limit(1)).first()
        linked = event.model_copy(
            update={
                "number": last.number + 1 if last else 1,
                "prev_hash": last.hash if last else FIRST,
            }
        )
        # What is hashed must be what a later reader gets: a moment in UTC.
        linked = AuditEvent.model_validate(linked.model_dump() | {"at": linked.at.astimezone(UTC)})
        sealed = linked.model_copy(update={"hash": linked.digest})
        session.add(EventRow(**sealed.model_dump()))
        session.flush()
        return sealed

    def _append_once(self, session: Session, event: AuditEvent) -> AuditEvent:
        same = select(EventRow).where(
            EventRow.deployment == event.deployment,
            EventRow.action == event.action,
            EventRow.outcome == event.outcome,
        )
        if event.outcome == ANSWERED:  # one deployment may be told to retry more than once
            same = same.where(EventRow.at == event.at)
        known = session.scalars(same).first()
        if known is not None:
            return AuditEvent.model_validate(known, from_attributes=True)
        return self._append(session, event)

    # Transactions ---------------------------------------------------------------------------------

    def _session(self) -> Session:
        if not self._migrated:
            with self._migrating:
                migrate(self._engine)
                self._migrated = True
        return Session(self._engine, expire_on_commit=False)

    def _write(self, work: Callable[[Session], T]) -> T:
        with translated(self._engine):
            self._session().close()
            for attempt in range(ATTEMPTS):
                try:
                    with Session(self._writer, expire_on_commit=False) as session, session.begin():
                        return work(session)
                except IntegrityError:
                    # Another writer took the number or the end of the chain: look again.
                    if attempt == ATTEMPTS - 1:
                        raise
                    time.sleep(random.uniform(0, 0.02))
        raise AssertionError("the loop returns or raises")

    def _records(self, query: Select[DeploymentRow]) -> list[DeploymentRecord]:
        ordered = query.order_by(DeploymentRow.started_at.desc(), DeploymentRow.number.desc())
        with translated(self._engine), self._session() as session:
            return [_record(row) for row in session.scalars(ordered)]


_SUCCEEDED = DeploymentRow.outcome == Outcome.SUCCEEDED.value


def _record(row: DeploymentRow) -> DeploymentRecord:
    return DeploymentRecord(
        deployment=row.deployment,
        number=row.number,
        request=DeployRequest.model_validate(row.request),
        started_at=row.started_at,
        ended_at=row.ended_at,
        progress=Progress.model_validate(row.progress),
        retired=row.retired,
    )


def _started(row: DeploymentRow, request: DeployRequest) -> AuditEvent:
    return AuditEvent(
        at=row.started_at,
        actor=request.actor,
        origin=origin(request.actor),
        action=row.trigger,
        instance_key=row.instance_key,
        deployment=row.deployment,
        reason=request.reason,
        outcome="started",
        detail={
            "release": row.number,
            **({"override_freeze": request.override_freeze} if request.override_freeze else {}),
        },
    )


def _overridden(row: DeploymentRow, request: DeployRequest) -> AuditEvent:
    return AuditEvent(
        at=row.started_at,
        actor=request.actor,
        origin=origin(request.actor),
        action="override-freeze",
        instance_key=row.instance_key,
        deployment=row.deployment,
        reason=request.override_freeze,
        outcome="asked",
        detail={"release": row.number},
    )


def _decided(deployment: str, instance_key: str, decision: Decision, about: str = "") -> AuditEvent:
    return AuditEvent(
        at=decision.at or datetime.now(UTC),
        actor=decision.by,
        origin=origin(decision.by),
        action=decision.choice.value,
        instance_key=instance_key,
        deployment=deployment,
        reason=decision.why,
        outcome=ANSWERED,
        detail={"about": about} if about else {},
    )


def _cancelled(row: DeploymentRow, text: str) -> AuditEvent:
    assert row.ended_at is not None
    who, why = read_cancel(text)
    late = row.outcome == Outcome.SUCCEEDED.value
    return AuditEvent(
        at=row.ended_at,
        actor=who,
        origin=origin(who),
        action="cancel",
        instance_key=row.instance_key,
        deployment=row.deployment,
        reason=why,
        outcome="too-late" if late else "done",
        detail={"release": row.number},
    )


def _ended(row: DeploymentRow, progress: Progress) -> AuditEvent:
    assert row.ended_at is not None
    request = DeployRequest.model_validate(row.request)
    return AuditEvent(
        at=row.ended_at,
        actor=request.actor,
        origin=origin(request.actor),
        action=row.trigger,
        instance_key=row.instance_key,
        deployment=row.deployment,
        reason=request.reason,
        outcome=row.outcome or "",
        detail={
            "release": row.number,
            "artifact": progress.artifact.identity if progress.artifact else "",
            "failure": progress.failure.code if progress.failure else "",
        },
    )


def origin(actor: str) -> str:
    """Where an actor was: the machine of «user@machine», the job of «job by user»."""
    job, by, _ = actor.rpartition(" by ")
    return job if by else actor.rpartition("@")[2] if "@" in actor else ""
