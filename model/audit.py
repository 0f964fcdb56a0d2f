"""What the ledger keeps besides deployments: who did what, and which instances there are."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from datetime import datetime

from pydantic import Field, JsonValue

from model.base import Record, digest_of

FIRST = "0" * 64
"""What the first event has in place of its predecessor's hash."""


class AuditEvent(Record):
    """Who did what, when, from where, why, and how it ended.

    Every field is hashed, so none may ever be added here: what is new goes into `detail`.
    """

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


class Anchor(Record):
    """An event that somebody has noted elsewhere, where nobody who can write the ledger can."""

    number: int
    hash: str

    @classmethod
    def parse(cls, text: str) -> Anchor:
        """From «number:hash».

        Raises:
            ValueError: it is not.
        """
        found = re.fullmatch(r"([1-9]\d{0,17}):([0-9a-f]{64})", text.strip())
        if found is None:
            raise ValueError("expected NUMBER:HASH, as helix audit verify prints it")
        return cls(number=int(found[1]), hash=found[2])

    def __str__(self) -> str:
        return f"{self.number}:{self.hash}"


class Trail:
    """Reads events in their order, and notes where the chain is broken.

    A changed, missing or inserted event is found from the chain alone. A chain that was cut off at
    its end, or written anew as a whole, is whole in itself: it is found by an anchor.
    """

    def __init__(self, anchors: Iterable[Anchor] = ()) -> None:
        self.faults: list[str] = []
        """Each names the events it is about."""
        self.count = 0
        self._last = Anchor(number=0, hash=FIRST)
        self._anchors = {anchor.number: anchor.hash for anchor in anchors}

    @property
    def head(self) -> Anchor | None:
        """The last event, to be noted elsewhere; None if there is none."""
        return self._last if self.count else None

    def read(self, events: Iterable[AuditEvent]) -> Trail:
        """All of them, from the first on. Returns itself."""
        for event in events:
            self.faults += self._faults(event)
            self._last = Anchor(number=event.number, hash=event.hash)
            self.count += 1
        missing = [number for number in self._anchors if number > self._last.number]
        if missing:
            self.faults.append(
                f"the trail ends with event {self._last.number}, and event {max(missing)} was there"
            )
        return self

    def _faults(self, event: AuditEvent) -> Iterator[str]:
        number, before = event.number, self._last
        if number <= before.number:
            yield f"event {number} comes after event {before.number}"
            return
        if number > before.number + 1:
            gone = (before.number + 1, number - 1)
            yield (
                f"event {gone[0]} is missing"
                if gone[0] == gone[1]
                else f"events {gone[0]} to {gone[1]} are missing"
            )
        elif event.prev_hash != before.hash:
            yield f"event {number} does not follow on event {before.number}: one was replaced"
        if event.hash != event.digest:
            yield f"event {number} was changed"
        if self._anchors.get(number, event.hash) != event.hash:
            yield f"event {number} is not the one that was anchored: the trail was written anew"


def cancel_text(actor: str, reason: str = "") -> str:
    """What Temporal is told about a cancel: why, and who wants it."""
    return f"{reason} ({actor})" if reason else f"by {actor}"


def read_cancel(text: str) -> tuple[str, str]:
    """Who cancelled, empty if the text does not tell; and why."""
    if found := re.fullmatch(r"(?:replaced )?by (?P<who>.+)", text):
        return found["who"], "" if text.startswith("by ") else "replaced"
    if found := re.fullmatch(r"(?s)(?P<why>.+) \((?P<who>[^()]+)\)", text):
        return found["who"], found["why"]
    return "", text


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
