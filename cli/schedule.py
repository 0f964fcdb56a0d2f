"""`helix schedule`: an instance is deployed by itself, at the times that somebody set."""

from __future__ import annotations

import os
from collections.abc import Coroutine
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer

from cli import output

if TYPE_CHECKING:
    from cli.schedules import Schedules, State
    from model.instance import Instance
    from model.schedule import RedeployRequest, ScheduleSettings

R = TypeVar("R")

app = typer.Typer(
    add_completion=False,
    rich_markup_mode=None,
    no_args_is_help=True,
    help="""Deploy instances by themselves: every night, every Sunday, every ten minutes.

    A run takes the same lock as a person's push, so an instance is never deployed twice at once.

    \b
    Examples:
      helix schedule add production --cron "0 4 * * *" --timezone Europe/Berlin
      helix schedule add production --cron "0 4 * * sun" --rebuild --pause-on-failure
      helix schedule list
      helix schedule sync      applies every [deploy.<instance>.schedule] of helix.toml
    """,
)

Name = Annotated[str, typer.Argument(help="The instance; the only one if left out.")]
Reason = Annotated[str, typer.Option("--reason", help="Why; shown to everyone.")]


@app.command()
def add(
    instance: Annotated[str, typer.Argument(help="The instance.")],
    cron: Annotated[
        list[str], typer.Option("--cron", help="When: «0 4 * * *». May be given several times.")
    ],
    timezone: Annotated[str, typer.Option("--timezone", help="Such as Europe/Berlin.")] = "UTC",
    rebuild: Annotated[
        bool, typer.Option("--rebuild", help="Build anew, from base images as they are then.")
    ] = False,
    redeploy: Annotated[
        bool, typer.Option("--redeploy", help="The current release once more. The default.")
    ] = False,
    git: Annotated[str, typer.Option("--git", help="A repository to build instead.")] = "",
    ref: Annotated[str, typer.Option("--ref", help="Its branch, tag or commit.")] = "",
    jitter: Annotated[
        str, typer.Option("--jitter", help="Start up to this much later, at random: 10m.")
    ] = "0s",
    overlap: Annotated[
        str,
        typer.Option("--overlap", help="If it is being deployed already: skip, buffer or cancel."),
    ] = "skip",
    catch_up: Annotated[
        str, typer.Option("--catch-up", help="How late a missed run may still start: 1h.")
    ] = "1h",
    pause_on_failure: Annotated[
        bool, typer.Option("--pause-on-failure", help="A failed run pauses the schedule.")
    ] = False,
    note: Annotated[str, typer.Option("--note", help="Why; kept with each deployment.")] = "",
    replace: Annotated[
        bool, typer.Option("--replace", help="Change the schedule that the instance has.")
    ] = False,
    json: output.Json = False,
) -> None:
    """Deploy an instance by itself from now on.

    \b
    Examples:
      helix schedule add production --cron "0 4 * * *" --timezone Europe/Berlin
      helix schedule add production --cron @daily --rebuild --git https://git.test/shop --ref main
    """
    from cli.actor import actor
    from cli.exits import Usage
    from cli.project import open_project
    from model.schedule import RedeployRequest
    from project.checks import deployable

    if rebuild and redeploy:
        raise Usage("either --rebuild or --redeploy", hint="leave one of them out")
    settings = _settings(
        cron=tuple(" ".join(each.split()) for each in cron),
        timezone=timezone,
        mode="rebuild" if rebuild or (git and not redeploy) else "redeploy",
        git=git,
        ref=ref,
        jitter=_seconds("--jitter", jitter),
        overlap=overlap,
        catch_up=_seconds("--catch-up", catch_up),
        pause_on_failure=pause_on_failure,
        note=note,
    )
    target = deployable(open_project(), instance)
    _fits(target, settings)
    request = RedeployRequest(
        project=target.project,
        name=target.name,
        host=target.host,
        schedule=settings,
        actor=actor(os.environ),
    )
    _run(_add(request, target, replace, json))


async def _add(request: RedeployRequest, target: Instance, replace: bool, json: bool) -> None:
    from cli.schedules import Schedules
    from cli.session import open_session
    from cli.witness import witnessed

    schedule = request.schedule
    async with open_session(for_work=target) as session:
        detail = schedule.model_dump(mode="json", exclude_defaults=True)
        with witnessed(session.ledger, "schedule-add", target.key, schedule.note, **detail):
            schedules = Schedules(session.client, session.task_queue)
            state = await schedules.put(request, replace=replace)
    _show(state, json)
    if not state.next and not state.paused:
        output.note("warning: no time in the calendar fits this expression; it never runs")


