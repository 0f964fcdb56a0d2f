"""`helix cancel`: a running deployment is stopped and undone."""

from __future__ import annotations

import os
from typing import Annotated

import typer

from cli import output


def cancel(
    context: typer.Context,
    deployment: Annotated[
        str,
        typer.Argument(help="The deployment's id, or an instance; the running one if left out."),
    ] = "",
    reason: Annotated[str, typer.Option("--reason", help="Why; shown to everyone.")] = "",
    detach: Annotated[
        bool, typer.Option("--detach", "-d", help="Do not wait for the rollback.")
    ] = False,
    json: output.Json = False,
) -> None:
    """Stop a deployment, undo what it did, and wait until what ran before runs again.

    From the moment a release is healthy a cancel comes too late; the deployment then succeeds.

    \b
    Examples:
      helix cancel
      helix cancel 3f2a9c1b --reason "wrong branch"

    \b
    Exit codes:
      0 cancelled and rolled back   1 too late, or it had ended   4 needs attention
    """
    import asyncio

    raise typer.Exit(asyncio.run(_cancel(deployment, reason, detach, json)))


async def _cancel(deployment: str, reason: str, detach: bool, machine: bool) -> int:
    from cli.actor import actor
    from cli.exits import Exit, Usage
    from cli.find import find_run
    from cli.follow import follow_run
    from cli.runs import DEPLOY, running
    from cli.session import open_session
    from model.audit import cancel_text
    from model.names import short_id

    async with open_session(start=True) as session:
        run = await find_run(session, deployment)
        id = short_id(run.deployment)
        now = await running(session.client, run.workflow_id)
        if now is None or now.deployment != run.deployment:
            raise Usage(
                f"deployment {id} of {run.instance} is not running",
                hint="to go back to the release before: helix rollback",
            )
        if now.kind != DEPLOY:
            raise Usage(f"{run.instance} is being destroyed", hint="that cannot be cancelled")
        handle = session.client.get_workflow_handle(run.workflow_id, run_id=run.deployment)
        await handle.cancel(reason=cancel_text(actor(os.environ), reason))
        if detach:
            output.note(f"deployment {id} is being cancelled; follow it: helix follow {id}")
            return Exit.DONE
        end = await follow_run(session.client, run, machine=machine)
    return {Exit.CANCELLED: Exit.DONE, Exit.DONE: Exit.UNEXPECTED}.get(end, end)
