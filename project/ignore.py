"""What a `.dockerignore` leaves out, decided exactly as Docker decides it.

The rules are those of github.com/moby/patternmatcher 0.6.1, which every Docker client uses. They
are neither those of `.gitignore` nor those of docker-py: a pattern is anchored at the context, a
leading `**` matches by plain suffix, and a match of any parent folder counts.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Callable, Sequence

from model.errors import ConfigurationError

Inherited = tuple[bool, ...]
"""Which pattern matched a folder or one above it, in the patterns' order."""


def read_patterns(text: str) -> list[str]:
    """The patterns in the text of a `.dockerignore`: comments gone, paths cleaned."""
    patterns = []
    for line in text.removeprefix("\ufeff").split("\n"):
        pattern = line.strip()
        if not pattern or line.startswith("#"):
            continue
        negated = pattern.startswith("!")
        body = pattern[1:].strip() if negated else pattern
        if body:
            body = re.sub("^/+", "", posixpath.normpath(body)) or "/"
        patterns.append(f"!{body}" if negated else body)
    return patterns


class _Pattern:
    def __init__(self, text: str) -> None:
        self.negated = text.startswith("!")
        self.text = text[1:] if self.negated else text
        try:
            if not self.text:
                raise re.error("nothing follows the «!»")
            self.matches = _matcher(self.text)
        except re.error as error:
            raise ConfigurationError(
                f"the pattern «{text}» in .dockerignore is malformed: {error}",
                hint="close its brackets, or put a \\ before a character meant literally",
            ) from None
        plain = self.text[:-3] if self.text.endswith("/**") else self.text
        self.prefix = plain.removesuffix("/*")
        self.literal = not re.search(r"[*?\[\]^\\]", self.prefix)


def _matcher(pattern: str) -> Callable[[str], bool]:
    """A test for one path. Go's `*` stops at a slash, its `**` does not."""
    expression, how, i = "", "exact", 0
    while i < len(pattern):
        char, start = pattern[i], i
        i += 1
        if char == "*" and pattern[i : i + 1] == "*":
            i += 1 + (pattern[i + 1 : i + 2] == "/")
            if i < len(pattern):
                expression, how = expression + "(.*/)?", "regex"
            elif how == "exact":
                how = "prefix"
            else:
                expression, how = expression + ".*", "regex"
            if start == 0:
                how = "suffix"
        elif char == "*":
            expression, how = expression + "[^/]*", "regex"
        elif char == "?":
            expression, how = expression + "[^/]", "regex"
        elif char == "\\":
            # What follows means what it means in a regular expression: that is what Docker does.
            expression += "\\" + (pattern[i : i + 1] or "\\")
            how, i = ("regex", i + 1) if i < len(pattern) else (how, i)
        elif char in "[]":
            expression, how = expression + char, "regex"
        elif char in "^-":
            expression += char
        else:
            expression += re.escape(char)
    if how == "exact":
        return lambda path: path == pattern
    if how == "prefix":
        return lambda path: path.startswith(pattern[:-2])
    if how == "suffix":
        end = pattern[2:]
        return lambda path: path.endswith(end) or path == end.removeprefix("/")
    compiled = re.compile(expression, re.DOTALL)
    return lambda path: compiled.fullmatch(path) is not None


class Ignore:
    """Decides for each path of a context whether it is left out.

    Args:
        patterns: as `read_patterns` returns them; a later one overrules an earlier one.
    """

    def __init__(self, patterns: Sequence[str]) -> None:
        self._patterns = [_Pattern(pattern) for pattern in patterns]

    def match(self, path: str, inherited: Inherited = ()) -> tuple[bool, Inherited]:
        """Whether a path is left out, and what its own children inherit.

        Args:
            path: relative to the context, with slashes.
            inherited: the second value this method returned for the folder it is in.
        """
        out, results = False, []
        for i, pattern in enumerate(self._patterns):
            hit = bool(inherited) and inherited[i]
            if not hit and pattern.negated == out:
                hit = pattern.matches(path)
            results.append(hit)
            if hit:
                out = not pattern.negated
        return out, tuple(results)

    def may_keep_inside(self, folder: str) -> bool:
        """Whether a «!» pattern could bring back something in a folder that is left out."""
        return any(
            not pattern.literal or f"{pattern.prefix}/".startswith(f"{folder}/")
            for pattern in self._patterns
            if pattern.negated
        )
