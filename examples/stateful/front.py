"""A single-writer database behind HTTP: Redis, whose every write is on disk before it is answered.

    PUT  /keys/NAME        keeps the body            GET /keys/NAME       gives it back
    POST /counters/NAME    adds one, answers with    GET /counters/NAME   how far it is
                           how far it is now         GET /opened-twice    how often the files
    GET  /healthz          whether Redis answers                          were opened twice

Its files must never be open twice. A lock in the data folder guards them: whoever finds it taken
writes that down beside it and ends.
"""

import fcntl
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import BinaryIO

PORT = 8080
DATA = Path("/data")
LOCK = DATA / "lock"
OPENED_TWICE = DATA / "opened-twice"
SOCKET = "/tmp/redis.sock"
REDIS = [
    "redis-server", "--dir", str(DATA), "--appendonly", "yes", "--appendfsync", "always",
    "--save", "", "--port", "0", "--unixsocket", SOCKET,
]  # fmt: skip
WAIT_SECONDS = 5.0


class RedisError(Exception):
    """Redis said no, or did not say anything."""


def redis(*words: bytes) -> bytes | int | None:
    """One command, on a connection of its own. Its answer: a text, a number, or nothing."""
    parts = [b"*%d\r\n" % len(words), *(b"$%d\r\n%s\r\n" % (len(word), word) for word in words)]
    try:
        with socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(WAIT_SECONDS)
            connection.connect(SOCKET)
            connection.sendall(b"".join(parts))
            with connection.makefile("rb") as answers:
                return _answer(answers.readline(), answers)
    except OSError as error:
        raise RedisError(f"redis does not answer: {error}") from None


def _answer(line: bytes, answers: BinaryIO) -> bytes | int | None:
    kind, text = line[:1], line[1:].rstrip(b"\r\n")
    if kind == b"+":
        return text
    if kind == b":":
        return int(text)
    if kind == b"$":
        return None if text == b"-1" else answers.read(int(text))
    raise RedisError(text.decode() or "redis closed the connection")


class Front(BaseHTTPRequestHandler):
    """Answers one request."""

    def do_GET(self) -> None:
        if self.path == "/healthz":
            self.ask(b"PING")
        elif self.path == "/opened-twice":
            times = len(OPENED_TWICE.read_text().splitlines()) if OPENED_TWICE.exists() else 0
            self.answer(200, b"%d" % times)
        else:
            self.ask(b"GET", self.path.encode())

    def do_PUT(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self.ask(b"SET", self.path.encode(), body)

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self.ask(b"INCR", self.path.encode())

    def ask(self, *words: bytes) -> None:
        """Answer with what Redis answers."""
        try:
            answer = redis(*words)
        except RedisError as error:
            self.answer(503, str(error).encode())
            return
        if answer is None:
            self.answer(404, b"")
        else:
            self.answer(200, answer if isinstance(answer, bytes) else b"%d" % answer)

    def answer(self, status: int, body: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing: what Redis logs is enough."""


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


def take_the_files() -> int:
    """Lock the data folder for as long as this process lives."""
    lock = os.open(LOCK, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        with OPENED_TWICE.open("a") as record:
            record.write(f"{time.time():.3f} {socket.gethostname()}\n")
        sys.exit(f"{DATA} is open already: two releases have the volume at once")
    return lock


def main() -> int:
    lock = take_the_files()
    # In a session of its own: a Ctrl-C at a terminal is for us, and we tell Redis.
    database = subprocess.Popen(REDIS, start_new_session=True, pass_fds=[lock])
    server = Server(("", PORT), Front)
    # shutdown() waits for the loop to end, so the loop's own thread must not call it.
    signal.signal(signal.SIGTERM, lambda *_: threading.Thread(target=server.shutdown).start())

    def follow() -> None:
        database.wait()
        server.shutdown()

    threading.Thread(target=follow, daemon=True).start()
    server.serve_forever(poll_interval=0.05)
    server.drain()
    server.server_close()
    if database.poll() is not None:
        print(f"redis ended with {database.returncode}", file=sys.stderr)
        return 1
    database.terminate()
    return database.wait()


if __name__ == "__main__":
    sys.exit(main())
