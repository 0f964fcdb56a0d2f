"""The log lines of one Fly machine, by the pages of Fly's API."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime

from providers.fly_api import FlyApi, Json


class LogReader:
    """Reads on from where it was.

    Args:
        machine: the machine's id.
        since: older lines are left out; none if None.
    """

    def __init__(self, api: FlyApi, machine: str, since: datetime | None = None) -> None:
        self._api = api
        self._machine = machine
        self._since = since
        self._token = ""

    def new(self) -> Iterator[str]:
        """The lines that came since the last call, oldest first; all there are at the first."""
        while True:
            query = {"instance": self._machine}
            if self._token:
                query["next_token"] = self._token
            lines, following = self._api.logs(query)
            yield from (
                str(line.get("message", "")).rstrip("\r\n")
                for line in lines
                if self._is_wanted(line)
            )
            if not lines or following in ("", self._token):
                return
            self._token = following

    def _is_wanted(self, line: Json) -> bool:
        if self._since is None:
            return True
        try:
            at = datetime.fromisoformat(str(line.get("timestamp", "")))
        except ValueError:
            return True
        return at.timestamp() >= self._since.timestamp()
