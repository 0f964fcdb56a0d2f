"""How a running activity says that it lives, and hears that it should stop."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar, copy_context
from dataclasses import dataclass, field

from temporalio import activity
from temporalio.exceptions import CancelledError

from model.deployment import Heartbeat


@dataclass
class _Latest:
    beat: Heartbeat = field(default_factory=Heartbeat)


_latest: ContextVar[_Latest | None] = ContextVar("latest_heartbeat", default=None)


def report(text: str, done: int = 0, of: int = 0) -> None:
    """Say what is going on, and stop here if the deployment is being cancelled.

    Args:
        text: one line for people, without secrets.
        done: bytes or items finished.
        of: bytes or items in all, 0 if unknown.

    Raises:
        CancelledError: the deployment is cancelled, or the worker shuts down. Let it through.
    """
    beat = Heartbeat(text=text, done=done, of=of)
    if (latest := _latest.get()) is not None:
        latest.beat = beat
    activity.heartbeat(beat)
    checkpoint()


def checkpoint() -> None:
    """Stop here if the deployment is being cancelled.

    Raises:
        CancelledError: as in `report`.
    """
    if activity.is_cancelled():
        raise CancelledError("cancelled")


@contextmanager
def alive() -> Iterator[None]:
    """Heartbeat in the background for as long as the block runs.

    A call into an SDK can block for longer than the heartbeat timeout. The time limit of such a
    call is the attempt's own; the heartbeat only says that the worker still lives.
    """
    timeout = activity.info().heartbeat_timeout
    if timeout is None:
        yield
        return
    latest = _Latest()
    token = _latest.set(latest)
    stop = threading.Event()

    def beat() -> None:
        while not stop.wait(timeout.total_seconds() / 4):
            activity.heartbeat(latest.beat)

    # A thread starts with an empty context, and a heartbeat needs the activity's.
    thread = threading.Thread(target=copy_context().run, args=(beat,), daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()
        _latest.reset(token)


def pause(seconds: float) -> None:
    """Sleep, but stop at once if the deployment is being cancelled.

    Raises:
        CancelledError: as in `report`.
    """
    activity.wait_for_cancelled_sync(seconds)
    checkpoint()
