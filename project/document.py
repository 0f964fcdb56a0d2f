"""Reads TOML text into plain values, and remembers where each of them stands.

A first pass of our own walks the text once: it finds the position of every key, and refuses what
would cost too much to parse. Python's parser then gives the values. It knows TOML 1.0; HelixDB v3
also writes and reads TOML 1.1, so what 1.1 added is reworded for it where the text needs that.
"""

from __future__ import annotations

import re
import tomllib
from bisect import bisect_right
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

from project.problems import ConfigErrors, Key, Problem, dotted

MAX_BYTES = 256 * 1024
"""No helix.toml comes near it, even with a schema inside."""
MAX_DEPTH = 80
"""Of nested values, and of the parts of one dotted key: where HelixDB's own CLIs stop."""

_BARE = re.compile(r"[A-Za-z0-9_-]+")
_SPACE = re.compile(r"[ \t]*")
_COMMENT = re.compile(r"#[^\r\n]*")
_NEWLINE = re.compile(r"\r?\n")
_SCALAR = re.compile(r"[^,\[\]{}#\r\n\"'=]+")
_STRINGS = {
    '"""': re.compile(r'"{3}[^"\\]*(?:(?:\\.|"{1,2}(?!"))[^"\\]*)*"{3,5}', re.DOTALL),
    "'''": re.compile(r"'{3}.*?'{3,5}", re.DOTALL),
    '"': re.compile(r'"[^"\\\r\n]*(?:\\[^\r\n][^"\\\r\n]*)*"'),
    "'": re.compile(r"'[^'\r\n]*'"),
}
_ESCAPE = re.compile(r"\\(?:(e)|x([0-9A-Fa-f]{2})|.)", re.DOTALL)
_SHORT_TIME = re.compile(r"(?:^|[Tt ])\d\d:\d\d(?![:\d])")


class TomlError(Exception):
    """The text is not TOML.

    Args:
        message: what is wrong.
        offset: where, in characters from the start.
    """

    def __init__(self, message: str, offset: int) -> None:
        super().__init__(message)
        self.message = message
        self.offset = offset


class Header(NamedTuple):
    """A line [a.b] or [[a.b]]."""

    key: Key
    start: int
    """Where its first bracket stands."""


@dataclass(frozen=True)
class Layout:
    """Where everything stands in a text, in characters from its start."""

    places: dict[Key, tuple[int, int]] = field(default_factory=dict)
    """Key path -> offsets of its key and of its value."""
    ends: dict[Key, int] = field(default_factory=dict)
    """Key path of a written value -> where that value ends. Tables made by a header have none."""
    headers: list[Header] = field(default_factory=list)
    """In the order of the text."""
    pairs: dict[Key, list[tuple[Key, int, int]]] = field(default_factory=dict)
    """Key path of an inline table -> its pairs: key path, where the key begins, the value ends."""
    statements: dict[Key, Key] = field(default_factory=dict)
    """Key path of every «key = value» line -> the table of the header it stands under."""


@dataclass(frozen=True)
class Document:
    """A TOML text, its values, and where they stand."""

    path: Path
    text: str
    """Without the byte order mark."""
    data: dict[str, Any]
    layout: Layout = field(default_factory=Layout)
    bom: bool = False
    toml_1_1: bool = False
    """It uses what only TOML 1.1 has."""
    _lines: list[int] = field(default_factory=list, repr=False)

    @property
    def places(self) -> dict[Key, tuple[int, int]]:
        """Key path -> offsets of its key and of its value."""
        return self.layout.places

    def position(self, key: Key, *, of_value: bool = False) -> tuple[int, int]:
        """Line and column, from 1, of a key (or its value), else of the nearest table above it."""
        while key and key not in self.places:
            key = key[:-1]
        if not key:
            return 1, 1
        return self._line_and_column(self.places[key][1 if of_value else 0])

    def _line_and_column(self, offset: int) -> tuple[int, int]:
        if not self._lines:
            self._lines.append(0)
            self._lines.extend(match.end() for match in re.finditer("\n", self.text))
        line = bisect_right(self._lines, offset)
        return line, offset - self._lines[line - 1] + 1

    def problem(self, key: Key, message: str, *, of_value: bool = False, **more: Any) -> Problem:
        """A problem at a key of this document."""
        line, column = self.position(key, of_value=of_value)
        return Problem(
            file=str(self.path), line=line, column=column, key=dotted(key), message=message, **more
        )


