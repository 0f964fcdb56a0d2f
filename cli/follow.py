"""Follows one deployment to its end, or until Ctrl-C lets go of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from cli import output
from cli.display import Display, conclusion, display_for
from cli.exits import Exit
from cli.watch import Ended, watch
from model.names import short_id

if TYPE_CHECKING:
    from temporalio.client import Client


@dataclass(frozen=True)
class Run:
    """One deployment to look at."""

    workflow_id: str
    deployment: str
    instance: str
    """Its key."""
    link: str = ""


async def follow(
    client: Client, run: Run, *, machine: bool, display: Display | None = None
) -> Exit:
    """Show a deployment's events until it ends. Returns the exit code that its end calls for.

    Works the same for a deployment that has just begun, is half-way, or ended long ago.
    """
    handle = client.get_workflow_handle(run.workflow_id, run_id=run.deployment)
    ended: Ended | None = None
    with display or display_for(machine) as shown:
        async for event in watch(client, handle, run.link):
            shown.show(event)
            if isinstance(event, Ended):
                ended = event
    assert ended is not None
    if not machine:
        conclusion(ended, run.instance, run.link)
    return Exit(ended.exit)


def detached(run: Run) -> None:
    """Say that the deployment goes on without us, and how to come back to it or stop it."""
    id = short_id(run.deployment)
    output.note(f"\ndeployment {id} of {run.instance} goes on without this terminal")
    output.note(f"  follow it:  helix follow {id}")
    output.note(f"  stop it:    helix cancel {id}")
