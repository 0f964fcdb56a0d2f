"""Changes single values and tables of a TOML text, and leaves every other byte as it is.

    text = set_value(text, ("local", "dev", "port"), 7070)
    text = remove(text, ("cloud", "edge"))

tomlkit writes the new values and keys. Where they go is decided here, from the positions of what is
there: so comments stay with what they are about, line ends stay as they are, and TOML 1.1 is no
obstacle. Every edit is read back and compared with what it should mean before it is returned.
"""

from __future__ import annotations

import copy
import os
import re
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import tomlkit
from tomlkit.items import SingleKey

from model.errors import ConfigurationError
from project.document import Document, parse
from project.problems import Key, dotted


def set_value(text: str, key: Key, value: Any) -> str:
    """Give a key a value, in place or, if it is new, at the end of its table.

    Setting what is already so changes nothing.

    Args:
        text: valid TOML, without a byte order mark.
        key: the key path. Tables on the way that are not there are made.
        value: text, a number, a boolean, a list, or a mapping for a whole new table.

    Raises:
        ConfigurationError: something on the way is no table, or the key is a table already.
    """
    document = _read(text)
    present = _get(document.data, key)
    if present is not _NOTHING and type(present) is type(value) and present == value:
        return text
    if isinstance(present, dict) and not isinstance(value, Mapping):
        raise ConfigurationError(
            f"{dotted(key)} is a table, not a value", hint="name a key inside it"
        )
    if key in document.layout.ends:
        start, end = document.places[key][1], document.layout.ends[key]
        edited = text[:start] + _written(value) + text[end:]
    elif present is not _NOTHING:
        raise ConfigurationError(
            f"{dotted(key)} is a table, not a value", hint="name a key inside it"
        )
    elif isinstance(value, Mapping) and _can_have_header(document, key):
        edited = _append(text, _table(document, key, value))
    else:
        edited = _insert(document, key, value)
    expected = copy.deepcopy(document.data)
    _put(expected, key, value)
    return _checked(edited, expected, key)


def remove(text: str, key: Key) -> str:
    """Remove a value or a whole table, with the comments inside it. Removing what is not there
    changes nothing.

    Raises:
        ConfigurationError: it stands in a list.
    """
    document = _read(text)
    if _get(document.data, key) is _NOTHING:
        return text
    expected = copy.deepcopy(document.data)
    holder = _get(expected, key[:-1])
    if not isinstance(holder, dict):
        raise ConfigurationError(f"{dotted(key)} is an element of a list", hint="edit it by hand")
    del holder[key[-1]]
    edited = text
    for start, end in sorted(_spans(document, key), reverse=True):
        edited = edited[:start] + edited[end:]
    # A table that is only implied by what was removed goes with it.
    found = _read(edited).data
    parent = key[:-1]
    while parent and _get(found, parent) is _NOTHING and _get(expected, parent) == {}:
        above = _get(expected, parent[:-1])
        assert isinstance(above, dict)
        del above[parent[-1]]
        parent = parent[:-1]
    return _checked(edited, expected, key)


def write_atomically(path: Path, content: bytes) -> None:
    """Replace a file's content at one instant, or not at all; its mode stays. A symbolic link stays
    one: the file it leads to is replaced."""
    target = path.resolve()
    handle, name = tempfile.mkstemp(prefix=f".{target.name}.", dir=target.parent)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        mode = target.stat().st_mode & 0o7777 if target.exists() else 0o666 & ~_umask()
        Path(name).chmod(mode)
        Path(name).replace(target)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise


def encoded(text: str, document: Document) -> bytes:
    """A text as the bytes of the file it came from: with its byte order mark, if it had one."""
    return (b"\xef\xbb\xbf" if document.bom else b"") + text.encode("utf-8")


def _umask() -> int:
    current = os.umask(0o022)
    os.umask(current)
    return current


class _Nothing:
    """What a key path leads to that is not there."""


_NOTHING = _Nothing()


def _read(text: str) -> Document:
    return parse(text.encode("utf-8"))


def _get(data: Any, key: Key) -> Any:
    for part in key:
        try:
            data = data[part]
        except (KeyError, IndexError, TypeError):
            return _NOTHING
    return data


