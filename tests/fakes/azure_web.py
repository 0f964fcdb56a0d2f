"""The TLS servers of the stand-in for Azure, on loopback."""

from __future__ import annotations

from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread

import httpx

from tests.services.certificates import Certificates, over_tls


class Handler(BaseHTTPRequestHandler):
    """Answers without delay and without a word on the screen."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def log_message(self, format: str, *args: object) -> None:
        pass


class TlsServer:
    """A server with a certificate for 127.0.0.1."""

    def __init__(self, certificates: Certificates, handler: type[BaseHTTPRequestHandler]) -> None:
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self._server.daemon_threads = True
        over_tls(self._server, certificates)
        self._thread = Thread(target=self._server.serve_forever, args=(0.02,), daemon=True)
        self._thread.start()

    @property
    def host(self) -> str:
        """Host and port."""
        return f"127.0.0.1:{self._server.server_address[1]}"

    def stop(self) -> None:
        """Stop answering."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


class Front(TlsServer):
    """An address of an app or of a revision, which leads to a container.

    Args:
        choose: host and port of a container; empty if there is none.
    """

    def __init__(self, certificates: Certificates, choose: Callable[[], str]) -> None:
        class Page(Handler):
            def do_GET(self) -> None:
                status, body = 404, b"there is no container app here"
                if address := choose():
                    try:
                        answer = httpx.get(f"http://{address}{self.path}", timeout=10)
                        status, body = answer.status_code, answer.content
                    except httpx.HTTPError as error:
                        status, body = 503, f"upstream connect error: {error}".encode()
                self.send_response(status)
                self.send_header("content-length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

        super().__init__(certificates, Page)
