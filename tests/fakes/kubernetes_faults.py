"""A proxy before a real API server, which fails when it is told to.

with FaultyServer(cluster) as server:
    server.next(503, "PATCH", "/deployments/")
    server.next(504, "POST", "/secrets", lost=True)   # carried out, and the answer is lost

It speaks plain HTTP and no WebSocket: what goes through it cannot forward ports.
"""

from __future__ import annotations

import json
import ssl
import threading
from contextlib import suppress
from dataclasses import dataclass, field
from http.client import HTTPSConnection
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from tests.services.control_plane import Cluster

REASONS = {
    401: "Unauthorized",
    403: "Forbidden",
    409: "Conflict",
    429: "TooManyRequests",
    500: "InternalError",
    503: "ServiceUnavailable",
    504: "Timeout",
}
HOP = {"transfer-encoding", "connection", "content-length", "host", "date", "server"}
"""Headers that are not passed on."""


@dataclass
class Fault:
    """One failure to come."""

    status: int
    """0: the connection breaks."""
    method: str
    part: str
    """Of the path."""
    lost: bool = False
    """The call is carried out before it fails."""
    headers: dict[str, str] = field(default_factory=dict)
    message: str = "injected"


class FaultyServer:
    """Listens on loopback for the length of a block."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster
        self._lock = threading.Lock()
        self.faults: list[Fault] = []
        self.trusted = ssl.create_default_context(cafile=str(cluster.certificates.ca))

    def __enter__(self) -> FaultyServer:
        class Handler(_Handler):
            owner = self

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()

    @property
    def port(self) -> int:
        """Of the real server."""
        return self._cluster.port

    def next(
        self,
        status: int,
        method: str = "",
        part: str = "",
        *,
        lost: bool = False,
        headers: dict[str, str] | None = None,
        message: str = "injected",
    ) -> None:
        """Let the next call of that method and path fail."""
        self.faults.append(Fault(status, method, part, lost, headers or {}, message))

    def take(self, method: str, path: str) -> Fault | None:
        """The fault of this call, if it has one."""
        with self._lock:
            for fault in self.faults:
                if fault.method in ("", method) and fault.part in path:
                    self.faults.remove(fault)
                    return fault
            return None


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    owner: FaultyServer

    def log_message(self, *_: object) -> None:
        """Not in a test's output."""

    def _pass_on(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        fault = self.owner.take(self.command, self.path)
        if fault is not None and not fault.lost:
            self._fail(fault)
            return
        headers = {key: value for key, value in self.headers.items() if key.lower() not in HOP}
        server = HTTPSConnection(
            "127.0.0.1", self.owner.port, context=self.owner.trusted, timeout=20
        )
        try:
            server.request(self.command, self.path, body=body or None, headers=headers)
            answer = server.getresponse()
            data = answer.read()
        finally:
            server.close()
        if fault is not None:
            self._fail(fault)
            return
        passed = {key: value for key, value in answer.getheaders() if key.lower() not in HOP}
        self._answer(answer.status, data, passed)

    do_GET = do_POST = do_PATCH = do_PUT = do_DELETE = _pass_on

    def _fail(self, fault: Fault) -> None:
        if fault.status == 0:
            self.close_connection = True
            return
        status = {
            "kind": "Status",
            "apiVersion": "v1",
            "status": "Failure",
            "reason": REASONS.get(fault.status, ""),
            "message": fault.message,
            "code": fault.status,
        }
        headers = {"Content-Type": "application/json", "Audit-Id": "audit-7", **fault.headers}
        self._answer(fault.status, json.dumps(status).encode(), headers)

    def _answer(self, status: int, data: bytes, headers: dict[str, str]) -> None:
        with suppress(OSError):
            self.send_response(status)
            for key, value in headers.items():
                self.send_header(key, value)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)