def _put(data: dict[str, Any], key: Key, value: Any) -> None:
    for part in key[:-1]:
        data = data.setdefault(str(part), {}) if isinstance(data, dict) else data[part]
    data[str(key[-1])] = dict(value) if isinstance(value, Mapping) else value


def _checked(edited: str, expected: dict[str, Any], key: Key) -> str:
    if _read(edited).data != expected:
        raise ConfigurationError(
            f"{dotted(key)} cannot be changed here without rewriting the file",
            hint="edit it by hand",
        )
    return edited


# --- writing -------------------------------------------------------------------------------------


def _newline(text: str) -> str:
    """The line end that the text uses."""
    match = re.search(r"\r?\n", text)
    return match[0] if match else "\n"


def _name(part: str | int) -> str:
    """A key as TOML writes it, in quotes only if it must be."""
    return str(SingleKey(str(part)).as_string())


def _written(value: Any) -> str:
    """A value as TOML writes it, on one line."""
    if isinstance(value, Mapping):
        if not value:
            return "{}"
        return "{ " + ", ".join(f"{_name(k)} = {_written(v)}" for k, v in value.items()) + " }"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(map(_written, value)) + "]"
    return str(tomlkit.item(value).as_string())


def _table(document: Document, key: Key, values: Mapping[str, Any]) -> str:
    """A header with the keys under it; tables among the values become headers of their own."""
    newline = _newline(document.text)
    plain = {name: value for name, value in values.items() if not isinstance(value, Mapping)}
    tables = {name: value for name, value in values.items() if isinstance(value, Mapping)}
    lines: list[str] = []
    if plain or not tables:
        lines.append(f"[{'.'.join(map(_name, key))}]")
        lines += [f"{_name(name)} = {_written(value)}" for name, value in plain.items()]
    blocks = ["".join(line + newline for line in lines)] if lines else []
    blocks += [_table(document, (*key, name), value) for name, value in tables.items()]
    return newline.join(blocks)


def _append(text: str, block: str) -> str:
    """The text with a block after a blank line at its end."""
    newline = _newline(text)
    if text and not text.endswith("\n"):
        text += newline
    if text.strip() and not text.endswith(newline * 2):
        text += newline
    return text + block


def _can_have_header(document: Document, key: Key) -> bool:
    """Whether a header can make this new table: not below a table that is written as a value or
    with dotted keys, nor in a list."""
    layout = document.layout
    for length in range(1, len(key)):
        above = key[:length]
        if above in layout.ends or isinstance(key[length - 1], int):
            return False
        if _dotted_under(document, above) is not None:
            return False
    return True


def _dotted_under(document: Document, key: Key) -> tuple[Key, Key] | None:
    """The last «a.b.c = value» line that makes this table by its dots: its key path, and the
    table of the header it stands under."""
    found = None
    for statement, table in document.layout.statements.items():
        if len(table) < len(key) < len(statement) and statement[: len(key)] == key:
            found = statement, table
    return found


def _insert(document: Document, key: Key, value: Any) -> str:
    """The text with a new key at the end of the table that is to have it."""
    layout, text = document.layout, document.text
    for length in range(len(key) - 1, -1, -1):
        above, rest = key[:length], key[length:]
        if _get(document.data, above) is _NOTHING:
            continue
        nested = value
        for part in reversed(rest[1:]):
            nested = {part: nested}
        if above in layout.ends:
            return _into_inline(document, above, rest[0], nested)
        by_dots = _dotted_under(document, above)
        if by_dots is not None:
            after, table = by_dots
            line = f"{'.'.join(map(_name, key[len(table) :]))} = {_written(value)}"
            return _line_after(text, layout.ends[after], line)
        if len(rest) == 1 and (not above or any(h.key == above for h in layout.headers)):
            return _into_body(document, above, f"{_name(rest[0])} = {_written(value)}")
        return _append(text, _table(document, key[:-1], {str(key[-1]): value}))
    raise AssertionError("the root is always there")


