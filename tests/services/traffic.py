"""A steady, bounded loop of requests against a loopback address, and what became of each."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import httpx


@dataclass
class Traffic:
    """What was seen so far."""

    answers: Counter[str] = field(default_factory=Counter)
    """Body, or what went wrong -> how often."""
    failed: list[str] = field(default_factory=list)
    requests: int = 0
    slowest: float = 0

    def seen(self, text: str) -> bool:
        """Whether any good answer contained the text."""
        return any(text in body for body in self.answers)


@contextmanager
def traffic(
    url: str, *, clients: int = 2, per_second: float = 50, method: str = "GET", limit: float = 240
) -> Iterator[Traffic]:
    """Send requests for as long as the block runs, at most `limit` seconds."""
    assert url.startswith("http://127.0.0.1:"), "loopback only"
    found, stop, lock = Traffic(), threading.Event(), threading.Lock()
    deadline = time.monotonic() + limit

    def ask() -> None:
        # A new connection each time: what a browser that just arrives would see.
        while not stop.wait(clients / per_second) and time.monotonic() < deadline:
            began = time.monotonic()
            try:
                answer = httpx.request(method, url, timeout=60, content=b"x" * 100)
                good, text = answer.status_code == 200, answer.text
                problem = "" if good else f"{answer.status_code} {answer.text[:80]}"
            except httpx.HTTPError as error:
                good, text, problem = False, "", f"{type(error).__name__}: {error}"
            with lock:
                found.requests += 1
                found.slowest = max(found.slowest, time.monotonic() - began)
                if good:
                    found.answers[text] += 1
                else:
                    took = time.monotonic() - began
                    found.failed.append(f"{time.time():.3f} after {took:.3f} s: {problem}")

    threads = [threading.Thread(target=ask, daemon=True) for _ in range(clients)]
    for thread in threads:
        thread.start()
    try:
        yield found
    finally:
        stop.set()
        for thread in threads:
            thread.join()
