"""A small HTTP endpoint that says whether this worker lives and takes work.

    GET /healthz   200 while the worker's event loop answers, else 503
    GET /readyz    200 while it also takes new work, 503 from the first SIGTERM on

The answer is a JSON object, and so is the file `health-<pid>.json` in the state folder, which says
where the endpoint is while the worker runs.
"""

from __future__ import annotations

import asyncio
import json
import os
import threading
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from socket import AF_INET, AF_INET6
from types import TracebackType
from typing import Any, Self

from model.errors import ConfigurationError
from worker.paths import write_private
from worker.settings import Settings

LOOP_SECONDS = 2.0
"""How long the event loop may take to answer before the worker counts as stuck."""


class HealthServer:
    """The endpoint, for the length of a `with` block inside the worker's event loop.

    Args:
        stop: set once the worker is to end.

    Raises:
        ConfigurationError: HELIX_HEALTH_ADDRESS cannot be listened on.
    """

    def __init__(self, settings: Settings, stop: asyncio.Event) -> None:
        self._settings = settings
        self._stop = stop
        self._file = settings.state_dir / f"health-{os.getpid()}.json"

    def __enter__(self) -> Self:
        self._loop = asyncio.get_running_loop()
        address = self._settings.health_address
        host, _, port = address.rpartition(":")
        host = host.strip("[]")
        health = self

        class Handler(BaseHTTPRequestHandler):
            """Answers from the health server that made it."""

            def do_GET(self) -> None:
                status, answer = health.answer(self.path.partition("?")[0])
                body = json.dumps(answer).encode()
                self.send_response(status)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, format: str, *args: Any) -> None:
                """Probes come every few seconds: nothing worth a line."""

        class Server(ThreadingHTTPServer):
            address_family = AF_INET6 if ":" in host else AF_INET
            daemon_threads = True

        try:
            self._server = Server((host, int(port)), Handler)
        except OSError as error:
            raise ConfigurationError(
                f"the health endpoint cannot listen on {address}: {error.strerror}",
                hint="choose another HELIX_HEALTH_ADDRESS; port 0 takes a free one",
            ) from None
        self.port: int = self._server.server_address[1]
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)
        self._thread.start()
        write_private(
            self._file,
            json.dumps({"pid": os.getpid(), "host": host, "port": self.port}),
        )
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._file.unlink(missing_ok=True)
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def answer(self, path: str) -> tuple[HTTPStatus, dict[str, object]]:
        """The status and the body for a path."""
        if path not in {"/healthz", "/readyz"}:
            return HTTPStatus.NOT_FOUND, {"error": "try /healthz or /readyz"}
        stopping = self._stop.is_set()
        state = "stuck" if not self._loop_answers() else "stopping" if stopping else "ok"
        good = state == "ok" or (state == "stopping" and path == "/healthz")
        return HTTPStatus.OK if good else HTTPStatus.SERVICE_UNAVAILABLE, {
            "status": state,
            "pid": os.getpid(),
            "worker": self._settings.worker_name,
            "task_queue": self._settings.task_queue,
        }

    def _loop_answers(self) -> bool:
        answered = threading.Event()
        self._loop.call_soon_threadsafe(answered.set)
        return answered.wait(LOOP_SECONDS)