def _line_after(text: str, offset: int, line: str) -> str:
    """The text with a line after the one that holds a position, indented alike."""
    newline = _newline(text)
    start = text.rfind("\n", 0, offset) + 1
    end = text.find("\n", offset)
    indent = re.match(r"[ \t]*", text[start:])
    prefix = indent[0] if indent else ""
    if end < 0:
        return text + newline + prefix + line + newline
    return text[: end + 1] + prefix + line + newline + text[end + 1 :]


def _into_body(document: Document, table: Key, line: str) -> str:
    layout, text = document.layout, document.text
    own = [key for key, under in layout.statements.items() if under == table]
    if own:
        last = own[-1]
        start = document.places[last][0]
        # Indent as the line where the last statement begins, after the line where it ends.
        prefix = text[text.rfind("\n", 0, start) + 1 : start]
        indent = prefix if not prefix.strip() else ""
        end = text.find("\n", layout.ends[last])
        newline = _newline(text)
        if end < 0:
            return text + newline + indent + line + newline
        return text[: end + 1] + indent + line + newline + text[end + 1 :]
    if table:
        header = next(h for h in layout.headers if h.key == table)
        return _line_after(text, header.start, line)
    if layout.headers:
        return line + _newline(text) * 2 + text
    return _append(text, line + _newline(text)) if text.strip() else text + line + _newline(text)


def _into_inline(document: Document, table: Key, name: str | int, value: Any) -> str:
    text = document.text
    if not isinstance(_get(document.data, table), dict):
        raise ConfigurationError(f"{dotted(table)} is a value, not a table", hint="remove it first")
    pair = f"{_name(name)} = {_written(value)}"
    pairs = document.layout.pairs[table]
    if pairs:
        last = pairs[-1][2]
        return f"{text[:last]}, {pair}{text[last:]}"
    start = document.places[table][1] + 1
    return f"{text[:start]} {pair} {text[start:].lstrip(' ')}"


# --- removing ------------------------------------------------------------------------------------


def _spans(document: Document, key: Key) -> list[tuple[int, int]]:
    """Where everything of a key stands."""
    layout, text = document.layout, document.text
    inline = [key[:length] for length in range(1, len(key)) if key[:length] in layout.ends]
    if inline:
        return _pair_spans(document, inline[-1], key)
    spans = []
    for statement, table in layout.statements.items():
        if statement[: len(key)] == key and table[: len(key)] != key:
            spans.append(_lines(text, document.places[statement][0], layout.ends[statement]))
    for position, header in enumerate(layout.headers):
        if header.key[: len(key)] != key:
            continue
        following = layout.headers[position + 1 :]
        start = text.rfind("\n", 0, header.start) + 1
        if following:
            spans.append((start, _above(text, following[0].start)))
        else:  # the blank line before it came with it
            before = re.search(r"(?<=\n)\r?\n$", text[:start])
            spans.append((before.start() if before else start, len(text)))
    return spans


def _pair_spans(document: Document, table: Key, key: Key) -> list[tuple[int, int]]:
    """Where the pairs of an inline table stand that make up a key, each with its comma."""
    pairs = document.layout.pairs[table]
    gone = [path[: len(key)] == key for path, _, _ in pairs]
    if all(gone):
        return [(document.places[table][1] + 1, document.layout.ends[table] - 1)]
    kept = max(position for position, out in enumerate(gone) if not out)
    spans = [
        (pairs[position][1], pairs[position + 1][1])
        for position, out in enumerate(gone[:kept])
        if out
    ]
    if kept + 1 < len(pairs):
        spans.append((pairs[kept][2], pairs[-1][2]))
    return spans


def _lines(text: str, start: int, end: int) -> tuple[int, int]:
    """The whole lines from one position to another, the comment behind them included."""
    line_end = text.find("\n", end)
    return text.rfind("\n", 0, start) + 1, len(text) if line_end < 0 else line_end + 1


def _above(text: str, header: int) -> int:
    """Where the comment that stands directly above a header begins; else its own line."""
    at = text.rfind("\n", 0, header) + 1
    while at > 0:
        line = text.rfind("\n", 0, at - 1) + 1
        if not text[line:at].lstrip(" \t").startswith("#"):
            break
        at = line
    return at
