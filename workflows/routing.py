"""Which worker an activity must go to."""

from __future__ import annotations

from temporalio import workflow

with workflow.unsafe.imports_passed_through():
    from model.instance import Instance


def home_queue(instance: Instance) -> str | None:
    """The queue of the one worker that can reach the instance, or None if any worker can.

    A local instance belongs to one machine's engine, and so to that machine's worker.
    """
    return queue_of(instance.host)


def queue_of(host: str) -> str | None:
    """The queue of a machine's own worker; None if no machine is named, since any will do."""
    return f"{workflow.info().task_queue}@{host}" if host else None
