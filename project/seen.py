"""Remembers the last helix.toml seen here, to notice and mend what another CLI dropped from it.

HelixDB's own CLIs rewrite the whole file now and then, and lose every table and key they do not
know, and every comment. The copy is kept as `.helix/helix.toml.seen`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from project.document import Document, parse
from project.edit import encoded, set_value, write_atomically
from project.find import FILE
from project.problems import ConfigErrors, Key


def seen_file(path: Path) -> Path:
    """Where the copy of a helix.toml is kept."""
    return path.parent / ".helix" / "helix.toml.seen"


def last_seen(path: Path) -> Document | None:
    """The last helix.toml seen here; None if there was none, its copy is no TOML, or the file has
    another name: only one file a folder is the project's."""
    if path.name != FILE:
        return None
    try:
        return parse(seen_file(path).read_bytes(), path)
    except (OSError, ConfigErrors):
        return None


def vanished(document: Document) -> list[Key]:
    """The tables that the last version had and this one has not, in the last one's order."""
    before = last_seen(document.path)
    if before is None:
        return []
    now = _tables(document.data)
    return [key for key in _tables(before.data) if key not in now]


def remember(document: Document) -> None:
    """Keep this version, unless tables have vanished from it. Failing to is no error."""
    if vanished(document):
        return
    keep(document.path, encoded(document.text, document))


def keep(path: Path, content: bytes) -> None:
    """Keep this version, whatever the last one had. Failing to is no error."""
    place = seen_file(path)
    if path.name != FILE:
        return
    try:
        if place.is_file() and place.read_bytes() == content:
            return
        place.parent.mkdir(exist_ok=True)
        write_atomically(place, content)
    except OSError:
        return


def restored(document: Document) -> str:
    """The last version seen, comments and unknown keys included, with the values that were set
    since put into it.

    Raises:
        ConfigurationError: the two do not fit together.
    """
    before = last_seen(document.path)
    if before is None:
        return document.text
    text = before.text
    for key, value in _changes(before.data, document.data, ()):
        text = set_value(text, key, value)
    return text


def _tables(data: dict[str, Any]) -> list[Key]:
    """The tables that matter: instances, [deploy.<instance>], and whatever else is at the top."""
    found: list[Key] = []
    for name, value in data.items():
        if not isinstance(value, dict):
            continue
        if name in ("local", "cloud", "enterprise", "deploy"):
            found += [(name, inner) for inner, each in value.items() if isinstance(each, dict)]
        else:
            found.append((name,))
    return found


def _changes(before: Any, now: dict[str, Any], key: Key) -> list[tuple[Key, Any]]:
    """What is new or different now; what is gone is not a change."""
    found: list[tuple[Key, Any]] = []
    for name, value in now.items():
        old = before.get(name) if isinstance(before, dict) else None
        if isinstance(value, dict) and isinstance(old, dict):
            found += _changes(old, value, (*key, name))
        elif type(old) is not type(value) or old != value:
            found.append(((*key, name), value))
    return found
