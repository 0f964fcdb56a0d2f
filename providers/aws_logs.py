"""The lines of a release, from CloudWatch Logs."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterator
from contextlib import suppress
from datetime import datetime
from typing import Any

from model.errors import Conflict, NotFound
from providers.aws_api import AwsApi

PAUSE = 2.0
"""Seconds between two looks for new lines."""


class LogGroup:
    """The log group of one service; each release has streams of its own in it."""

    def __init__(self, api: AwsApi, service: str) -> None:
        self._api = api
        self.name = f"/helix/{service}"

    def ensure(self) -> None:
        """Create it, or find it."""
        with suppress(Conflict):
            self._api("logs", "create_log_group", logGroupName=self.name)

    def delete(self) -> None:
        """Delete it with all lines, if it is there."""
        with suppress(NotFound):
            self._api("logs", "delete_log_group", logGroupName=self.name)

    def lines(
        self, stream: str, since: datetime | None, tail: int | None, follow: bool = False
    ) -> Iterator[str]:
        """The lines of the streams with this prefix, oldest first; none if there are none.

        Args:
            stream: the prefix of a release's streams.
            since: only later ones.
            tail: only so many, the last.
            follow: go on for ever with what comes.
        """
        start = int(since.timestamp() * 1000) if since else 0
        found = deque(self._events(stream, start), maxlen=tail)
        yield from (one["message"].rstrip("\n") for one in found)
        seen = {one["eventId"] for one in found}
        while follow:
            time.sleep(PAUSE)
            # The last second is asked for again: lines may come out of order.
            start = max((one["timestamp"] for one in found), default=start + 1000) - 1000
            found = deque(self._events(stream, start))
            for one in found:
                if one["eventId"] not in seen:
                    seen.add(one["eventId"])
                    yield one["message"].rstrip("\n")

    def _events(self, stream: str, start: int) -> Iterator[dict[str, Any]]:
        arguments: dict[str, Any] = {"startTime": start} if start > 0 else {}
        with suppress(NotFound):
            yield from self._api.pages(
                "logs",
                "filter_log_events",
                "events",
                logGroupName=self.name,
                logStreamNamePrefix=f"{stream}/",
                **arguments,
            )
