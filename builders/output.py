"""The output of a build: line by line to the log, and at the end the error it amounts to."""

from __future__ import annotations

import queue
import re
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator

from builders.base import BuildJob
from builders.dockerfile import Dockerfile
from model.docker_errors import classify
from model.errors import BuildFailed, HelixError, NotFound, PlatformUnhealthy, Transient

_BEAT = 0.25
"""Seconds between two looks at whether the deployment is being cancelled."""

_ANSI = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")
_PLACE = re.compile(r"^\S+:(\d+)$")
_PARSE = re.compile(r"parse error (?:on )?line (\d+)")
_STEP = re.compile(r"^(?:#\d+ |Step \d+/\d+ : |\s*> )?(?:\[[^\]]*\d+/\d+\] )?([A-Z]+ .*?):?$")
_FAILED_STEP = re.compile(r"^#(\d+) ERROR", re.MULTILINE)
_NOISE = re.compile(
    r"^(?:ERROR:? |error: |rpc error: code = \w+ desc = |failed to (?:solve|build)[^:]*: "
    r"|failed to create LLB definition: |failed to build LLB: )"
)
_BUILT_WRONG = re.compile(
    r"did not complete|executor failed|returned a non-zero|cache key|(COPY|ADD) failed|parse error"
)
_NO_IMAGE = re.compile(r"pull access denied|repository does not exist|manifest unknown|not found")

_HINTS: dict[type[HelixError], str] = {
    PlatformUnhealthy: "see `helix doctor`",
    NotFound: "check the name and tag after FROM, and log in if the image is private",
    Transient: "the network or the registry of the base image did not answer",
}


class Output:
    """Takes the lines of one build.

    Args:
        job: gets each line; its secrets are blotted out first.
    """

    def __init__(self, job: BuildJob) -> None:
        values = [value.get_secret_value() for value in job.secrets.values()]
        values += [password.get_secret_value() for _, password in job.logins.values()]
        parts = {part for value in values for part in (value, *value.splitlines()) if len(part) > 3}
        self._secrets = sorted(parts, key=len, reverse=True)
        self._job = job
        self.tail: deque[str] = deque(maxlen=200)

    def line(self, text: str) -> None:
        """Keep a line, and pass it on."""
        text = _ANSI.sub("", text.rstrip("\r\n"))
        for secret in self._secrets:
            text = text.replace(secret, "***")
        if text.strip():
            self.tail.append(text)
            self._job.log(text)

    def error(self, said: str = "") -> HelixError:
        """The error that the build ended with.

        Args:
            said: what the engine gave as the reason; found in the last lines if empty.
        """
        if said and not any(said.strip() in line for line in self.tail):
            self.line(f"ERROR: {said}")
        lines = list(self.tail)
        reason = said or next(
            (line for line in reversed(lines) if re.match(r"(?i)error\b|failed to", line)),
            lines[-1] if lines else "it said nothing",
        )
        evidence = "\n".join(lines)
        if (full := re.search(r".*no space left on device.*", evidence)) is not None:
            return PlatformUnhealthy(
                f"the disk of the engine is full: {_short(full[0])}",
                hint="free some with `docker system df` and `docker builder prune`",
                evidence=evidence,
            )
        if _BUILT_WRONG.search(reason):
            where = self._where(reason, lines)
            return BuildFailed(f"the build failed{where}: {_short(reason)}", evidence=evidence)
        base = _base(evidence)
        cls = classify(reason, default=BuildFailed)
        if base and _NO_IMAGE.search(reason):
            cls = NotFound
        if cls is BuildFailed:
            where = self._where(reason, lines)
            return cls(f"the build failed{where}: {_short(reason)}", evidence=evidence)
        what = f"the base image {base} cannot be fetched" if base else "the build was cut short"
        return cls(f"{what}: {_short(reason)}", hint=_HINTS.get(cls, ""), evidence=evidence)

    def _where(self, reason: str, lines: list[str]) -> str:
        """« at Dockerfile line 3 (RUN false)», as far as the output shows it."""
        dockerfile = Dockerfile(_dockerfile_text(self._job))
        if match := _PARSE.search(reason):
            return self._at(dockerfile, int(match[1]))
        for i in range(len(lines) - 1, 0, -1):
            place = _PLACE.match(lines[i - 1])
            if place and lines[i].startswith("-----"):
                return self._at(dockerfile, int(place[1]))
        for line in reversed(lines):
            step = _STEP.match(line)
            number = dockerfile.line_of(step[1]) if step else None
            if number is not None:
                return self._at(dockerfile, number)
        return ""

    def _at(self, dockerfile: Dockerfile, number: int) -> str:
        found = [item for item in dockerfile.instructions() if item.line <= number]
        quoted = f" ({_short(f'{found[-1].name} {found[-1].text}', 60)})" if found else ""
        return f" at {self._job.settings.dockerfile} line {number}{quoted}"


def attended(lines: Iterable[str], beat: Callable[[], None]) -> Iterator[str]:
    """The lines of a source that blocks, with a beat several times a second while it does.

    The source is read in a thread of its own, so that a cancel is heard during a silent build.
    """
    end = object()
    found: queue.Queue[object] = queue.Queue(maxsize=1000)
    gone = threading.Event()

    def pump() -> None:
        last: object = end
        try:
            for line in lines:
                if gone.is_set():
                    return
                found.put(line)
        except BaseException as error:  # handed over: it belongs to whoever consumes the lines
            last = error
        finally:
            found.put(last)

    threading.Thread(target=pump, daemon=True).start()
    try:
        while True:
            beat()
            try:
                line = found.get(timeout=_BEAT)
            except queue.Empty:
                continue
            if line is end:
                return
            if isinstance(line, BaseException):
                raise line
            yield str(line)
    finally:
        gone.set()
        while not found.empty():  # a pump that waits for room must not wait for ever
            found.get_nowait()


def _dockerfile_text(job: BuildJob) -> str:
    try:
        return (job.context / job.settings.dockerfile).read_text(errors="replace")
    except OSError:
        return ""


def _base(evidence: str) -> str:
    """The image that could not be resolved, or the empty string."""
    for number in _FAILED_STEP.findall(evidence):
        if match := re.search(rf"^#{number} .*load metadata for (\S+)", evidence, re.MULTILINE):
            return match[1]
    return ""


def _short(text: str, width: int = 300) -> str:
    text = " ".join(text.split())
    while match := _NOISE.match(text):
        text = text[match.end() :]
    return text if len(text) <= width else text[: width - 1] + "…"
