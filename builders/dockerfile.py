"""Reads from a Dockerfile what a builder must know before it starts.

No full parser: it finds the features that only some builders have, the images it is based on, and
what it copies out of the context.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

FEATURES = {
    "mount": "RUN --mount",
    "secret": "RUN --mount=type=secret or ssh",
    "heredoc": "a here-document",
    "chmod": "COPY --chmod",
    "link": "COPY --link",
    "syntax": "a «# syntax=» line",
}
"""Feature -> how it looks in a Dockerfile."""

_DIRECTIVE = re.compile(r"^#\s*([a-zA-Z]+)\s*=\s*(\S+)\s*$")
_HEREDOC = re.compile(r"(?:^|\s)\d*<<-?([\"']?)([A-Za-z_][\w.]*)\1(?=\s|$)")
_VARIABLE = re.compile(r"\$(?:(\w+)|\{(\w+)(?::([-+])([^{}]*))?\})")
_FLAG = re.compile(r"--([a-z-]+)(?:=(\S*))?\s+")
_FROM = re.compile(r"^(\S+)(?:\s+as\s+(\S+))?\s*$", re.IGNORECASE)
_MOUNT = re.compile(r"--mount=(\S+)")


@dataclass(frozen=True)
class Instruction:
    """One instruction, continuation lines joined."""

    line: int
    """The line it begins on, from 1."""
    name: str
    """Upper case."""
    text: str
    """What follows the name."""


@dataclass
class _Stage:
    name: str
    base: str
    uses: set[str] = field(default_factory=set)


@dataclass(frozen=True)
class Dockerfile:
    """What a Dockerfile needs.

    Args:
        text: the whole file.
    """

    text: str

    @property
    def syntax(self) -> str:
        """The frontend image of its `# syntax=` line, or the empty string."""
        return dict(_directives(self.text)).get("syntax", "")

    @property
    def without_syntax(self) -> str:
        """The same file for the engine's own frontend, line numbers kept."""
        return re.sub(
            r"(?im)\A((?:\ufeff)?(?:#.*\n)*?)#\s*syntax\s*=.*$", r"\1#", self.text, count=1
        )

    def instructions(self) -> Iterator[Instruction]:
        """The instructions in order; here-documents and comments are passed over."""
        escape = dict(_directives(self.text)).get("escape", "\\")
        lines = self.text.removeprefix("\ufeff").splitlines()
        i = 0
        while i < len(lines):
            start, joined = i, ""
            while i < len(lines):
                line = lines[i].strip()
                i += 1
                if line.startswith("#") or not line:
                    continue
                start = start if joined else i - 1
                joined += line.removesuffix(escape)
                if not line.endswith(escape):
                    break
                joined = joined.rstrip() + " "
            name, _, text = joined.strip().partition(" ")
            if not name:
                continue
            instruction = Instruction(start + 1, name.upper(), text.strip())
            for word in _heredocs(instruction):
                while i < len(lines) and lines[i].lstrip("\t") != word:
                    i += 1
                i += 1
            yield instruction

    @property
    def features(self) -> frozenset[str]:
        """The names of `FEATURES` it uses."""
        found = {"syntax"} if self.syntax else set()
        for instruction in self.instructions():
            flags = dict(_flags(instruction.text)[0])
            if instruction.name == "RUN":
                mounts = _MOUNT.findall(instruction.text)
                found |= {"mount"} if mounts else set()
                found |= (
                    {"secret"} if any(re.search(r"type=(secret|ssh)", m) for m in mounts) else set()
                )
            elif instruction.name in ("COPY", "ADD"):
                found |= {"chmod", "link"} & flags.keys()
            if _heredocs(instruction):
                found.add("heredoc")
        return frozenset(found)

    def bases(self, args: Mapping[str, str], target: str = "") -> list[str]:
        """The images that building a stage takes from outside, in order, each once.

        Args:
            args: build arguments, which overrule the defaults of `ARG`.
            target: the stage; the last one if empty.
        """
        stages = self._stages(args)
        if not stages:
            return []
        index = {stage.name.lower(): stage for stage in stages if stage.name}
        index |= {str(number): stage for number, stage in enumerate(stages)}
        found: list[str] = []
        todo, done = [index.get(target.lower(), stages[-1])], []
        while todo:
            stage = todo.pop()
            done.append(stage)
            for name in (stage.base, *sorted(stage.uses)):
                other = index.get(name.lower())
                if other is None or other is stage:
                    if name and name != "scratch" and name not in found:
                        found.append(name)
                elif other not in done:
                    todo.append(other)
        return found

    def copies(self) -> Iterator[tuple[int, str]]:
        """Line and path of each plain file or folder that is copied from the context: no URL, no
        pattern, no variable, nothing from another stage."""
        for instruction in self.instructions():
            if instruction.name not in ("COPY", "ADD") or _heredocs(instruction):
                continue
            flags, rest = _flags(instruction.text)
            if rest.startswith("[") or any(flag == "from" for flag, _ in flags):
                continue
            for path in rest.split()[:-1]:
                if not re.search(r"[*?\[\]$\\\"']|://|^git@", path):
                    yield instruction.line, posixpath.normpath(path.lstrip("/") or ".")

    def line_of(self, text: str) -> int | None:
        """The line of the instruction that a builder quotes, or None if none is alike."""
        wanted = " ".join(text.split()).lower()
        for instruction in self.instructions():
            own = " ".join(f"{instruction.name} {instruction.text}".split()).lower()
            if wanted and (own == wanted or own.startswith(wanted)):
                return instruction.line
        return None

    def _stages(self, args: Mapping[str, str]) -> list[_Stage]:
        known: dict[str, str] = {}
        stages: list[_Stage] = []
        for instruction in self.instructions():
            if instruction.name == "ARG" and not stages:
                for word in instruction.text.split():
                    name, _, default = word.partition("=")
                    known[name] = args.get(name, _resolve(default.strip("\"'"), known))
            elif instruction.name == "FROM":
                _, rest = _flags(instruction.text)
                if match := _FROM.match(rest):
                    base = _resolve(match[1].strip("\"'"), known)
                    stages.append(_Stage(match[2] or "", base))
            elif stages:
                flags, _ = _flags(instruction.text)
                uses = [value for flag, value in flags if flag == "from"]
                for mount in _MOUNT.findall(instruction.text):
                    uses += re.findall(r"(?:^|,)from=([^,]+)", mount)
                stages[-1].uses |= {use for use in uses if use and "$" not in use}
        return stages


def _directives(text: str) -> Iterator[tuple[str, str]]:
    """Parser directives: comments of the form `# name=value` before anything else."""
    for line in text.removeprefix("\ufeff").splitlines():
        match = _DIRECTIVE.match(line.strip())
        if match is None:
            return
        yield match[1].lower(), match[2]


def _flags(text: str) -> tuple[list[tuple[str, str]], str]:
    """The flags an instruction begins with, and the rest."""
    flags = []
    while match := _FLAG.match(text):
        flags.append((match[1], match[2] or ""))
        text = text[match.end() :]
    return flags, text


def _heredocs(instruction: Instruction) -> list[str]:
    """The words that end the here-documents of an instruction."""
    if instruction.name not in ("RUN", "COPY", "ADD"):
        return []
    return [match[1] for match in _HEREDOC.findall(instruction.text)]


def _resolve(text: str, known: Mapping[str, str]) -> str:
    """Put in the values of variables; an unknown one is empty, as for Docker."""

    def value(match: re.Match[str]) -> str:
        found = known.get(match[1] or match[2], "")
        if match[3] == "-":
            return found or match[4]
        if match[3] == "+":
            return match[4] if found else ""
        return found

    return _VARIABLE.sub(value, text)
