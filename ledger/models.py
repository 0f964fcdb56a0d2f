"""The ledger's tables. A change here needs a migration (`ledger/migrations/versions`)."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from sqlalchemy import JSON, DateTime, Dialect, ForeignKey, Index, Text, UniqueConstraint
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column
from sqlalchemy.types import TypeDecorator


class Moment(TypeDecorator[datetime]):
    """A moment in UTC to the microsecond. SQLite forgets time zones, so none is stored."""

    impl = DateTime
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        """Into the database."""
        return None if value is None else value.astimezone(UTC).replace(tzinfo=None)

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        """Out of the database."""
        return None if value is None else value.replace(tzinfo=UTC)


Document = JSON().with_variant(JSONB(), "postgresql")
"""A pydantic value as JSON."""


class Base(DeclarativeBase):
    """What all tables share."""

    type_annotation_map = {datetime: Moment, str: Text, dict[str, Any]: Document}


class InstanceRow(Base):
    """One instance that was ever deployed, and the counter of its deployments."""

    __tablename__ = "instances"

    key: Mapped[str] = mapped_column(primary_key=True)
    """`Instance.key`."""
    project: Mapped[str]
    name: Mapped[str]
    kind: Mapped[str]
    created_at: Mapped[datetime]
    last_number: Mapped[int]
    destroyed_at: Mapped[datetime | None]
    """When it was last destroyed; None again from the next deployment on."""


class DeploymentRow(Base):
    """One deployment. Its request and progress are kept whole; what is searched for has columns."""

    __tablename__ = "deployments"
    __table_args__ = (
        UniqueConstraint("instance_key", "number", name="one_number_per_deployment"),
        Index("deployments_by_short", "short"),
        Index("deployments_by_start", "started_at"),
    )

    deployment: Mapped[str] = mapped_column(primary_key=True)
    short: Mapped[str]
    """The part of the id that people see."""
    instance_key: Mapped[str] = mapped_column(ForeignKey("instances.key"))
    number: Mapped[int]
    trigger: Mapped[str]
    actor: Mapped[str]
    started_at: Mapped[datetime]
    ended_at: Mapped[datetime | None]
    outcome: Mapped[str | None]
    retired: Mapped[bool]
    request: Mapped[dict[str, Any]]
    progress: Mapped[dict[str, Any]]


class EventRow(Base):
    """One line of the audit trail: who did what, when, from where, why, and how it ended.

    Rows are only ever added. Each carries the hash of the one before it, so that a changed or
    missing row is found by reading the chain; `prev_hash` is unique, so the chain cannot fork.
    """

    __tablename__ = "events"
    __table_args__ = (
        UniqueConstraint("prev_hash", name="one_chain"),
        Index("events_by_instance", "instance_key", "number"),
    )

    number: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    """Counted from 1 without a gap."""
    at: Mapped[datetime]
    actor: Mapped[str]
    """Who."""
    origin: Mapped[str]
    """From where: a machine, a CI job."""
    action: Mapped[str]
    """What."""
    instance_key: Mapped[str]
    """To which instance; empty if to none."""
    deployment: Mapped[str]
    """In which deployment; empty if in none."""
    reason: Mapped[str]
    """Why."""
    outcome: Mapped[str]
    """How it ended; empty if it only began."""
    detail: Mapped[dict[str, Any]]
    prev_hash: Mapped[str]
    hash: Mapped[str]
