"""`helix history`: earlier deployments, and which of them can be gone back to."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from cli import output
from model.names import short_id

if TYPE_CHECKING:
    from model.deployment import DeploymentRecord


def history(
    context: typer.Context,
    instance: Annotated[
        str, typer.Argument(help="The instance; the only one, or the only cloud one, if left out.")
    ] = "",
    limit: Annotated[int, typer.Option("--limit", "-n", min=1, help="How many at most.")] = 20,
    json: output.Json = False,
) -> None:
    """Deployments of an instance, newest first; «*» marks the release that should be running.

    \b
    Examples:
      helix history
      helix history production --limit 5 --json
    """
    from cli.choose import choose
    from cli.find import key_of
    from cli.project import open_project
    from ledger.ledger import Ledger
    from worker.settings import load

    project = open_project()
    key = key_of(project, choose(project, instance))
    ledger = Ledger(load().ledger_url)
    records = ledger.history(key, limit=limit)
    current = ledger.current_release(key)
    running = current.deployment if current else ""
    if json:
        whole = [one.model_dump(mode="json") for one in records]
        output.document({"instance": key, "current": running or None, "deployments": whole})
        return
    if not records:
        output.note(f"{key} was never deployed; run: helix push")
        return
    rows = [_row(record, running) for record in records]
    output.table(("", "release", "id", "trigger", "by", "when", "took", "outcome", ""), rows)


def _row(record: DeploymentRecord, running: str) -> tuple[str, ...]:
    request, progress = record.request, record.progress
    took = "-"
    if record.ended_at is not None:
        took = output.seconds((record.ended_at - record.started_at).total_seconds())
    trigger: str = request.trigger.value
    if request.of_release:
        trigger += f" to {request.of_release}"
    if request.origin:
        trigger += f" from {request.origin.instance.name}"
    about = request.reason
    if progress.failure is not None:
        about = str(progress.failure).splitlines()[0]
    return (
        "*" if record.deployment == running else "",
        str(record.number),
        short_id(record.deployment),
        trigger,
        request.actor,
        output.ago(record.started_at),
        took,
        progress.outcome.value if progress.outcome else "running",
        about,
    )
