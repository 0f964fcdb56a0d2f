"""What is wrong with a helix.toml, or only odd about it, and where."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Literal

from model.base import Record
from model.errors import ConfigurationError

Key = tuple[str | int, ...]
"""The way to a value: ("cloud", "prod", "fly", "vm_size"). Whole numbers are array positions."""


class Problem(Record):
    """One thing a person should know about the file."""

    severity: Literal["error", "warning"] = "error"
    code: str = "invalid"
    """A stable name that a script can match, such as `unknown-key`."""
    file: str = ""
    line: int = 0
    """From 1; 0 if it is about no line."""
    column: int = 0
    """From 1, in characters."""
    key: str = ""
    """The key path as TOML would write it: cloud.prod.fly.vm_size."""
    message: str
    expected: str = ""
    fix: str = ""
    """What to type next."""
    accepted_by: tuple[str, ...] = ()
    """The generations of HelixDB's CLI that do not mind; why this is only a warning."""

    @property
    def where(self) -> str:
        """file:line:column, as editors and terminals understand it."""
        return f"{self.file}:{self.line}:{self.column}" if self.line else self.file

    def __str__(self) -> str:
        text = f"{self.where}: {self.severity}: " if self.file else ""
        text += f"{self.key}: {self.message}" if self.key else self.message
        if self.expected:
            text += f" (expected {self.expected})"
        return f"{text}; {self.fix}" if self.fix else text


class ConfigErrors(ConfigurationError):
    """Everything that is wrong with a file, all at once.

    Args:
        problems: at least one; warnings among them are kept for the reader.
    """

    def __init__(self, problems: Iterable[Problem]) -> None:
        self.problems: tuple[Problem, ...] = tuple(problems)
        errors = [problem for problem in self.problems if problem.severity == "error"]
        super().__init__("\n".join(str(problem) for problem in errors or self.problems))


def dotted(key: Sequence[str | int]) -> str:
    """A key path as TOML would write it, array positions in brackets."""
    text = ""
    for part in key:
        if isinstance(part, int):
            text += f"[{part}]"
            continue
        bare = part.replace("-", "").replace("_", "")
        quoted = part if bare.isascii() and bare.isalnum() else '"' + part.replace('"', '\\"') + '"'
        text += f".{quoted}" if text else quoted
    return text
