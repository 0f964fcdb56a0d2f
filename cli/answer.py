"""`helix approve`, `helix reject`, `helix answer`: a deployment waits for a person."""

from __future__ import annotations

import os
from typing import Annotated

import typer

from cli import output

Deployment = Annotated[
    str, typer.Argument(help="The deployment's id, or an instance; the running one if left out.")
]
Reason = Annotated[str, typer.Option("--reason", help="Why; kept with the deployment.")]


def approve(
    context: typer.Context,
    deployment: Deployment = "",
    reason: Reason = "",
    json: output.Json = False,
) -> None:
    """Let a release that waits for approval go on.

    \b
    Examples:
      helix approve production
      helix approve 3f2a9c1b --reason "tested on staging"
    """
    _decide(deployment, "approve", reason, json)


def reject(
    context: typer.Context,
    deployment: Deployment = "",
    reason: Reason = "",
    json: output.Json = False,
) -> None:
    """Refuse a release that waits for approval. Nothing was changed yet, and nothing will be.

    \b
    Examples:
      helix reject production --reason "not before Monday"
    """
    _decide(deployment, "reject", reason, json)


def answer(
    context: typer.Context,
    choice: Annotated[str, typer.Argument(help="retry, skip (health-check only), or roll-back.")],
    deployment: Deployment = "",
    reason: Reason = "",
    json: output.Json = False,
) -> None:
    """Say what becomes of a deployment whose step failed, where on_failure = "ask".

    \b
    Examples:
      helix answer retry
      helix answer skip production --reason "the probe is wrong"
      helix answer roll-back 3f2a9c1b
    """
    _decide(deployment, choice, reason, json)


def _decide(deployment: str, choice: str, reason: str, machine: bool) -> None:
    import asyncio

    from cli.exits import Usage
    from model.deployment import Choice

    if choice not in set(Choice):
        raise Usage(f"«{choice}» is no answer", hint=f"expected {', '.join(Choice)}")
    said = asyncio.run(_send(deployment, choice, reason))
    if machine:
        output.document(said)
    else:
        output.say(f"{said['instance']}: {said['choice']}, said {said['by']}")


async def _send(deployment: str, choice: str, reason: str) -> dict[str, str]:
    from temporalio.client import WorkflowUpdateFailedError

    from cli.actor import actor
    from cli.exits import Usage
    from cli.find import find_run
    from cli.session import open_session
    from model.deployment import Choice, Decision
    from model.names import short_id

    async with open_session(start=True) as session:
        run = await find_run(session, deployment)
        handle = session.client.get_workflow_handle(run.workflow_id, run_id=run.deployment)
        decision = Decision(choice=Choice(choice), by=actor(os.environ), why=reason)
        try:
            await handle.execute_update("decide", decision)
        except WorkflowUpdateFailedError as error:
            raise Usage(
                f"deployment {short_id(run.deployment)} of {run.instance}: "
                f"{getattr(error.cause, 'message', error.cause)}",
                hint=f"see what it waits for: helix follow {short_id(run.deployment)}",
            ) from None
    return {
        "deployment": run.deployment,
        "instance": run.instance,
        "choice": choice,
        "by": decision.by,
        "why": reason,
    }
