"""Looks at a running deployment through Temporal itself, quickly enough to hit a moment in it."""

from __future__ import annotations

import asyncio
import time

from temporalio.client import Client
from temporalio.service import RPCError

from tests.e2e.machine import Machine, Project


async def _pending(client: Client, project: Project) -> dict[str, str]:
    """Running activity -> the identity of the worker that has it."""
    try:
        description = await client.get_workflow_handle(f"deploy:{project.name}/dev").describe()
    except RPCError:
        return {}
    return {
        one.activity_type.name: one.last_worker_identity
        for one in description.raw_description.pending_activities
        if one.HasField("last_started_time")
    }


def wait_for_activity(machine: Machine, project: Project, name: str, seconds: float = 60) -> str:
    """Return as soon as the activity has begun, the identity of the worker that has it.

    Raises:
        AssertionError: it did not begin in time, or was too quick to be seen.
    """

    async def watch() -> str:
        client = await Client.connect(machine.stack()["address"])
        deadline = time.monotonic() + seconds
        seen: set[str] = set()
        while time.monotonic() < deadline:
            pending = await _pending(client, project)
            seen |= set(pending)
            if name in pending:
                return pending[name]
            await asyncio.sleep(0.02)
        raise AssertionError(f"{name} was never seen to run; seen: {sorted(seen)}")

    return asyncio.run(watch())


def is_running(machine: Machine, project: Project) -> bool:
    """Whether the instance's lock is held."""

    async def ask() -> bool:
        client = await Client.connect(machine.stack()["address"])
        handle = client.get_workflow_handle(f"deploy:{project.name}/dev")
        description = await handle.describe()
        return description.status is not None and description.status.name == "RUNNING"

    return asyncio.run(ask())
