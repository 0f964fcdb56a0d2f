"""A server of one answer: whatever is asked, it refuses it as it is told to."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from tests.services.certificates import Certificates, over_tls


@dataclass
class Refusing:
    """The server, while it runs. Change its answer at any time."""

    host: str
    """Host and port."""
    status: int = 503
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""
    lets_in: int = 0
    """How many requests with credentials are answered by 404 first. One without is asked for
    them."""
    only: str = ""
    """Refuse this method only: nothing is there for HEAD then, and an empty object for GET."""
    admits: dict[str, bytes] = field(default_factory=dict)
    """The beginnings of paths -> what is answered there instead, such as to a ping."""
    calls: list[str] = field(default_factory=list)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server_of: Refusing

    def log_message(self, format: str, *args: object) -> None:
        pass

    def _refuse(self) -> None:
        said = self.server_of
        self.rfile.read(int(self.headers.get("content-length") or 0))
        said.calls.append(f"{self.command} {self.path}")
        status, body = said.status, said.body
        if said.only not in ("", self.command):
            status, body = (404, b"") if self.command == "HEAD" else (200, b"{}")
        for begin, content in said.admits.items():
            if self.path.startswith(begin):
                status, body = 200, content
        headers = said.headers
        if said.lets_in:
            known = "authorization" in self.headers
            said.lets_in -= known
            status, body = (404, b"") if known else (401, b"")
            headers = {"www-authenticate": 'Basic realm="here"'}
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    do_GET = do_HEAD = do_POST = do_PUT = do_PATCH = do_DELETE = _refuse


@contextmanager
def refusing(tls: Certificates | None = None) -> Iterator[Refusing]:
    """Run it for the length of the block.

    Args:
        tls: the certificates it speaks TLS with; None: plain HTTP.
    """
    found = Refusing("")
    listener = ThreadingHTTPServer(
        ("127.0.0.1", 0), type("Handler", (_Handler,), {"server_of": found})
    )
    listener.daemon_threads = True
    found.host = f"127.0.0.1:{listener.server_port}"
    if tls is not None:
        over_tls(listener, tls)
    threading.Thread(target=listener.serve_forever, args=(0.02,), daemon=True).start()
    try:
        yield found
    finally:
        listener.shutdown()
        listener.server_close()
