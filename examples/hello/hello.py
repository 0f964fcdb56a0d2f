"""A service small enough to read at one sight: it says what greeting.txt says.

`/` answers with the greeting, `/healthz` whether there is one. On SIGTERM it answers the requests
that it has, and ends.
"""

import signal
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

PORT = 8080
GREETING = Path(__file__).with_name("greeting.txt")


class Hello(BaseHTTPRequestHandler):
    """Answers one request."""

    def do_GET(self) -> None:
        try:
            greeting = GREETING.read_text()
        except OSError as error:
            self.answer(500, f"{error}\n")
            return
        self.answer(200, "ok\n" if self.path == "/healthz" else greeting)

    def answer(self, status: int, text: str) -> None:
        body = text.encode()
        self.send_response(status)
        self.send_header("Content-Type", "text/plain; charset=utf-8")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        if self.path != "/healthz":
            super().log_message(format, *args)


class Server(ThreadingHTTPServer):
    """Ends only after it answered every request."""

    daemon_threads = False
    request_queue_size = 128

    def drain(self) -> None:
        """Answer those who connected before we stopped listening."""
        self.socket.setblocking(False)
        while True:
            try:
                request, address = self.get_request()
            except BlockingIOError:
                return
            request.setblocking(True)
            self.process_request(request, address)


def main() -> None:
    server = Server(("", PORT), Hello)
    # shutdown() waits for the loop to end, so the loop's own thread must not call it.
    signal.signal(signal.SIGTERM, lambda *_: threading.Thread(target=server.shutdown).start())
    print(f"listening on {PORT}")
    server.serve_forever(poll_interval=0.05)
    server.drain()
    server.server_close()
    print("every request is answered")


if __name__ == "__main__":
    main()
