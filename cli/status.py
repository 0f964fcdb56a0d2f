"""`helix status`: what runs, what is being deployed, and whether the two agree."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cli import output
from cli.exits import Usage
from model.errors import NotFound

if TYPE_CHECKING:
    import asyncio

    from rich.table import Table

    from cli.runs import Running
    from ledger.ledger import Ledger
    from model.deployment import DeploymentRecord
    from model.platform import Revision

PLATFORM_SECONDS = 3.0
"""How long the platforms together may take to say what runs there."""


@dataclass(frozen=True)
class Subject:
    """An instance to look at."""

    project: str
    name: str
    key: str
    kind: str


def status(
    context: typer.Context,
    instance: Annotated[str, typer.Argument(help="One instance; all of them if left out.")] = "",
    everything: Annotated[
        bool, typer.Option("--all", help="Every instance in the ledger, of all projects.")
    ] = False,
    watch: Annotated[
        bool, typer.Option("--watch", "-w", help="Look again and again, until Ctrl-C.")
    ] = False,
    interval: Annotated[
        float, typer.Option("--interval", min=0.2, help="Seconds between two looks.")
    ] = 2.0,
    json: output.Json = False,
) -> None:
    """What each instance runs, whether it really does, and what is being deployed.

    «!» marks drift: what runs is not what the ledger says. Works without Temporal, and says then
    that it cannot tell what is being deployed.

    \b
    Examples:
      helix status
      helix status production --json
      helix status --all --watch         a live table of everything in the ledger
      helix status --watch --json        a document a line, each time something has changed
    """
    import asyncio
    from contextlib import suppress

    from ledger.ledger import Ledger
    from worker.settings import load

    if instance and everything:
        raise Usage("an instance and --all do not go together", hint="leave one of them out")
    looks = Looks(Ledger(load().ledger_url), instance, everything)
    if watch:
        from cli.live import watch as keep_looking

        with suppress(KeyboardInterrupt):
            asyncio.run(keep_looking(looks.report, table_of, interval, machine=json))
        return
    report = asyncio.run(looks.report())
    if json:
        output.document(report)
        return
    output.console().print(table_of(report))
    if report["temporal"] != "ok":
        output.note(f"cannot tell what is being deployed: {report['temporal']}")


def subjects(ledger: Ledger, instance: str, everything: bool) -> tuple[str, list[Subject]]:
    """The project's name, empty if there is none, and the instances that are meant.

    Raises:
        NotFound, ConfigurationError: there is no project that can be read, and one is meant.
    """
    from cli.choose import choose
    from cli.find import key_of
    from cli.project import open_project

    found: dict[str, Subject] = {}
    name = ""
    try:
        project = open_project()
    except NotFound:
        if not everything:
            raise
    else:
        name = project.name
        names = [choose(project, instance)] if instance else [one.name for one in project.instances]
        for each in names:
            entry, key = project.entry(each), key_of(project, each)
            found[key] = Subject(project.name, each, key, entry.kind if entry else "")
    for one in ledger.instances() if everything else ():
        if one.destroyed_at is None:
            found.setdefault(one.key, Subject(one.project, one.name, one.key, one.kind))
    return name, list(found.values())


class Looks:
    """Looks at instances, once or again and again."""

    def __init__(self, ledger: Ledger, instance: str, everything: bool) -> None:
        self._ledger = ledger
        self._instance = instance
        self._everything = everything
        self._asked: dict[str, asyncio.Future[dict[str, Any]]] = {}
        """Platforms that have not answered yet: none is asked twice at a time."""

    async def report(self) -> dict[str, Any]:
        """What is known of every instance, from three sources that are asked at the same time."""
        import asyncio

        ledger = self._ledger
        project, found = subjects(ledger, self._instance, self._everything)
        known = {one.key: ledger.releases(one.key)[:1] for one in found}
        destroyed = {one.key: one.destroyed_at for one in ledger.instances()}
        live, (trouble, running) = await asyncio.gather(
            self._live(known), _running([one.key for one in found])
        )
        instances = []
        for one in found:
            record = known[one.key][0] if known[one.key] else None
            last = next(iter(ledger.history(one.key, limit=1)), None)
            going = _deploying(running.get(one.key))
            platform = live.get(one.key)
            instances.append(
                {
                    "project": one.project,
                    "instance": one.name,
                    "kind": one.kind,
                    "key": one.key,
                    "release": _release(record),
                    "destroyed_at": destroyed.get(one.key),
                    "platform": platform,
                    "drift": drift(platform, record) if going is None else "",
                    "deployment": going,
                    "last": _last(last),
                }
            )
        return {"project": project, "instances": instances, "temporal": trouble or "ok"}

    async def _live(self, known: dict[str, list[DeploymentRecord]]) -> dict[str, dict[str, Any]]:
        """What the platforms say runs there, as far as they answer in time."""
        import asyncio

        from cli.background import in_background

        for key, records in known.items():
            if records and key not in self._asked:
                self._asked[key] = in_background(partial(_current, records[0]))
        wanted = [self._asked[key] for key in known if key in self._asked]
        if wanted:
            await asyncio.wait(wanted, timeout=PLATFORM_SECONDS)
        done = {key: self._asked.pop(key) for key in known if self._answered(key)}
        silent = {"state": "unknown", "detail": "no answer in time"}
        return dict.fromkeys(self._asked, silent) | {key: one.result() for key, one in done.items()}

    def _answered(self, key: str) -> bool:
        return key in self._asked and self._asked[key].done()


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


def _current(record: DeploymentRecord) -> dict[str, Any]:
    """What one platform says, compared with what should run there."""
    import socket

    from cli.platform import open_provider
    from model.errors import HelixError

    instance = record.request.instance
    if instance.host and instance.host != socket.gethostname():
        return {"state": "unknown", "detail": f"only {instance.host} can tell"}
    try:
        with open_provider(instance) as provider:
            found = provider.current()
            url = provider.public_url() if found else ""
            down = provider.down() if found else ""
    except HelixError as error:
        return {"state": "unknown", "detail": error.message}
    return {
        "state": _state(found, down, record),
        "revision": found.id if found else "",
        "url": url,
        "detail": down,
    }


def _state(found: Revision | None, down: str, record: DeploymentRecord) -> str:
    if found is None:
        return "gone"
    artifact = record.progress.artifact
    same = found.deployment == record.deployment or (
        artifact is not None and found.artifact == artifact.identity
    )
    if not same:
        return "differs"
    return "stopped" if down else "running"


def drift(platform: dict[str, Any] | None, record: DeploymentRecord | None) -> str:
    """How what runs differs from what the ledger says; empty if it does not, or nobody can tell."""
    if platform is None or record is None:
        return ""
    release = f"release {record.number}"
    match platform["state"]:
        case "gone":
            return f"{release} is gone"
        case "stopped":
            return f"{release} does not run: {platform['detail']}"
        case "differs":
            return f"{platform['revision']} runs, and not {release}"
        case _:
            return ""


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


def table_of(report: dict[str, Any]) -> Table:
    """The report for people; a line an instance, those that drift marked."""
    rows = [_row(one, report["project"]) for one in report["instances"]]
    columns = ("instance", "kind", "release", "artifact", "since", "where", "state")
    return output.grid(columns, rows, marked=lambda row: row[-1].startswith(MARK))


def _row(report: dict[str, Any], project: str) -> tuple[str, ...]:
    release, platform = report["release"], report["platform"] or {}
    where = platform.get("url") or (release or {}).get("url", "")
    return (
        report["instance"] if report["project"] == project else report["key"],
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
    going = report["deployment"]
    if report["destroyed_at"]:
        words.append(f"destroyed {output.ago(report['destroyed_at'])}")
    elif report["release"] is None:
        words.append("never released")
    elif report["drift"]:
        words.append(f"{MARK} {report['drift']}: helix push, or helix rollback")
    elif platform.get("state") == "unknown":
        words.append(f"cannot tell: {platform['detail']}")
    elif platform and going is None:
        words.append(platform["state"])
    if going is not None:
        words.append(f"deploying ({short_id(going['deployment'])}, {going['phase']})")
    elif report["last"] and report["last"]["outcome"] not in (None, "succeeded"):
        words.append(f"last deployment: {report['last']['outcome']}")
    return "; ".join(words)


MARK = "!"
"""In front of what has drifted."""
