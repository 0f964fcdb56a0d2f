"""What a container of a release would do: answer with a name, answer 500, or not answer at all."""

from __future__ import annotations

import itertools
import json
import threading
from collections.abc import Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

_NUMBERS = itertools.count(1)


class Container:
    """One that runs, at an address of its own on loopback.

    Args:
        name: what it answers.
        behaviour: `serve`, `sick` (answer 500), or `hang` (do not answer).
        port: where.
        data: what it read from its database, which it answers at /data.
    """

    def __init__(
        self, name: str, behaviour: str, port: int, data: Sequence[str] | None = None
    ) -> None:
        number = next(_NUMBERS)
        self.address = f"127.1.{number // 250}.{number % 250 + 1}"
        self._server: ThreadingHTTPServer | None = None
        if behaviour == "hang":
            return

        class Page(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                body = (json.dumps(data) if self.path == "/data" else name).encode()
                self.send_response(500 if behaviour == "sick" else 200)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: object) -> None:
                """Not in a test's output."""

        self._server = ThreadingHTTPServer((self.address, port), Page)
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()

    def stop(self) -> None:
        """It is gone: connections are refused."""
        if self._server is not None:
            self._server.shutdown()
            self._server.server_close()
