"""Opens the project that a command is about, and says what another CLI dropped from its file."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from cli import output

if TYPE_CHECKING:
    from project.document import Document
    from project.load import Project


_SAID: set[tuple[Path, str]] = set()
"""What has been said already: a command may open its project more than once."""


def open_project(path: Path | None = None) -> Project:
    """As `project.load.load_project`; and notices tables that have vanished since last time.

    Raises:
        NotFound, ConfigErrors: as there.
    """
    from project.load import load_project

    project = load_project(path)
    notice(project.document)
    return project


def notice(document: Document) -> None:
    """Say which tables another CLI dropped from the file; if none, remember this version of it."""
    from project.problems import dotted
    from project.seen import remember, vanished

    gone = vanished(document)
    if not gone:
        remember(document)
        return
    if (document.path, document.text) in _SAID:
        return
    _SAID.add((document.path, document.text))
    tables = ", ".join(f"[{dotted(key)}]" for key in gone)
    output.note(
        f"{tables} {'was' if len(gone) == 1 else 'were'} in {document.path.name} last time and"
        f" {'is' if len(gone) == 1 else 'are'} gone; «helix config restore» puts"
        f" {'it' if len(gone) == 1 else 'them'} back, «helix config accept» agrees"
    )


def save(document: Document, text: str) -> bool:
    """Write a changed text back, atomically, and remember it; False if nothing has changed."""
    from project.edit import encoded, write_atomically
    from project.seen import keep

    if text == document.text:
        return False
    content = encoded(text, document)
    write_atomically(document.path, content)
    keep(document.path, content)
    return True
