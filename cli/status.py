"""`helix status`: what runs, what is being deployed, and whether the two agree."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from cli import output

if TYPE_CHECKING:
    from cli.runs import Running
    from ledger.ledger import Ledger
    from model.deployment import DeploymentRecord
    from model.platform import Revision
    from project.load import Project

PLATFORM_SECONDS = 3.0
"""How long the platforms together may take to say what runs there."""


def status(
    context: typer.Context,
    instance: Annotated[str, typer.Argument(help="One instance; all of them if left out.")] = "",
    json: output.Json = False,
) -> None:
    """What each instance runs, whether it really does, and what is being deployed.

    Works without Temporal, and says then that it cannot tell what is being deployed.

    \b
    Examples:
      helix status
      helix status production --json
    """
    import asyncio

    from cli.choose import choose
    from cli.project import open_project
    from ledger.ledger import Ledger
    from worker.settings import load

    project = open_project()
    names = [choose(project, instance)] if instance else [one.name for one in project.instances]
    ledger = Ledger(load().ledger_url)
    reports = asyncio.run(_reports(project, ledger, names))
    if json:
        output.document({"project": project.name, **reports})
        return
    rows = [_row(one) for one in reports["instances"]]
    output.table(("instance", "kind", "release", "artifact", "since", "where", "state"), rows)
    if reports["temporal"] != "ok":
        output.note(f"cannot tell what is being deployed: {reports['temporal']}")


async def _reports(project: Project, ledger: Ledger, names: list[str]) -> dict[str, Any]:
    """What is known of every instance, from three sources that are asked at the same time."""
    import asyncio

    from cli.find import key_of

    keys = [key_of(project, name) for name in names]
    known = {key: ledger.releases(key)[:1] for key in keys}
    destroyed = {one.key: one.destroyed_at for one in ledger.instances()}
    live, (trouble, running) = await asyncio.gather(_live(known), _running(keys))
    instances = []
    for name, key in zip(names, keys, strict=True):
        entry = project.entry(name)
        record = known[key][0] if known[key] else None
        last = next(iter(ledger.history(key, limit=1)), None)
        instances.append(
            {
                "instance": name,
                "kind": entry.kind if entry else "",
                "key": key,
                "release": _release(record),
                "destroyed_at": destroyed.get(key),
                "platform": live.get(key),
                "deployment": _deploying(running.get(key)),
                "last": _last(last),
            }
        )
    return {"instances": instances, "temporal": trouble or "ok"}


async def _running(keys: list[str]) -> tuple[str, dict[str, Running | None]]:
    """What is being deployed; and why it cannot be told, if it cannot."""
    import asyncio

    from cli.find import workflow_id
    from cli.runs import running
    from cli.session import open_session
    from model.errors import HelixError

    try:
        async with open_session() as session:
            found = await asyncio.gather(
                *(running(session.client, workflow_id(key)) for key in keys)
            )
    except HelixError as error:
        return error.message, {}
    return "", dict(zip(keys, found, strict=True))


async def _live(known: dict[str, list[DeploymentRecord]]) -> dict[str, dict[str, Any]]:
    """What the platforms say runs there, as far as they answer in time."""
    import asyncio

    asked = {
        key: asyncio.create_task(asyncio.to_thread(_current, records[0]))
        for key, records in known.items()
        if records
    }
    if not asked:
        return {}
    await asyncio.wait(asked.values(), timeout=PLATFORM_SECONDS)
    return {
        key: task.result() if task.done() else {"state": "unknown", "detail": "no answer in time"}
        for key, task in asked.items()
    }


def _current(record: DeploymentRecord) -> dict[str, Any]:
    """What one platform says, compared with what should run there."""
    from cli.platform import open_provider
    from model.errors import HelixError

    try:
        with open_provider(record.request.instance) as provider:
            found = provider.current()
            url = provider.public_url() if found else ""
    except HelixError as error:
        return {"state": "unknown", "detail": error.message}
    state = _state(found, record)
    return {"state": state, "revision": found.id if found else "", "url": url}


def _state(found: Revision | None, record: DeploymentRecord) -> str:
    if found is None:
        return "gone"
    artifact = record.progress.artifact
    same = found.deployment == record.deployment or (
        artifact is not None and found.artifact == artifact.identity
    )
    return "running" if same else "differs"


def _release(record: DeploymentRecord | None) -> dict[str, Any] | None:
    if record is None:
        return None
    artifact = record.progress.artifact
    return {
        "number": record.number,
        "deployment": record.deployment,
        "artifact": artifact.short if artifact else "",
        "since": record.ended_at,
        "by": record.request.actor,
        "url": record.progress.url,
    }


def _deploying(found: Running | None) -> dict[str, Any] | None:
    if found is None:
        return None
    return {
        "deployment": found.deployment,
        "kind": found.kind,
        "phase": found.step or "queued",
        "by": found.actor,
        "since": found.since,
    }


def _last(record: DeploymentRecord | None) -> dict[str, Any] | None:
    if record is None:
        return None
    failure = record.progress.failure
    return {
        "deployment": record.deployment,
        "outcome": record.progress.outcome,
        "started_at": record.started_at,
        "ended_at": record.ended_at,
        "failure": str(failure) if failure else "",
    }


def _row(report: dict[str, Any]) -> tuple[str, ...]:
    release, platform = report["release"], report["platform"] or {}
    where = platform.get("url") or (release or {}).get("url", "")
    return (
        report["instance"],
        report["kind"],
        str(release["number"]) if release else "-",
        release["artifact"] if release else "-",
        output.ago(release["since"]) if release else "-",
        where or "-",
        _state_text(report, platform),
    )


def _state_text(report: dict[str, Any], platform: dict[str, Any]) -> str:
    """How the instance is, in a few words."""
    from model.names import short_id

    words = []
    if report["destroyed_at"]:
        words.append(f"destroyed {output.ago(report['destroyed_at'])}")
    elif report["release"] is None:
        words.append("never released")
    elif platform:
        text = STATES[platform["state"]]
        detail = platform.get("detail", "")
        words.append(f"{text}: {detail}" if detail else text)
    going = report["deployment"]
    if going is not None:
        words.append(f"deploying ({short_id(going['deployment'])}, {going['phase']})")
    elif report["last"] and report["last"]["outcome"] not in (None, "succeeded"):
        words.append(f"last deployment: {report['last']['outcome']}")
    return "; ".join(words)


STATES = {
    "running": "running",
    "gone": "does not run: helix push, or helix rollback",
    "differs": "something else runs there",
    "unknown": "cannot tell",
}