def _settings(**values: Any) -> ScheduleSettings:
    from pydantic import ValidationError

    from cli.exits import Usage
    from model.schedule import ScheduleSettings

    try:
        return ScheduleSettings(**values).checked()
    except ValidationError as error:
        first = error.errors()[0]
        option = "--" + str(first["loc"][0]).replace("_", "-")
        raise Usage(f"{option}: {first['msg'].lower()}", hint="helix schedule add --help") from None


def _seconds(option: str, text: str) -> float:
    from cli.exits import Usage
    from project.deploy import seconds

    try:
        return float(seconds(text))
    except ValueError:
        raise Usage(f"{option}: «{text}» is no duration", hint="write 30s, 10m or 2h") from None


def _fits(target: Instance, settings: ScheduleSettings) -> None:
    from cli.exits import Usage

    if settings.git and target.host:
        raise Usage(
            f"«{target.name}» is local: its data lies in this folder, not in a repository",
            hint="leave out --git, or use the kind docker",
        )


@app.command("list")
def list_(json: output.Json = False) -> None:
    """All schedules of this Temporal namespace.

    \b
    Example:
      helix schedule list
    """
    states = _run(_with(lambda schedules: schedules.all()))
    if json:
        output.document({"schedules": [state.as_json() for state in states]})
        return
    if not states:
        output.say("there is no schedule; make one: helix schedule add INSTANCE --cron …")
        return
    output.table(
        ["INSTANCE", "WHEN", "DEPLOYS", "NEXT", "LAST", ""],
        [
            (
                state.request.key,
                state.when,
                state.request.schedule.mode.value,
                _moment(state.next[0]) if state.next and not state.paused else "-",
                state.last,
                "paused" if state.paused else "",
            )
            for state in states
        ],
    )


@app.command()
def show(instance: Name = "", json: output.Json = False) -> None:
    """One schedule: when it runs next, and how its last runs ended.

    \b
    Example:
      helix schedule show production
    """
    key = _key(instance)
    _show(_run(_with(lambda schedules: schedules.get(key))), json)


@app.command()
def pause(instance: Name = "", reason: Reason = "", json: output.Json = False) -> None:
    """Run no more until it is resumed. What runs now goes on.

    \b
    Example:
      helix schedule pause production --reason "moving house"
    """
    from cli.actor import actor

    key, who = _key(instance), actor(os.environ)
    text = f"paused by {who}" + (f": {reason}" if reason else "")
    _show(_run(_act("pause", key, reason, lambda schedules: schedules.pause(key, text))), json)


@app.command()
def resume(instance: Name = "", reason: Reason = "", json: output.Json = False) -> None:
    """Run again as set. What was missed meanwhile is not made up for.

    \b
    Example:
      helix schedule resume production
    """
    from cli.actor import actor

    key, who = _key(instance), actor(os.environ)
    text = f"resumed by {who}" + (f": {reason}" if reason else "")
    _show(_run(_act("resume", key, reason, lambda schedules: schedules.resume(key, text))), json)


@app.command()
def trigger(instance: Name = "", json: output.Json = False) -> None:
    """Run now, beside the times that are set; also if it is paused.

    \b
    Example:
      helix schedule trigger production
    """
    key = _key(instance)
    state = _run(_act("trigger", key, "", lambda schedules: schedules.trigger(key)))
    if json:
        output.document(state.as_json())
        return
    output.say(f"{key}: a run was asked for; see: helix schedule show {state.request.name}")


@app.command()
def backfill(
    instance: Name = "",
    begin: Annotated[str, typer.Option("--from", help="2026-11-23T04:00, in UTC.")] = "",
    end: Annotated[str, typer.Option("--to", help="Now if left out.")] = "",
    json: output.Json = False,
) -> None:
    """Make up for the runs of a time that has passed, one after the other.

    \b
    Example:
      helix schedule backfill production --from 2026-11-20T00:00
    """
    from cli.exits import Usage

    start = _when("--from", begin)
    until = _when("--to", end) if end else datetime.now(UTC)
    if not start < until <= datetime.now(UTC):
        raise Usage("the time must lie in the past, --from before --to", hint="both are in UTC")
    key = _key(instance)
    span = f"{_moment(start)} to {_moment(until)}"
    state = _run(
        _act("backfill", key, span, lambda schedules: schedules.backfill(key, start, until))
    )
    if json:
        output.document(state.as_json())
        return
    output.say(f"{key}: its runs from {span} are made up for")


@app.command()
def remove(instance: Name = "", json: output.Json = False) -> None:
    """Deploy no more by itself. What runs now goes on.

    \b
    Example:
      helix schedule remove production
    """
    key = _key(instance)
    _run(_act("remove", key, "", lambda schedules: schedules.remove(key)))
    if json:
        output.document({"instance": key, "removed": True})
        return
    output.say(f"{key} is no longer deployed by itself")