def read(path: Path) -> Document:
    """Read a file.

    Raises:
        ConfigErrors: it cannot be read, is not UTF-8, is too large or is not TOML.
    """
    try:
        with path.open("rb") as file:
            raw = file.read(MAX_BYTES + 1)
    except OSError as error:
        raise ConfigErrors(
            [Problem(code="unreadable", file=str(path), message=error.strerror or str(error))]
        ) from None
    return parse(raw, path)


def parse(raw: bytes, path: Path = Path("helix.toml")) -> Document:
    """Parse the bytes of a file.

    Raises:
        ConfigErrors: as for `read`.
    """
    if len(raw) > MAX_BYTES:
        message = f"the file is larger than {MAX_BYTES // 1024} KiB"
        raise ConfigErrors([Problem(code="too-large", file=str(path), message=message)])
    try:
        text = raw.decode("utf-8")
    except UnicodeDecodeError as error:
        before = raw[: error.start].decode("utf-8")
        raise ConfigErrors(
            [
                Problem(
                    code="encoding",
                    file=str(path),
                    line=before.count("\n") + 1,
                    column=len(before) - before.rfind("\n"),
                    message=f"byte {raw[error.start]:#04x} is not UTF-8",
                    fix="save the file as UTF-8",
                )
            ]
        ) from None
    bom = text.startswith("\ufeff")
    text = text.removeprefix("\ufeff")
    try:
        scanner = _Scanner(text)
        scanner.run()
        data, newer = _values(text, scanner.rewording)
    except TomlError as error:
        found = Document(path, text, {})
        line, column = found._line_and_column(min(error.offset, len(text)))
        raise ConfigErrors(
            [
                Problem(
                    code="syntax",
                    file=str(path),
                    line=line,
                    column=column,
                    message=f"this is not TOML: {error.message}",
                )
            ]
        ) from None
    return Document(path, text, data, scanner.layout, bom, newer)


def _values(text: str, rewording: list[tuple[int, int, str]]) -> tuple[dict[str, Any], bool]:
    """The values of a text, and whether it had to be reworded for them."""
    try:
        return _loads(text), False
    except TomlError:
        if not rewording:
            raise
    pieces, at = [], 0
    for start, end, new in sorted(rewording):
        pieces += [text[at:start], new]
        at = end
    reworded = "".join([*pieces, text[at:]])
    try:
        return _loads(reworded), True
    except TomlError as error:
        offset = error.offset
        for start, end, new in sorted(rewording):
            if start < offset:
                offset += (end - start) - len(new)
        raise TomlError(error.message, offset) from None


def _loads(text: str) -> dict[str, Any]:
    try:
        return tomllib.loads(text)
    except (ValueError, RecursionError) as error:
        message = str(error)
        place = re.search(r" \(at (?:line (\d+), column (\d+)|end of document)\)$", message)
        offset = len(text)
        if place is not None:
            message = message[: place.start()]
            if place[1]:
                lines = text.split("\n")
                offset = sum(len(line) + 1 for line in lines[: int(place[1]) - 1])
                offset += int(place[2]) - 1
        else:
            offset = 0
        message = message[:1].lower() + message[1:]
        raise TomlError(message, offset) from None


