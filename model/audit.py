"""What the ledger keeps besides deployments: who did what, and which instances there are."""

from __future__ import annotations

from datetime import datetime

from pydantic import Field, JsonValue

from model.base import Record, digest_of

FIRST = "0" * 64
"""What the first event has in place of its predecessor's hash."""


class AuditEvent(Record):
    """Who did what, when, from where, why, and how it ended."""

    number: int = 0
    """Counted from 1 without a gap; given by the ledger."""
    at: datetime
    actor: str = ""
    origin: str = ""
    """From where: a machine, a CI job."""
    action: str
    instance_key: str = ""
    deployment: str = ""
    reason: str = ""
    outcome: str = ""
    """How it ended, or `started`."""
    detail: dict[str, JsonValue] = Field(default_factory=dict)
    prev_hash: str = ""
    hash: str = ""

    @property
    def digest(self) -> str:
        """What `hash` must be: covers every other field, `prev_hash` too."""
        return digest_of(self.model_dump(mode="json", exclude={"hash"}))


class InstanceRecord(Record):
    """An instance that was ever deployed."""

    key: str
    project: str
    name: str
    kind: str
    created_at: datetime
    destroyed_at: datetime | None = None
    """When it was destroyed; None if it may be running."""
    deployments: int = 0
