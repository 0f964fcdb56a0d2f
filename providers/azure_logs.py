"""What an app's containers print, from the stream that each of them has.

The stream is that of `az containerapp logs show`: lines of JSON, at most 300 of what was, then what
comes. A container that scaled to zero has none; what it printed is in the environment's Log
Analytics workspace, some minutes later.
"""

from __future__ import annotations

import json
import queue
import threading
from collections.abc import Iterable, Iterator
from contextlib import suppress
from datetime import UTC, datetime
from typing import NamedTuple

import httpx
from azure.mgmt.appcontainers import models as az

from model.errors import HelixError, PermissionDenied, Throttled, Transient
from providers.azure_calls import App

TAIL = 300
"""Lines of the past that Azure gives at most."""
CONNECT_SECONDS = 10.0
READ_SECONDS = 10.0
"""Without `follow`, for the next line."""


class Line(NamedTuple):
    """One line of one container."""

    at: datetime
    text: str


class Logs:
    """The output of some replicas of an app."""

    def __init__(self, app: App, replicas: Iterable[az.Replica]) -> None:
        self._app = app
        self._streams = [
            str(one.log_stream_endpoint)
            for replica in replicas
            for one in (replica.properties.containers if replica.properties else None) or ()
            if one.log_stream_endpoint
        ]

    def tail(self, lines: int) -> list[str]:
        """The last lines of all, oldest first."""
        return [one.text for one in self._past(min(lines, TAIL))][-lines:] if lines > 0 else []

    def read(self, since: datetime | None, tail: int | None, follow: bool) -> Iterator[str]:
        """Lines, oldest first; with `follow`, new ones as they come."""
        count = TAIL if tail is None else min(tail, TAIL)
        if follow:
            lines: Iterable[Line] = self._coming(count)
        else:
            lines = self._past(count)[-count:] if count > 0 else []
        yield from (one.text for one in lines if since is None or one.at >= since)

    def _past(self, count: int) -> list[Line]:
        headers = self._headers()
        found = [
            line for url in self._streams for line in _stream(url, headers, count, follow=False)
        ]
        return sorted(found, key=lambda line: line.at)

    def _coming(self, count: int) -> Iterator[Line]:
        """All streams at once, a thread each; the first that breaks ends it."""
        arrived: queue.Queue[Line | HelixError | None] = queue.Queue()
        headers = self._headers()

        def listen(url: str) -> None:
            try:
                for line in _stream(url, headers, count, follow=True):
                    arrived.put(line)
            except HelixError as error:
                arrived.put(error)
            else:
                arrived.put(None)

        for url in self._streams:
            threading.Thread(target=listen, args=(url,), daemon=True).start()
        ended = 0
        while ended < len(self._streams):
            line = arrived.get()
            if isinstance(line, HelixError):
                raise line
            if line is None:
                ended += 1
            else:
                yield line

    def _headers(self) -> dict[str, str]:
        if not self._streams:
            return {}
        return {"authorization": f"Bearer {self._app.stream_token()}"}


def _stream(url: str, headers: dict[str, str], count: int, *, follow: bool) -> Iterator[Line]:
    query = {"follow": str(follow).lower(), "output": "json", "tailLines": str(count)}
    timeout = httpx.Timeout(CONNECT_SECONDS, read=None if follow else READ_SECONDS)
    try:
        with httpx.stream("GET", url, params=query, headers=headers, timeout=timeout) as response:
            if response.is_error:
                raise _refused(response.status_code)
            for line in response.iter_lines():
                if line.strip():
                    yield _line(line)
    except httpx.HTTPError as error:
        raise Transient(f"the log stream broke: {type(error).__name__}") from None


def _refused(status: int) -> HelixError:
    cls = {401: PermissionDenied, 403: PermissionDenied, 429: Throttled}.get(status, Transient)
    return cls(f"the log stream answers {status}")


def _line(raw: str) -> Line:
    """`{"TimeStamp": "…", "Log": "F the text"}`; what is not like it is passed on as it is."""
    with suppress(ValueError, KeyError, TypeError):
        said = json.loads(raw)
        at = datetime.fromisoformat(str(said["TimeStamp"])[:26].rstrip("Z"))
        # The container runtime puts «F» before a full line, and «P» before a part of one.
        text = str(said["Log"]).removeprefix("F ").removeprefix("P ")
        return Line(at.replace(tzinfo=at.tzinfo or UTC), text.rstrip("\r\n"))
    return Line(datetime.now(UTC), raw.rstrip("\r\n"))
