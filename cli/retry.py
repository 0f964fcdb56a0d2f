"""`helix retry`: a failed deployment goes on where it failed."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Annotated

import typer

from cli import output
from cli.launch import Detach, Reason, Replace, Wish, Yes, deploy, details

if TYPE_CHECKING:
    from model.deployment import DeploymentRecord, DeployRequest


def retry(
    context: typer.Context,
    deployment: Annotated[
        str,
        typer.Argument(help="The deployment's id, or an instance; the last one if left out."),
    ] = "",
    detach: Detach = False,
    replace: Replace = False,
    reason: Reason = "",
    yes: Yes = False,
    json: output.Json = False,
) -> None:
    """Continue a failed or cancelled deployment, without repeating the steps that succeeded.

    It takes the same source and configuration: what was built is not built again, and what was
    pushed is not pushed again. To deploy what you have changed since, use helix push.

    \b
    Examples:
      helix retry               the last deployment of the only instance
      helix retry 3f2a9c1b      that deployment
    """
    from cli.actor import actor
    from cli.find import find_deployment
    from ledger.ledger import Ledger
    from worker.settings import load

    ask = False if yes or json else None
    record = find_deployment(Ledger(load().ledger_url), deployment, ask=ask)
    request = again(record, actor(os.environ), reason)
    deploy(request, Wish(replace, detach, json, details(request)))


def again(record: DeploymentRecord, actor: str, reason: str) -> DeployRequest:
    """The request that continues a deployment.

    Raises:
        Usage: there is nothing to continue.
    """
    from cli.exits import Usage
    from model.deployment import Outcome, Trigger
    from model.names import short_id

    id = short_id(record.deployment)
    progress = record.progress
    if record.ended_at is None:
        raise Usage(f"deployment {id} is still running", hint=f"follow it: helix follow {id}")
    if progress.outcome is Outcome.SUCCEEDED:
        raise Usage(f"deployment {id} succeeded", hint="to deploy again: helix push")
    request = record.request
    return request.model_copy(
        update={
            "artifact": progress.artifact or request.artifact,
            "pushed": progress.pushed or request.pushed,
            "trigger": Trigger.RETRY,
            "retry_of": record.deployment,
            "actor": actor,
            "reason": reason,
        }
    )
