"""What a person does with a command, and no deployment tells of, is noted in the audit trail."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pydantic import JsonValue

    from ledger.ledger import Ledger


def note(
    ledger: Ledger,
    action: str,
    instance_key: str,
    outcome: str,
    reason: str = "",
    **detail: JsonValue,
) -> None:
    """Add one event, of whoever runs this command.

    Raises:
        Transient, PermissionDenied, …: the ledger cannot be written.
    """
    from cli.actor import actor
    from ledger.ledger import origin
    from model.audit import AuditEvent

    who = actor(os.environ)
    event = AuditEvent(
        at=datetime.now(UTC),
        actor=who,
        origin=origin(who),
        action=action,
        instance_key=instance_key,
        reason=reason,
        outcome=outcome,
        detail=detail,
    )
    ledger.append_event(event)


@contextmanager
def witnessed(
    ledger: Ledger, action: str, instance_key: str, reason: str = "", **detail: JsonValue
) -> Iterator[dict[str, JsonValue]]:
    """Note that something is begun, do it in the block, and note how it ended.

    Nothing is done that cannot be written down first. What the block puts into the value it is
    given is noted with the end.

    Raises:
        Transient, PermissionDenied, …: the ledger cannot be written; the block has not run.
    """
    from model.errors import HelixError

    found: dict[str, JsonValue] = {}
    note(ledger, action, instance_key, "started", reason, **detail)
    try:
        yield found
    except BaseException as error:
        code = error.code if isinstance(error, HelixError) else type(error).__name__
        note(ledger, action, instance_key, "failed", reason, failure=code)
        raise
    note(ledger, action, instance_key, "done", reason, **found)
