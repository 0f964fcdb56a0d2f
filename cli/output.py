"""What a command prints: sentences and tables for people, JSON for machines.

Results go to the standard output, everything else to the standard error. Colours appear on a
terminal only, and not there either if NO_COLOR is set.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterable, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Any

import typer

from model.errors import HelixError

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

_MACHINE = "helix.json"


def _remember(context: typer.Context, value: bool) -> bool:
    if value:
        context.find_root().meta[_MACHINE] = True
    return value


Json = Annotated[bool, typer.Option("--json", help="Print JSON, for machines.", callback=_remember)]
"""The `--json` option of every command."""


def for_machines(context: Any) -> bool:
    """Whether the command that runs was asked for JSON."""
    return bool(context.find_root().meta.get(_MACHINE))


def interactive() -> bool:
    """Whether someone sits at a terminal who could answer a question."""
    return sys.stdin.isatty() and sys.stderr.isatty()


def say(text: str = "") -> None:
    """A line of the result."""
    typer.echo(text)


def note(text: str) -> None:
    """A line about the result: progress, warnings, what to do next."""
    typer.echo(text, err=True)


def document(value: Any) -> None:
    """The one JSON document of a command."""
    typer.echo(json.dumps(value, indent=2, ensure_ascii=False, default=str))


def line(value: Any) -> None:
    """One JSON object of a stream, on its own line, at once."""
    typer.echo(json.dumps(value, ensure_ascii=False, separators=(",", ":"), default=str))
    sys.stdout.flush()


def problem(error: HelixError, exit: int, machine: bool) -> None:
    """An error that ends the command: for people, and for machines if they asked."""
    note(typer.style("error: ", fg="red", bold=True) + error.message)
    if error.hint:
        note(typer.style("what to do: ", bold=True) + error.hint)
    if error.request_id:
        note(f"request: {error.request_id}")
    for text in error.evidence.splitlines():
        note(f"  | {text}")
    if machine:
        line(
            {
                "event": "error",
                "exit": int(exit),
                "error": {
                    "code": error.code,
                    "message": error.message,
                    "hint": error.hint,
                    "request_id": error.request_id,
                    "evidence": error.evidence,
                },
            }
        )


def console(*, err: bool = False) -> Console:
    """A rich console; one that is no terminal never breaks or shortens a line."""
    from rich.console import Console

    stream = sys.stderr if err else sys.stdout
    wide = None if stream.isatty() else 10_000
    return Console(stderr=err, width=wide, highlight=False, emoji=False, markup=False)


def table(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """A table of results: aligned columns, a line each."""
    console().print(grid(columns, rows))


def grid(
    columns: Sequence[str],
    rows: Iterable[Sequence[str]],
    marked: Callable[[Sequence[str]], bool] = lambda row: False,
) -> Table:
    """The table itself; rows that are marked stand out where there are colours."""
    from rich.table import Table

    view = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    for column in columns:
        view.add_column(column, overflow="fold")
    for row in rows:
        view.add_row(*row, style="bold red" if marked(row) else None)
    return view


def seconds(duration: float) -> str:
    """A duration for people: 0.4 s, 12 s, 3 min 20 s, 2 h 5 min, 3 d."""
    if duration < 10:
        return f"{max(duration, 0):.1f} s"
    whole = int(duration)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    if whole < 86400:
        return f"{whole // 3600} h {whole % 3600 // 60} min"
    return f"{whole // 86400} d"


def ago(moment: datetime | None) -> str:
    """How long ago something was, for people; «-» if it was not."""
    if moment is None:
        return "-"
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    return f"{seconds((datetime.now(UTC) - moment).total_seconds())} ago"


def size(count: int) -> str:
    """Bytes for people: 512 B, 1.5 kB, 20 MB."""
    value = float(count)
    for unit in ("B", "kB", "MB"):
        if value < 1000:
            return f"{value:.0f} {unit}" if unit == "B" or value >= 10 else f"{value:.1f} {unit}"
        value /= 1000
    return f"{value:.1f} GB"
