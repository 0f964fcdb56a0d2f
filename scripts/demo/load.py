"""A steady load on one address of this machine, while something else happens."""

from __future__ import annotations

import http.client
import threading
import time
from collections import Counter
from dataclasses import dataclass, field
from types import TracebackType
from typing import Self
from urllib.parse import urlsplit

CLIENTS = 4
PAUSE = 0.02
"""Seconds between two requests of one client: 4 of them make some 150 requests a second."""
MOST_REQUESTS = 20_000
"""For one client. The load ends by itself, whatever becomes of us."""
PATIENCE = 30.0
"""Seconds after which a request has failed."""


@dataclass
class Load:
    """Asks for a page again and again, and keeps count.

    with Load("http://127.0.0.1:8088/") as load:
        ...
    print(load.requests, load.failures)
    """

    url: str
    answers: Counter[str] = field(default_factory=Counter)
    """What was answered -> how often."""
    failures: Counter[str] = field(default_factory=Counter)
    """What went wrong -> how often."""
    slowest: float = 0.0
    """Seconds."""
    _enough: threading.Event = field(default_factory=threading.Event)
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _clients: list[threading.Thread] = field(default_factory=list)

    @property
    def requests(self) -> int:
        """How many were made."""
        return self.answers.total() + self.failures.total()

    def __enter__(self) -> Self:
        self._clients = [threading.Thread(target=self._ask, daemon=True) for _ in range(CLIENTS)]
        for client in self._clients:
            client.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._enough.set()
        for client in self._clients:
            client.join()

    def _ask(self) -> None:
        for _ in range(MOST_REQUESTS):
            started = time.monotonic()
            answer, failure = ask(self.url)
            with self._lock:
                self.slowest = max(self.slowest, time.monotonic() - started)
                if failure:
                    self.failures[failure] += 1
                else:
                    self.answers[answer] += 1
            if self._enough.wait(PAUSE):
                return


def ask(url: str) -> tuple[str, str]:
    """Get a page once: what was answered, and what went wrong, one of them empty."""
    address = urlsplit(url)
    connection = http.client.HTTPConnection(address.hostname or "", address.port, timeout=PATIENCE)
    try:
        connection.request("GET", address.path or "/")
        response = connection.getresponse()
        text = response.read().decode(errors="replace").strip()
    except (OSError, http.client.HTTPException) as error:
        return "", f"{type(error).__name__}: {error}"
    finally:
        connection.close()
    return (text, "") if response.status == 200 else ("", f"status {response.status}: {text}")
