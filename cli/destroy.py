"""`helix destroy`: an instance is removed from where it runs."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Annotated

import typer

from cli import output

if TYPE_CHECKING:
    from model.deployment import DestroyRequest


def destroy(
    context: typer.Context,
    instance: Annotated[
        str, typer.Argument(help="The instance; always named when not asked.")
    ] = "",
    data: Annotated[
        bool, typer.Option("--data", help="Delete its data too. It cannot be brought back.")
    ] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    reason: Annotated[str, typer.Option("--reason", help="Why; kept in the history.")] = "",
    json: output.Json = False,
) -> None:
    """Remove an instance from its platform. Its data stays, unless --data is given.

    Refused while the instance is being deployed. Nothing else ever deletes data.

    \b
    Examples:
      helix destroy staging
      helix destroy staging --data --yes
    """
    import asyncio

    from cli.actor import actor
    from cli.find import find_instance
    from ledger.ledger import Ledger
    from model.deployment import DestroyRequest
    from worker.settings import load

    known = find_instance(Ledger(load().ledger_url), instance)
    if not yes:
        _confirm(known.name, known.key, data)
    request = DestroyRequest(
        instance=known.instance, data=data, actor=actor(os.environ), reason=reason
    )
    asyncio.run(_destroy(request))
    if json:
        output.document({"instance": known.key, "destroyed": True, "data": data})
        return
    output.say(f"{known.key} is gone" + (" with its data" if data else "; its data is kept"))


def _confirm(name: str, key: str, data: bool) -> None:
    """Have the instance's name typed.

    Raises:
        Usage: there is no terminal, or another text was typed.
    """
    from cli.exits import Usage

    if not output.interactive():
        raise Usage(f"destroying {key} needs a confirmation", hint=f"helix destroy {name} --yes")
    what = "and DELETES ITS DATA" if data else "and keeps its data"
    output.note(f"this removes {key} from where it runs {what}")
    if typer.prompt(f"type «{name}» to go on", err=True, default="", show_default=False) != name:
        raise Usage("nothing was destroyed", hint="type the instance's name exactly")


async def _destroy(request: DestroyRequest) -> None:
    """Run the workflow to its end.

    Raises:
        AlreadyDeploying: the instance's lock is held.
        HelixError: what kept the platform from removing it.
    """
    from temporalio.client import WorkflowFailureError
    from temporalio.common import WorkflowIDConflictPolicy
    from temporalio.exceptions import WorkflowAlreadyStartedError

    from cli.launch import busy
    from cli.runs import DESTROY, failed, running
    from cli.session import open_session
    from cli.witness import note
    from model.errors import Transient

    key = request.instance.key
    async with open_session(for_work=request.instance) as session:
        try:
            handle = await session.client.start_workflow(
                DESTROY,
                request,
                id=request.workflow_id,
                task_queue=session.task_queue,
                id_conflict_policy=WorkflowIDConflictPolicy.FAIL,
                static_summary=f"destroy **{key}**{' and its data' * request.data}",
            )
        except WorkflowAlreadyStartedError:
            found = await running(session.client, request.workflow_id)
            if found is None:
                raise Transient(f"a deployment of {key} has just ended", hint="try again") from None
            raise busy(key, found) from None
        output.note(f"destroying {key}")
        # That it is gone is noted by the worker, even if nobody waits for it here.
        note(session.ledger, "destroy", key, "started", request.reason, data=request.data)
        try:
            await handle.result()
        except WorkflowFailureError as error:
            why = failed(error)
            note(session.ledger, "destroy", key, "failed", request.reason, failure=why.code)
            raise why from None
