"""`helix promote`: what runs on one instance is deployed to another, digest for digest."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Annotated

import typer

from cli import output
from cli.launch import Detach, OverrideFreeze, Reason, Replace, Wish, deploy, details

if TYPE_CHECKING:
    from model.deployment import DeploymentRecord, DeployRequest
    from model.instance import Instance

ENGINES = ("docker", "local")
"""The kinds that run an image out of an engine, with no registry in between if there is none."""


def promote(
    context: typer.Context,
    source: Annotated[
        str, typer.Argument(metavar="FROM", help="The instance whose release it is.")
    ],
    target: Annotated[str, typer.Argument(metavar="TO", help="The instance to deploy it to.")],
    detach: Detach = False,
    replace: Replace = False,
    reason: Reason = "",
    override_freeze: OverrideFreeze = "",
    json: output.Json = False,
) -> None:
    """Deploy what an instance runs to another one: the same digest, and nothing is built.

    The configuration is TO's own, as helix.toml has it now, and so are its health check, approval
    and freeze windows. If TO has another registry, the image is copied there.

    \b
    Examples:
      helix promote staging production
      helix promote staging production --reason "tested since Monday"
    """
    from cli.actor import actor
    from cli.find import find_instance
    from cli.project import open_project
    from ledger.ledger import Ledger
    from model.errors import NotFound
    from project.checks import deployable
    from worker.settings import load

    ledger = Ledger(load().ledger_url)
    origin = find_instance(ledger, source)
    record = ledger.current_release(origin.key)
    if record is None:
        raise NotFound(
            f"{origin.key} has no release that could be promoted",
            hint=f"deploy it there first: helix push {source}",
        )
    request = onward(record, deployable(open_project(), target), actor(os.environ), reason)
    request = request.model_copy(update={"override_freeze": override_freeze})
    output.note(f"release {record.number} of {origin.key} goes to {request.instance.key}")
    deploy(request, Wish(replace, detach, json, details(request)))


def onward(record: DeploymentRecord, to: Instance, actor: str, reason: str) -> DeployRequest:
    """The request that releases on one instance what another one runs.

    Raises:
        Usage: `to` cannot run it, or cannot get at it.
    """
    from model.deployment import DeployRequest, Origin, Trigger

    instance, artifact = record.request.instance, record.progress.artifact
    _check_fits(record, to)
    assert artifact is not None
    return DeployRequest(
        instance=to,
        source=record.request.source,
        # «Reused» says that its registry has it, which is not yet this one's.
        artifact=artifact.model_copy(update={"reused": False}),
        trigger=Trigger.PROMOTE,
        actor=actor,
        reason=reason,
        origin=Origin(instance=instance, release=record.number),
    )


def _check_fits(record: DeploymentRecord, to: Instance) -> None:
    """What can be known to go wrong before anything is started."""
    from cli.exits import Usage

    instance, artifact = record.request.instance, record.progress.artifact
    if instance.key == to.key:
        raise Usage(f"{to.key} runs it already", hint="to deploy it again: helix push")
    if artifact is None or (artifact.bundle is not None) != (to.build.kind == "bundle"):
        raise Usage(
            f"«{to.name}» does not run what «{instance.name}» runs",
            hint=f"build it for the kind «{to.target.kind}»: helix push {to.name}",
        )
    platforms = {instance.build.platform, to.build.platform} - {""}
    if len(platforms) > 1:
        raise Usage(
            f"«{instance.name}» is built for {instance.build.platform}, "
            f"and «{to.name}» for {to.build.platform}",
            hint=f"build it for that: helix push {to.name}",
        )
    if artifact.image is not None and to.registry is None and _engine(instance) != _engine(to):
        raise Usage(
            f"«{to.name}» has no registry, and not the engine that has the image",
            hint=f"give it one: [deploy.{to.name}.registry]",
        )


def _engine(instance: Instance) -> str:
    """Which engine an instance runs on; a text of its own for a kind without one."""
    kind = instance.target.kind
    return str(instance.target.settings.get("host", "")) if kind in ENGINES else f"<{kind}>"
