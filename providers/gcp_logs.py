"""What a Cloud Run revision printed, read from Cloud Logging."""

from __future__ import annotations

import time
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

from google.cloud.logging_v2.types import ListLogEntriesRequest
from google.protobuf.json_format import MessageToJson

from providers.gcp_api import Api

PAGE = 200
FOLLOW_SECONDS = 2.0
"""Between two looks for new entries: Cloud Logging allows 60 reads a minute."""
REMEMBERED = 2000
"""How many entries are known again when they are read twice."""


class Logs:
    """The entries of one service's containers.

    Args:
        revision: only of this one; all of them if empty.
    """

    def __init__(self, api: Api, project: str, region: str, service: str, revision: str) -> None:
        self._api = api
        self._project = project
        wanted = {
            "resource.type": "cloud_run_revision",
            "resource.labels.location": region,
            "resource.labels.service_name": service,
            **({"resource.labels.revision_name": revision} if revision else {}),
        }
        self._filter = " AND ".join(f'{key}="{value}"' for key, value in wanted.items())

    def tail(self, lines: int) -> list[str]:
        """The last lines, oldest first."""
        return [_line(entry) for entry in self._last(lines)]

    def read(self, since: datetime | None, tail: int | None, follow: bool) -> Iterator[str]:
        """Lines, oldest first; with `follow`, new ones as they come."""
        if since is not None and tail is None:
            entries = list(self._since(since))
        else:
            entries = [
                entry
                for entry in self._last(PAGE if tail is None else tail)
                if since is None or entry.timestamp >= since
            ]
        yield from map(_line, entries)
        seen = [entry.insert_id for entry in entries]
        at = entries[-1].timestamp if entries else since or datetime.now(UTC)
        while follow:
            time.sleep(FOLLOW_SECONDS)
            for entry in self._since(at):
                if entry.insert_id not in seen:
                    yield _line(entry)
                    seen = [*seen[-REMEMBERED:], entry.insert_id]
                at = max(at, entry.timestamp)

    def _last(self, count: int) -> list[Any]:
        if count <= 0:
            return []
        request = self._request("timestamp desc", self._filter, count)
        page = self._api.page(self._api.logs.list_log_entries, request, "logging.logEntries.list")
        return list(reversed(page.entries))[-count:]

    def _since(self, since: datetime) -> list[Any]:
        moment = since.astimezone(UTC).isoformat().replace("+00:00", "Z")
        request = self._request("timestamp asc", f'{self._filter} AND timestamp>="{moment}"', PAGE)
        found: list[Any] = self._api.read(
            self._api.logs.list_log_entries, request, "logging.logEntries.list"
        )
        return found

    def _request(self, order: str, wanted: str, size: int) -> ListLogEntriesRequest:
        return ListLogEntriesRequest(
            resource_names=[f"projects/{self._project}"],
            filter=wanted,
            order_by=order,
            page_size=min(size, 1000),
        )


def _line(entry: Any) -> str:
    if entry.text_payload:
        return str(entry.text_payload).rstrip("\r\n")
    pb = type(entry).pb(entry)
    if pb.HasField("json_payload"):
        return str(MessageToJson(pb.json_payload, indent=None))
    http = entry.http_request
    return f"{http.request_method} {http.status} {http.request_url}".strip()
