"""Which instance a command is about, when it is not told."""

from __future__ import annotations

from typing import TYPE_CHECKING

import typer

from cli import output
from cli.exits import Usage

if TYPE_CHECKING:
    from project.load import Entry, Project


def choose(project: Project, named: str | None, *, ask: bool | None = None) -> str:
    """The instance that is meant: the one named, else the only one, else the only one elsewhere
    than on this machine, else the one that a person picks.

    Args:
        named: what was typed; None or empty if nothing was.
        ask: whether somebody can be asked; whether there is a terminal, if None.

    Raises:
        Usage: it cannot be told; lists the instances.
    """
    entries = project.instances
    if named:
        if project.entry(named) is not None:
            return named
        raise Usage(
            f"there is no instance «{named}» in {project.path}", hint=_listed(named, entries)
        )
    if len(entries) == 1:
        return entries[0].name
    elsewhere = [entry for entry in entries if not entry.is_local]
    if len(elsewhere) == 1:
        return elsewhere[0].name
    if output.interactive() if ask is None else ask:
        return _asked(entries)
    raise Usage("which instance?", hint=f"name one of: {_names(entries)}")


def _asked(entries: tuple[Entry, ...]) -> str:
    for number, entry in enumerate(entries, 1):
        output.note(f"  {number}  {entry.name}  ({entry.kind or 'wrong'})")
    while True:
        answer = typer.prompt("Which instance?", err=True).strip()
        if any(answer == entry.name for entry in entries):
            return str(answer)
        if answer.isdecimal() and 1 <= int(answer) <= len(entries):
            return entries[int(answer) - 1].name
        output.note(f"type a number from 1 to {len(entries)}, or a name")


def _listed(named: str, entries: tuple[Entry, ...]) -> str:
    from difflib import get_close_matches

    near = get_close_matches(named, [entry.name for entry in entries], n=1)
    return f"did you mean «{near[0]}»?" if near else f"known: {_names(entries)}"


def _names(entries: tuple[Entry, ...]) -> str:
    return ", ".join(f"{entry.name} ({entry.kind or 'wrong'})" for entry in entries) or "none"
