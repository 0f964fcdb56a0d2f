"""`helix push`: from a project folder to a running release."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Annotated

import typer

from cli import output
from cli.launch import Detach, OverrideFreeze, Reason, Replace, Wish, Yes, deploy, details
from cli.report import Keep, Report, Result

if TYPE_CHECKING:
    from model.artifact import Source
    from model.deployment import DeployRequest
    from model.instance import Instance
    from project.load import Project


def push(
    context: typer.Context,
    instance: Annotated[
        str, typer.Argument(help="The instance; the only one, or the only cloud one, if left out.")
    ] = "",
    detach: Detach = False,
    replace: Replace = False,
    reason: Reason = "",
    override_freeze: OverrideFreeze = "",
    report: Report = "",
    result: Result = "",
    yes: Yes = False,
    dev: Annotated[
        bool, typer.Option("--dev", hidden=True, help="Accepted for existing scripts.")
    ] = False,
    json: output.Json = False,
) -> None:
    """Build an instance's release, make it the running one, and see that it is healthy.

    If anything fails, what ran before goes on running. Ctrl-C lets go of the deployment and does
    not stop it.

    \b
    Examples:
      helix push                        the only instance, or the only cloud one
      helix push production             that one
      helix push --reason "new schema"  says why, in the history
      helix push --replace              cancels the deployment that is in the way
      helix push --detach               only starts it; see helix follow
      helix push --json                 one event a line, see docs/cli-events.md
      helix push --report out.md        how it went, for a CI job's page

    \b
    Exit codes:
      0 done   3 failed and rolled back   4 needs attention   5 already deploying
      7 cancelled and rolled back         6 Temporal or a worker does not answer
      2 wrong usage or configuration      130 Ctrl-C: it goes on
    """
    from cli.actor import commit
    from cli.choose import choose
    from cli.project import open_project

    project = open_project()
    name = choose(project, instance, ask=False if yes or json else None)
    request = prepare(project, name, reason)
    request = request.model_copy(update={"override_freeze": override_freeze})
    for text in warnings(project):
        output.note(text)
    about = details(request, commit(project.folder))
    wish = Wish(replace, detach, json, about, Keep(report, result))
    deploy(request, wish)


def prepare(project: Project, name: str, reason: str = "") -> DeployRequest:
    """The request for a deployment of the project as it is now, its source kept in the store."""
    from cli.actor import actor
    from model.deployment import DeployRequest
    from project.checks import deployable

    instance = deployable(project, name)
    return DeployRequest(
        instance=instance,
        source=source_of(project, instance),
        actor=actor(os.environ),
        reason=reason,
    )


def source_of(project: Project, instance: Instance) -> Source | None:
    """A snapshot of what the instance is built from; None for a prebuilt image."""
    from builders.contexts import context_of
    from project.source import snapshot
    from project.store import Store
    from worker.settings import load

    build = instance.build
    if build.kind == "image":
        return None
    return snapshot(
        context_of(instance, project.folder, output.note),
        Store(load().store_url),
        dockerfile=build.dockerfile if build.kind == "dockerfile" else "",
        cache=project.folder / ".helix",
    )


def warnings(project: Project) -> list[str]:
    """What a person should know of helix.toml and no deployment need stop for."""
    return [f"warning: {problem}" for problem in project.warnings]
