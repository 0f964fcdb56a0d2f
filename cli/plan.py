"""`helix plan`: what a push would change, and what that does to those who use the service."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from cli import output
from cli.exits import Exit

if TYPE_CHECKING:
    from model.artifact import Source
    from model.deployment import DeploymentRecord
    from model.instance import Instance
    from model.platform import Revision


def plan(
    context: typer.Context,
    instance: Annotated[
        str, typer.Argument(help="The instance; the only one, or the only cloud one, if left out.")
    ] = "",
    json: output.Json = False,
) -> None:
    """Compare the project as it is now with what runs. Changes nothing.

    \b
    Examples:
      helix plan
      helix plan production --json

    \b
    Exit codes:
      0 a push would change nothing   10 it would change something   2 wrong configuration
    """
    from activities.validate import check_capabilities
    from cli.choose import choose
    from cli.project import open_project
    from cli.push import source_of, warnings
    from ledger.ledger import Ledger
    from model.changes import changes, interruption
    from project.checks import deployable
    from providers.catalog import PROVIDERS
    from worker.settings import load

    project = open_project()
    wanted = deployable(project, choose(project, instance))
    capabilities = PROVIDERS.load(wanted.target.kind).capabilities
    check_capabilities(wanted, capabilities)
    running = Ledger(load().ledger_url).current_release(wanted.key)
    source = source_of(project, wanted)
    live, drift = _live(wanted, running)
    artifact = _artifact(wanted, source, running)
    found = changes(running.request.instance if running else None, wanted)
    changed = bool(found) or artifact != "unchanged" or bool(drift)
    report: dict[str, Any] = {
        "instance": wanted.key,
        "kind": wanted.target.kind,
        "release": running.number if running else None,
        "runs": live,
        "drift": drift,
        "artifact": artifact,
        "changes": [one.model_dump() for one in found],
        "strategy": "stop-first" if wanted.stop_first else "start-first",
        "interruption": interruption(wanted, capabilities.holds_requests, running is None)
        if changed
        else "none: nothing changes",
        "changed": changed,
    }
    for text in warnings(project):
        output.note(text)
    if json:
        output.document(report)
    else:
        _show(report, [str(one) for one in found])
    raise typer.Exit(Exit.CHANGES if changed else Exit.DONE)


def _artifact(wanted: Instance, source: Source | None, running: DeploymentRecord | None) -> str:
    """What becomes of the artifact, known without building it."""
    if source is None:
        before = running.request.instance.build.image if running else ""
        return "unchanged" if before == wanted.build.image else f"take {wanted.build.image}"
    if running is None:
        return f"build source {source.digest[:12]} ({source.files} files)"
    same = (
        running.request.source is not None
        and running.request.source.digest == source.digest
        and running.request.instance.build == wanted.build
    )
    return "unchanged" if same else f"build source {source.digest[:12]}: it has changed"


def _live(wanted: Instance, running: DeploymentRecord | None) -> tuple[str, str]:
    """What the platform says runs, and how that differs from the ledger."""
    from cli.platform import open_provider

    with open_provider(wanted) as provider:
        current: Revision | None = provider.current()
        down = provider.down() if current else ""
    if current is None:
        return "nothing", "the ledger's release does not run" if running else ""
    expected = running.progress.revision if running else None
    if expected is not None and not expected.is_same(current):
        return current.id, f"the ledger says {expected.id} runs"
    if down:
        return current.id, f"{current.id} does not run: {down}"
    return current.id, ""


def _show(report: dict[str, Any], changes: list[str]) -> None:
    release = f"release {report['release']}" if report["release"] else "nothing of ours"
    output.say(f"{report['instance']} on {report['kind']}: {release} runs")
    if report["drift"]:
        output.say(f"! drift: {report['drift']}")
    if not report["changed"]:
        output.say("a push would change nothing")
        return
    output.say(f"  artifact: {report['artifact']}")
    for text in changes:
        output.say(f"  {text}")
    output.say(f"  strategy: {report['strategy']}")
    output.say(f"  interruption: {report['interruption']}")
