"""`helix follow`, and the following itself: a deployment is shown until it ends or Ctrl-C."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

import typer

from cli import output
from model.names import short_id

if TYPE_CHECKING:
    from temporalio.client import Client

    from cli.display import Display
    from cli.exits import Exit
    from cli.report import Keep


@dataclass(frozen=True)
class Run:
    """One deployment to look at."""

    workflow_id: str
    deployment: str
    instance: str
    """Its key."""
    link: str = ""


def follow(
    context: typer.Context,
    deployment: Annotated[
        str, typer.Argument(help="A deployment's id or its beginning, or an instance.")
    ] = "",
    json: output.Json = False,
) -> None:
    """Watch a deployment until it ends; one that has ended is told again.

    Without a deployment: the running one of the only instance. Ctrl-C lets go of it and does not
    stop it. The exit code is the deployment's own, as with push.

    \b
    Examples:
      helix follow               what is being deployed now
      helix follow 3f2a9c1b      that deployment
      helix follow production    the running, else the last one of that instance
    """
    import asyncio

    from cli.exits import Exit
    from cli.session import open_session

    found: Run | None = None

    async def work() -> Exit:
        from cli.find import find_run

        nonlocal found
        async with open_session(start=True) as session:
            found = await find_run(session, deployment)
            return await follow_run(session.client, found, machine=json)

    try:
        code = asyncio.run(work())
    except KeyboardInterrupt:
        if found is not None:
            detached(found)
        code = Exit.DETACHED
    raise typer.Exit(code)


async def follow_run(
    client: Client,
    run: Run,
    *,
    machine: bool,
    withdraw: bool = False,
    display: Display | None = None,
    keep: Keep | None = None,
) -> Exit:
    """Show a deployment's events until it ends. Returns the exit code that its end calls for.

    Works the same for a deployment that has just begun, is half-way, or ended long ago.

    Args:
        machine: JSON lines instead of text.
        withdraw: we have just started it: if no worker takes it, cancel it rather than wait.
        keep: the files that its end is written to.

    Raises:
        NoWorker: no worker took it, and it was withdrawn.
    """
    from cli.display import conclusion, display_for
    from cli.exits import Exit
    from cli.watch import Ended, Stalled, StepChanged, watch
    from worker.errors import NoWorker

    handle = client.get_workflow_handle(run.workflow_id, run_id=run.deployment)
    ended: Ended | None = None
    with display or display_for(machine) as shown:
        async for event in watch(client, handle, run.link):
            shown.show(event)
            match event:
                case StepChanged():
                    withdraw = False
                case Stalled(what="worker") if withdraw:
                    await handle.cancel(reason="no worker answered")
                    raise NoWorker(
                        f"no worker took deployment {short_id(run.deployment)}; it was withdrawn"
                    )
                case Ended():
                    ended = event
    assert ended is not None
    if not machine:
        conclusion(ended, run.instance, run.link)
    if keep is not None:
        keep.write(ended, run)
    return Exit(ended.exit)


def detached(run: Run) -> None:
    """Say that the deployment goes on without us, and how to come back to it or stop it."""
    id = short_id(run.deployment)
    output.note(f"\ndeployment {id} of {run.instance} goes on without this terminal")
    output.note(f"  follow it:  helix follow {id}")
    output.note(f"  stop it:    helix cancel {id}")
