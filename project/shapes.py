"""How HelixDB's CLIs read a value: the shapes of serde, as far as their files use them.

A shape checks a TOML value and yields what is wrong with it. The rules, found by running the real
parsers: numbers are never coerced; a table may also be written as a list of its values in order,
unless it has settings of the database mixed in (`flat`); a word may also be the only key of an
empty table.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

from project.problems import Key


class Complaint(NamedTuple):
    """What a CLI would refuse, and where."""

    key: Key
    message: str
    expected: str = ""


class Shape(Protocol):
    """What a value may look like."""

    def check(self, value: Any, key: Key) -> Iterator[Complaint]:
        """Yield what is wrong with the value."""
        ...


@dataclass(frozen=True)
class Text:
    """A string."""

    def check(self, value: Any, key: Key) -> Iterator[Complaint]:
        """Yield what is wrong with the value."""
        if not isinstance(value, str):
            yield Complaint(key, "invalid type", "a string")


@dataclass(frozen=True)
class Flag:
    """A boolean."""

    def check(self, value: Any, key: Key) -> Iterator[Complaint]:
        """Yield what is wrong with the value."""
        if not isinstance(value, bool):
            yield Complaint(key, "invalid type", "a boolean")


@dataclass(frozen=True)
class Whole:
    """An unsigned integer of so many bits."""

    bits: int

    def check(self, value: Any, key: Key) -> Iterator[Complaint]:
        """Yield what is wrong with the value."""
        if isinstance(value, bool) or not isinstance(value, int):
            yield Complaint(key, "invalid type", f"u{self.bits}")
        elif not 0 <= value < 2**self.bits:
            yield Complaint(key, "invalid value", f"u{self.bits}")


@dataclass(frozen=True)
class Choice:
    """One of some words."""

    words: tuple[str, ...]

    def check(self, value: Any, key: Key) -> Iterator[Complaint]:
        """Yield what is wrong with the value."""
        if word_of(value) not in self.words:
            expected = ", ".join(f"`{word}`" for word in self.words)
            yield Complaint(key, "unknown variant", f"one of {expected}")


def word_of(value: Any) -> str | None:
    """The word that a value stands for, in either way of writing it; None if it is none."""
    if isinstance(value, dict) and len(value) == 1:
        (word, content), *_ = value.items()
        return str(word) if content in ({}, []) else None
    return value if isinstance(value, str) else None


@dataclass(frozen=True)
class Each:
    """A list of values of one shape."""

    of: Shape

    def check(self, value: Any, key: Key) -> Iterator[Complaint]:
        """Yield what is wrong with the value."""
        if not isinstance(value, list):
            yield Complaint(key, "invalid type", "a sequence")
            return
        for position, item in enumerate(value):
            yield from self.of.check(item, (*key, position))


@dataclass(frozen=True)
class Map:
    """A table with free names."""

    of: Shape

    def check(self, value: Any, key: Key) -> Iterator[Complaint]:
        """Yield what is wrong with the value."""
        if not isinstance(value, dict):
            yield Complaint(key, "invalid type", "a map")
            return
        for name, item in value.items():
            yield from self.of.check(item, (*key, name))


@dataclass(frozen=True)
class Struct:
    """A table with known keys; others are ignored."""

    keys: Mapping[str, Shape]
    """In the order in which the CLI declares them."""
    required: frozenset[str] = frozenset()
    flat: bool = False

    def check(self, value: Any, key: Key) -> Iterator[Complaint]:
        """Yield what is wrong with the value."""
        if isinstance(value, list) and not self.flat:
            yield from self._in_order(value, key)
            return
        if not isinstance(value, dict):
            yield Complaint(key, "invalid type", "a table")
            return
        for name, shape in self.keys.items():
            if name in value:
                yield from shape.check(value[name], (*key, name))
            elif name in self.required:
                yield Complaint(key, f"missing field `{name}`")

    def _in_order(self, values: Sequence[Any], key: Key) -> Iterator[Complaint]:
        if len(values) > len(self.keys):
            yield Complaint(key, "invalid length", f"at most {len(self.keys)} elements")
        for position, (name, shape) in enumerate(self.keys.items()):
            if position < len(values):
                yield from shape.check(values[position], (*key, position))
            elif name in self.required:
                yield Complaint(key, f"missing field `{name}`")


@dataclass(frozen=True)
class Variant:
    """A table with exactly one key, which says what is under it."""

    kinds: Mapping[str, Shape]

    def check(self, value: Any, key: Key) -> Iterator[Complaint]:
        """Yield what is wrong with the value."""
        expected = ", ".join(f"`{kind}`" for kind in self.kinds)
        if not isinstance(value, dict):
            yield Complaint(key, "invalid type", f"a table with one of {expected}")
            return
        if len(value) != 1:
            found = f"{len(value)} elements" if value else "0 elements"
            yield Complaint(key, f"wanted exactly 1 element, found {found}", f"one of {expected}")
            return
        ((kind, content),) = value.items()
        if kind not in self.kinds:
            yield Complaint((*key, kind), f"unknown variant `{kind}`", f"one of {expected}")
            return
        yield from self.kinds[kind].check(content, (*key, kind))
