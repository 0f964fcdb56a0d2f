"""What the pods of a release printed, oldest first."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from datetime import datetime, timedelta
from typing import Any

from model.errors import ConfigurationError, HelixError, NotFound, Transient
from providers.kubernetes_api import Api
from providers.kubernetes_objects import CONTAINER

Json = dict[str, Any]
Line = tuple[datetime, str]

FOLLOW_SECONDS = 1.0
"""Between two looks for new lines, and for pods that have come since."""
SLACK = timedelta(seconds=2)
"""A look goes back so far behind the last line: the API takes whole seconds only."""


class Logs:
    """The lines of some pods.

    Args:
        pods: looks them up, again at each look: a crashed one is replaced by another.
    """

    def __init__(self, api: Api, pods: Callable[[], list[Json]]) -> None:
        self._api = api
        self._pods = pods

    def read(self, since: datetime | None, tail: int | None, follow: bool) -> Iterator[str]:
        """Lines, oldest first; with `follow`, new ones as they come."""
        seen: dict[str, datetime] = {}
        lines = [one for one in self._look(seen, since) if since is None or one[0] >= since]
        lines = lines if tail is None else lines[len(lines) - min(tail, len(lines)) :]
        yield from (text for _, text in lines)
        while follow:
            time.sleep(FOLLOW_SECONDS)
            yield from (text for _, text in self._look(seen, since))

    def last_words(self, pod: str, lines: int) -> str:
        """The end of what one pod printed, above all before it crashed; nothing if it cannot be
        had, as it is only evidence."""
        for previous in (True, False):
            with suppress(HelixError):
                found = self._read(pod, previous=previous, tail_lines=lines)
                if found:
                    return "\n".join(text for _, text in found)
        return ""

    def _look(self, seen: dict[str, datetime], since: datetime | None) -> list[Line]:
        """What is new since the last look. Updates `seen`, by pod."""
        found: list[Line] = []
        for pod in self._pods():
            name, uid = pod["metadata"]["name"], pod["metadata"]["uid"]
            after = seen.get(uid)
            start = after - SLACK if after else since
            options: dict[str, Any] = {}
            if start is not None:
                age = (self._api.now - start).total_seconds()
                options["since_seconds"] = max(1, int(age) + 1)
            try:
                lines = self._read(name, **options)
            except (ConfigurationError, NotFound, Transient):
                continue  # it has not started, or is gone; the others go on
            fresh = [line for line in lines if after is None or line[0] > after]
            if fresh:
                seen[uid] = fresh[-1][0]
            found += fresh
        return sorted(found, key=lambda line: line[0])

    def _read(self, pod: str, **options: Any) -> list[Line]:
        text = self._api.log(pod, container=CONTAINER, timestamps=True, **options)
        return [_line(one) for one in text.splitlines()]


def _line(raw: str) -> Line:
    stamp, _, text = raw.partition(" ")
    return datetime.fromisoformat(stamp), text
