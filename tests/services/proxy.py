"""A TCP proxy on loopback that can be slow, silent or gone."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager


class Proxy:
    """Stands before one address. Change its fields while it runs."""

    def __init__(self, host: str, port: int) -> None:
        self.target = (host, port)
        self.bytes_per_second: float = 0
        """0: as fast as it can."""
        self.down = False
        """Refuse new connections, and cut the ones that are open."""
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self._open: set[socket.socket] = set()
        self._threads = [self._start(self._accept)]

    @property
    def host(self) -> str:
        """Where it listens: host and port."""
        return f"127.0.0.1:{self.port}"

    def cut(self) -> None:
        """Go down at once."""
        self.down = True
        for one in list(self._open):
            with contextlib.suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        """End it."""
        self.cut()
        self._listener.close()

    def _start(self, work: object, *words: object) -> threading.Thread:
        thread = threading.Thread(target=work, args=words, daemon=True)  # type: ignore[arg-type]
        thread.start()
        return thread

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            if self.down:
                client.close()
                continue
            try:
                server = socket.create_connection(self.target)
            except OSError:
                client.close()
                continue
            self._open |= {client, server}
            self._start(self._copy, client, server, True)
            self._start(self._copy, server, client, False)

    def _copy(self, source: socket.socket, goal: socket.socket, upwards: bool) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(16384):
                if upwards and self.bytes_per_second:
                    time.sleep(len(data) / self.bytes_per_second)
                goal.sendall(data)
        for one in (source, goal):
            with contextlib.suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
            self._open.discard(one)


@contextmanager
def proxy(host: str, port: int) -> Iterator[Proxy]:
    """A proxy for the length of the block."""
    running = Proxy(host, port)
    try:
        yield running
    finally:
        running.close()
