"""An HTTP server that takes what it is sent, keeps it, and answers as it is told."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


@dataclass
class Message:
    """One request."""

    path: str
    headers: dict[str, str]
    """Their names in lower case."""
    body: bytes
    answered: int


@dataclass
class Receiver:
    """A receiver that runs."""

    port: int = 0
    messages: list[Message] = field(default_factory=list)
    answers: list[tuple[int, dict[str, str]]] = field(default_factory=list)
    """Status and headers of the next answers; 204 without any when there are none left."""

    def url(self, path: str) -> str:
        """Where to post."""
        return f"http://127.0.0.1:{self.port}{path}"

    def taken(self, path: str) -> list[Message]:
        """What came to a path and was answered kindly."""
        return [one for one in self.messages if one.path == path and one.answered < 300]


@contextmanager
def receiver() -> Iterator[Receiver]:
    """A receiver on a loopback port."""
    found = Receiver()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length", "0")))
            status, headers = found.answers.pop(0) if found.answers else (204, {})
            lowered = {name.lower(): value for name, value in self.headers.items()}
            found.messages.append(Message(self.path, lowered, body, status))
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, format: str, *args: Any) -> None:
            """Nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    found.port = server.server_address[1]
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield found
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
