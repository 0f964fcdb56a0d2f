"""An HTTP proxy before a server that now and then fails as networks and services do.

with faulty("127.0.0.1:5000", rate=0.1, seed=1) as line:
    ...  # speak to line.url; line.injected says what went wrong, and the seed brings it back
"""

from __future__ import annotations

import http.client
import random
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Literal

from tests.services.certificates import Certificates, over_tls

Kind = Literal["reset", "lost", "503", "429"]
KINDS: tuple[Kind, ...] = ("reset", "lost", "503", "429")
"""The connection is cut before the request reached the server, or after it was carried out; the
server is not available; it asks for patience (Retry-After)."""
RETRY_AFTER = "1"
_ONE_HOP = {"connection", "keep-alive", "upgrade"}
"""Of a request, what is for the next machine alone (RFC 9110, 7.6.1): we speak plain HTTP on."""
_HOPS = {"connection", "keep-alive", "transfer-encoding", "content-length"}


@dataclass
class FaultyLine:
    """The proxy. Change `rate` while it runs."""

    server: str
    """Host and port."""
    rate: float
    """The part of all requests that fails."""
    random: random.Random
    tls: Certificates | None = None
    """What both it and the server speak TLS with; None: plain HTTP."""
    port: int = 0
    injected: list[str] = field(default_factory=list)
    """What went wrong so far: «lost POST /v1/apps»."""
    lock: threading.Lock = field(default_factory=threading.Lock)

    @property
    def host(self) -> str:
        """Where it listens."""
        return f"127.0.0.1:{self.port}"

    @property
    def url(self) -> str:
        """The same, with the scheme."""
        return f"{'https' if self.tls else 'http'}://{self.host}"

    def connect(self) -> http.client.HTTPConnection:
        """A connection to the server."""
        if self.tls is None:
            return http.client.HTTPConnection(self.server, timeout=30)
        trust = ssl.create_default_context(cafile=str(self.tls.ca))
        return http.client.HTTPSConnection(self.server, timeout=30, context=trust)

    def fault(self, request: str) -> Kind | None:
        """What happens to this request."""
        with self.lock:
            if self.random.random() >= self.rate:
                return None
            kind = self.random.choice(KINDS)
            self.injected.append(f"{kind} {request}")
            return kind


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    line: FaultyLine

    def log_message(self, format: str, *args: object) -> None:
        pass

    def _pass(self) -> None:
        body = self.rfile.read(int(self.headers.get("content-length") or 0))
        kind = self.line.fault(f"{self.command} {self.path}")
        if kind == "reset":
            self._cut()
        elif kind in ("503", "429"):
            more = [("retry-after", RETRY_AFTER)] if kind == "429" else []
            self._answer(int(kind), more, b"")
        else:
            status, headers, answer = self._ask(body)
            if kind == "lost":
                self._cut()
            else:
                self._answer(status, headers, answer)

    do_GET = do_HEAD = do_POST = do_PUT = do_PATCH = do_DELETE = _pass

    def _ask(self, body: bytes) -> tuple[int, list[tuple[str, str]], bytes]:
        to = self.line.connect()
        try:
            passed = {
                name: value for name, value in self.headers.items() if name.lower() not in _ONE_HOP
            }
            to.request(self.command, self.path, body, passed)
            answer = to.getresponse()
            return answer.status, answer.getheaders(), answer.read()
        finally:
            to.close()

    def _answer(self, status: int, headers: list[tuple[str, str]], body: bytes) -> None:
        self.send_response_only(status)
        for name, value in headers:
            if name.lower() not in _HOPS:
                self.send_header(name, value)
        # The answer to HEAD has the length of what it does not send.
        given = {name.lower(): value for name, value in headers}.get("content-length", "0")
        self.send_header("content-length", given if self.command == "HEAD" else str(len(body)))
        if not {"content-length", "transfer-encoding"} & {name.lower() for name, _ in headers}:
            self.close_connection = True  # the server's answer ends with its connection, so ours
        self.end_headers()
        self.wfile.write(body)

    def _cut(self) -> None:
        self.close_connection = True
        self.connection.close()


@contextmanager
def faulty(
    server: str, rate: float, seed: int, tls: Certificates | None = None
) -> Iterator[FaultyLine]:
    """A proxy for the length of the block.

    Args:
        server: host and port of what it stands before.
        rate: the part of all requests that fails, from 0 to 1.
        tls: the server's certificates, if it speaks TLS.
    """
    line = FaultyLine(server.removeprefix("http://"), rate, random.Random(seed), tls)
    listener = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"line": line}))
    listener.daemon_threads = True
    line.port = listener.server_port
    if tls is not None:
        over_tls(listener, tls)
    threading.Thread(target=listener.serve_forever, args=(0.02,), daemon=True).start()
    try:
        yield line
    finally:
        listener.shutdown()
        listener.server_close()