@app.command()
def sync(
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only say what would be done.")
    ] = False,
    json: output.Json = False,
) -> None:
    """Make the schedules as helix.toml has them in [deploy.<instance>.schedule].

    Those made by hand (schedule add) are left alone. A pause stays.

    \b
    Example:
      helix schedule sync
    """
    done = _run(_sync(dry_run))
    if json:
        output.document({"changes": [{"instance": key, "change": what} for key, what in done]})
        return
    for key, what in done:
        output.say(f"{key}: {what}")
    if not done:
        output.say("no instance has a [deploy.<instance>.schedule]")


async def _sync(dry_run: bool) -> list[tuple[str, str]]:
    import socket

    from cli.actor import actor
    from cli.project import open_project
    from cli.schedules import Schedules
    from cli.session import open_session
    from cli.witness import witnessed
    from model.schedule import RedeployRequest
    from project.checks import deployable
    from project.resolve import schedule

    project, wanted, targets = open_project(), {}, []
    for entry in project.instances:
        settings = schedule(project, entry.name)
        if settings is None:
            continue
        target = deployable(project, entry.name)
        _fits(target, settings)
        targets.append(target)
        wanted[target.key] = RedeployRequest(
            project=target.project,
            name=target.name,
            host=target.host,
            schedule=settings,
            owner="helix.toml",
            actor=actor(os.environ),
        )
    first = targets[0] if targets else None
    async with open_session(start=True, for_work=first) as session:
        schedules = Schedules(session.client, session.task_queue)
        here = (project.name, ("", socket.gethostname()))
        if dry_run:
            return await schedules.sync(wanted, here, dry_run=True)
        with witnessed(session.ledger, "schedule-sync", project.name) as noted:
            changes = await schedules.sync(wanted, here, dry_run=False)
            noted["changes"] = dict(changes)
        return changes


# --- what the commands share ---------------------------------------------------------------------


def _run(work: Coroutine[Any, Any, R]) -> R:
    import asyncio

    return asyncio.run(work)


async def _with(use: Any) -> Any:
    from cli.schedules import Schedules
    from cli.session import open_session

    async with open_session() as session:
        schedules: Schedules = Schedules(session.client, session.task_queue)
        return await use(schedules)


async def _act(action: str, key: str, reason: str, use: Any) -> Any:
    """Change a schedule, and note it in the audit trail."""
    from cli.schedules import Schedules
    from cli.session import open_session
    from cli.witness import witnessed

    async with open_session() as session:
        with witnessed(session.ledger, f"schedule-{action}", key, reason):
            return await use(Schedules(session.client, session.task_queue))


def _key(instance: str) -> str:
    """The key of the instance that is meant; a key itself is taken as it is."""
    from cli.choose import choose
    from cli.find import key_of
    from cli.project import open_project

    if "/" in instance:
        return instance
    project = open_project()
    known = {entry.name for entry in project.instances}
    # An instance that is gone from helix.toml may still have its schedule.
    name = instance if instance and instance not in known else choose(project, instance)
    return key_of(project, name)


def _when(option: str, text: str) -> datetime:
    from cli.exits import Usage

    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        raise Usage(f"{option}: «{text}» is no time", hint="write 2026-11-23T04:00") from None
    return found if found.tzinfo else found.replace(tzinfo=UTC)


def _moment(moment: datetime) -> str:
    return f"{moment.astimezone(UTC):%Y-%m-%d %H:%M:%S} UTC"


def _show(state: State, json: bool) -> None:
    if json:
        output.document(state.as_json())
        return
    settings = state.request.schedule
    facts = {
        "instance": state.request.key,
        "when": state.when,
        "deploys": f"{settings.mode} {settings.git} {settings.ref}".strip(),
        "paused": state.note if state.paused else "",
        "next": _moment(state.next[0]) if state.next and not state.paused else "",
        "jitter": output.seconds(settings.jitter) if settings.jitter else "",
        "being deployed already": settings.overlap.value,
        "catches up": output.seconds(settings.catch_up),
        "a failure pauses it": "yes" if settings.pause_on_failure else "",
        "kept by": f"{state.request.owner}, {state.request.actor}",
        "note": settings.note,
        "runs": f"{state.runs}, {state.skipped} skipped because one ran, {state.missed} missed",
    }
    for name, value in facts.items():
        if value:
            output.say(f"{name:>23}  {value}")
    for run in state.recent:
        output.say(f"{_moment(run.at):>25}  {run.outcome}  {run.why}".rstrip())