class _Scanner:
    """One pass over the text, in time proportional to its length."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.at = 0
        self.layout = Layout()
        self.places = self.layout.places
        self.rewording: list[tuple[int, int, str]] = []
        """What TOML 1.1 allows, as TOML 1.0: start, end, text instead."""
        self._latest: dict[Key, int] = {}
        """Array of tables -> the position of its latest element."""

    def run(self) -> None:
        """Walk the whole text.

        Raises:
            TomlError: its structure is wrong, or it is nested too deep.
        """
        table: Key = ()
        while True:
            self._skip(_SPACE)
            if self.at >= len(self.text):
                return
            if self._skip(_COMMENT) or self._skip(_NEWLINE):
                continue
            if self._take("["):
                table = self._header()
            else:
                self.layout.statements[self._key_and_value(table, 0)] = table
            self._skip(_SPACE)
            self._skip(_COMMENT)
            if self.at < len(self.text) and not self._skip(_NEWLINE):
                self._fail("expected the end of the line")

    def _header(self) -> Key:
        start = self.at - 1
        array = self._take("[")
        path: Key = ()
        for part, offset in self._key():
            path = (*path, part)
            self.places.setdefault(path, (offset, offset))
            if path in self._latest:
                path = (*path, self._latest[path])
        if array:
            if path and isinstance(path[-1], int):
                path = path[:-1]
            self._latest[path] = self._latest.get(path, -1) + 1
            at = self.places[path]
            path = (*path, self._latest[path])
            self.places.setdefault(path, at)
        if not self._take("]]" if array else "]"):
            self._fail(f"expected {']]' if array else ']'} after the name of the table")
        self.layout.headers.append(Header(path, start))
        return path

    def _key(self) -> list[tuple[str, int]]:
        parts: list[tuple[str, int]] = []
        while True:
            self._skip(_SPACE)
            start = self.at
            if self._skip(_BARE):
                parts.append((self.text[start : self.at], start))
            elif self.text[start : start + 1] in ('"', "'"):
                raw = self._string(multiline=False)
                parts.append((_loads(f"key = {_older(raw)}")["key"], start))
            else:
                self._fail("expected a key")
            if len(parts) > MAX_DEPTH:
                self._fail(f"a key of more than {MAX_DEPTH} parts")
            self._skip(_SPACE)
            if not self._take("."):
                return parts

    def _key_and_value(self, table: Key, depth: int) -> Key:
        path = table
        for part, offset in self._key():
            path = (*path, part)
            self.places.setdefault(path, (offset, offset))
        if not self._take("="):
            self._fail("expected = after the key")
        self._skip(_SPACE)
        self.places[path] = (self.places[path][0], self.at)
        self._value(path, depth)
        return path

    def _value(self, path: Key, depth: int) -> None:
        if depth >= MAX_DEPTH or len(path) > 4 * MAX_DEPTH:
            self._fail(f"values nested more than {MAX_DEPTH} deep")
        start = self.at
        first = self.text[start : start + 1]
        if first in ('"', "'") and first:
            self._string(multiline=True)
        elif self._take("["):
            self._array(path, depth)
        elif self._take("{"):
            self._inline_table(path, depth)
        elif self._skip(_SCALAR):
            raw = self.text[start : self.at].rstrip()
            self.at = start + len(raw)
            if _SHORT_TIME.search(raw):
                after = start + _SHORT_TIME.search(raw).end()  # type: ignore[union-attr]
                self.rewording.append((after, after, ":00"))
        else:
            self._fail("expected a value")
        self.layout.ends[path] = self.at

    def _array(self, path: Key, depth: int) -> None:
        position = 0
        while True:
            self._blank(inline=False)
            if self._take("]"):
                return
            self.places[(*path, position)] = (self.at, self.at)
            self._value((*path, position), depth + 1)
            position += 1
            self._blank(inline=False)
            if not self._take(","):
                if self._take("]"):
                    return
                self._fail("expected , or ] in the array")

    def _inline_table(self, path: Key, depth: int) -> None:
        comma = -1
        pairs = self.layout.pairs.setdefault(path, [])
        while True:
            self._blank(inline=True)
            if self._take("}"):
                if comma >= 0:
                    self.rewording.append((comma, comma + 1, " "))
                return
            start = self.at
            pair = self._key_and_value(path, depth + 1)
            pairs.append((pair, start, self.at))
            self._blank(inline=True)
            comma = self.at
            if not self._take(","):
                if self._take("}"):
                    return
                self._fail("expected , or } in the inline table")

    def _blank(self, *, inline: bool) -> None:
        """Skip spaces, line ends and comments; in an inline table only TOML 1.1 has the latter."""
        while True:
            self._skip(_SPACE)
            start = self.at
            if not (self._skip(_COMMENT) or self._skip(_NEWLINE)):
                return
            if inline:
                self.rewording.append((start, self.at, " " * (self.at - start)))

    def _string(self, *, multiline: bool) -> str:
        quote = self.text[self.at]
        mark = quote * 3 if multiline and self.text.startswith(quote * 3, self.at) else quote
        match = _STRINGS[mark].match(self.text, self.at)
        if match is None:
            self._fail(f"the string has no closing {mark}")
        start, self.at = self.at, match.end()
        if quote == '"':
            self.rewording += [
                (start + escape.start(), start + escape.end(), _older(escape[0]))
                for escape in _ESCAPE.finditer(match[0])
                if escape[1] or escape[2]
            ]
        return match[0]

    def _skip(self, pattern: re.Pattern[str]) -> bool:
        match = pattern.match(self.text, self.at)
        if match is None or match.end() == self.at:
            return False
        self.at = match.end()
        return True

    def _take(self, mark: str) -> bool:
        if not self.text.startswith(mark, self.at):
            return False
        self.at += len(mark)
        return True

    def _fail(self, message: str) -> NoReturn:
        raise TomlError(message, self.at)


def _older(text: str) -> str:
    """A basic string of TOML 1.1 with the escapes of TOML 1.0."""

    def reword(match: re.Match[str]) -> str:
        if match[1]:
            return "\\u001b"
        return f"\\u00{match[2]}" if match[2] else match[0]

    return _ESCAPE.sub(reword, text) if text.startswith(('"', "\\")) else text
