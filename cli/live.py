"""A report that is shown again and again: a live table, a table each time, or a line of JSON."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any

from cli import output

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.table import Table

Report = dict[str, Any]


async def watch(
    look: Callable[[], Awaitable[Report]],
    table: Callable[[Report], Table],
    interval: float,
    *,
    machine: bool,
) -> None:
    """Show a report until the command is interrupted.

    Where nobody sits at a terminal, only what has changed is said: as a line of JSON (`machine`),
    or as a table.
    """
    if output.console().is_terminal and not machine:
        await _live(look, table, interval)
        return
    before: Report | None = None
    while True:
        report = await look()
        if report != before:
            if machine:
                output.line(report)
            else:
                output.console().print(table(report))
            before = report
        await asyncio.sleep(interval)


async def _live(
    look: Callable[[], Awaitable[Report]], table: Callable[[Report], Table], interval: float
) -> None:
    from rich.console import Group
    from rich.live import Live
    from rich.text import Text

    with Live(console=output.console(), auto_refresh=False) as live:
        while True:
            report = await look()
            shown: list[RenderableType] = [table(report), Text("Ctrl-C ends it", style="dim")]
            if report["temporal"] != "ok":
                text = f"cannot tell what is being deployed: {report['temporal']}"
                shown.insert(1, Text(text, style="yellow"))
            live.update(Group(*shown), refresh=True)
            await asyncio.sleep(interval)
