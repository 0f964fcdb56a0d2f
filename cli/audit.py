"""`helix audit`: who did what, and the proof that nobody has changed it since."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cli import output

if TYPE_CHECKING:
    from ledger.ledger import Ledger
    from model.audit import Anchor, AuditEvent, Trail

app = typer.Typer(
    add_completion=False,
    rich_markup_mode=None,
    no_args_is_help=True,
    help="""Who did what, when, from where, why, and how it ended.

    The trail is a chain: each event holds the hash of the one before it.

    \b
    Examples:
      helix audit list production --since 7d
      helix audit verify
      helix audit export -o audit.jsonl
    """,
)

COLUMNS = (
    "#", "when (UTC)", "who", "from", "what", "instance", "deployment", "outcome", "why",
)  # fmt: skip

File = Annotated[
    Path | None, typer.Option("--file", help="An exported trail; the ledger if left out.")
]


@app.command("list")
def list_(
    instance: Annotated[
        str, typer.Argument(help="An instance, or its key project/name; all if left out.")
    ] = "",
    action: Annotated[str, typer.Option("--action", help="Such as push, approve, cancel.")] = "",
    by: Annotated[str, typer.Option("--by", help="A part of who it was.")] = "",
    since: Annotated[str, typer.Option("--since", help="7d, 12h, or 2026-11-23.")] = "",
    limit: Annotated[int, typer.Option("--limit", "-n", min=1, help="How many at most.")] = 50,
    json: output.Json = False,
) -> None:
    """The newest events, oldest of them first.

    \b
    Examples:
      helix audit list
      helix audit list production --action approve
      helix audit list --by ada --since 30d --json
    """
    found = _ledger().last_events(
        _key(instance), action=action, actor=by, since=_since(since), limit=limit
    )
    if json:
        output.document({"events": [one.model_dump(mode="json") for one in found]})
        return
    if not found:
        output.note("nothing fits")
        return
    output.table(COLUMNS, map(_row, found))


@app.command()
def verify(
    anchor: Annotated[
        list[str] | None,
        typer.Option("--anchor", help="NUMBER:HASH, noted elsewhere earlier. Several, if so."),
    ] = None,
    file: File = None,
    json: output.Json = False,
) -> None:
    """See that no event was changed, taken away, put in or exchanged since it was written.

    Ends with 0 if the trail is whole, and with 1 if it is not. A trail that was cut off, or written
    anew, is found by an anchor: note the last event, as this prints it, where those who can write
    the ledger cannot.

    \b
    Examples:
      helix audit verify
      helix audit verify --anchor "$(cat /mnt/elsewhere/anchor)"
      helix audit verify --file audit.jsonl
    """
    from cli.exits import Exit
    from model.audit import Trail

    trail = Trail(_anchors(anchor or []))
    if file is not None:
        trail.read(_exported(file))
    else:
        ledger = _ledger()
        # The deployments first: one that begins meanwhile is told of in the trail, not missed.
        untold = ledger.untold()
        trail.read(ledger.trail())
        trail.faults += [
            f"no event tells all of deployment {one.deployment} (release {one.number} of "
            f"{one.request.instance.key}): it was taken away"
            for one in untold
        ]
    _tell(trail, json)
    raise typer.Exit(Exit.UNEXPECTED if trail.faults else Exit.DONE)


@app.command()
def export(
    to: Annotated[
        Path | None, typer.Option("--output", "-o", help="The file to write; else to the screen.")
    ] = None,
    instance: Annotated[
        str, typer.Option("--instance", help="Only one; such an export cannot be verified.")
    ] = "",
) -> None:
    """Write the trail as JSON lines, to keep or to search. helix audit verify --file takes it.

    \b
    Examples:
      helix audit export -o audit.jsonl
      helix audit export --instance production | jq .actor
    """
    events = _ledger().trail(_key(instance))
    if to is None:
        for event in events:
            output.line(event.model_dump(mode="json"))
        return
    _write(to, events)


# --- what the commands share ---------------------------------------------------------------------


def _ledger() -> Ledger:
    from ledger.ledger import Ledger
    from worker.settings import load

    return Ledger(load().ledger_url)


def _key(instance: str) -> str:
    from cli.find import key_of
    from cli.project import open_project

    if not instance or "/" in instance:
        return instance
    return key_of(open_project(), instance)


def _since(text: str) -> datetime | None:
    from cli.exits import Usage
    from project.deploy import seconds

    if not text:
        return None
    try:
        found = datetime.fromisoformat(text)
        return found if found.tzinfo else found.replace(tzinfo=UTC)
    except ValueError:
        pass
    try:
        return datetime.now(UTC) - timedelta(seconds=float(seconds(text)))
    except (ValueError, OverflowError):
        raise Usage(f"--since: «{text}» is no time", hint="write 7d, 12h or 2026-11-23") from None


def _anchors(texts: list[str]) -> list[Anchor]:
    from cli.exits import Usage
    from model.audit import Anchor

    try:
        return [Anchor.parse(text) for text in texts]
    except ValueError as error:
        raise Usage(f"--anchor: {error}", hint="helix audit verify --help") from None


def _row(event: AuditEvent) -> tuple[str, ...]:
    from model.names import short_id

    why = [event.reason, str(event.detail.get("failure") or "")]
    return (
        str(event.number),
        f"{event.at.astimezone(UTC):%Y-%m-%d %H:%M:%S}",
        event.actor,
        event.origin,
        event.action,
        event.instance_key,
        short_id(event.deployment) if event.deployment else "",
        event.outcome,
        " ".join(filter(None, why)),
    )


def _tell(trail: Trail, json: bool) -> None:
    head = str(trail.head) if trail.head else ""
    if json:
        output.document(
            {"whole": not trail.faults, "events": trail.count, "head": head, "faults": trail.faults}
        )
        return
    for fault in trail.faults:
        output.say(fault)
    if trail.faults:
        output.note(f"the trail is not whole: {len(trail.faults)} faults in {trail.count} events")
        return
    output.say(f"{trail.count} events, whole" + (f"; the last one: {head}" if head else ""))


def _exported(file: Path) -> Iterator[AuditEvent]:
    from pydantic import ValidationError

    from model.audit import AuditEvent
    from model.errors import ConfigurationError, NotFound

    try:
        text = file.read_text()
    except FileNotFoundError:
        raise NotFound(f"there is no file {file}", hint="helix audit export writes one") from None
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"{file} cannot be read: {type(error).__name__}") from None
    for number, line in enumerate(text.splitlines(), 1):
        try:
            yield AuditEvent.model_validate_json(line)
        except ValidationError:
            raise ConfigurationError(
                f"{file}, line {number}, is no event", hint="helix audit export writes a line each"
            ) from None


def _write(path: Path, events: Iterator[AuditEvent]) -> None:
    from model.errors import HelixError
    from worker.paths import write_private

    lines = [event.model_dump_json() for event in events]
    try:
        write_private(path, "".join(f"{line}\n" for line in lines))
    except OSError as error:
        raise HelixError(
            f"cannot write {path}: {error.strerror}", hint="name another place: --output FILE"
        ) from None
    output.note(f"{path}: {len(lines)} events")
