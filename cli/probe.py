"""The smallest HTTP client: asks a port of this machine for a path, without importing anything."""

from __future__ import annotations

import socket


def get(port: int, path: str, timeout: float = 1.0) -> tuple[int, bytes]:
    """Status and body; status 0 if nothing answers in time.

    Args:
        timeout: seconds for connecting, and again for each part of the answer.
    """
    try:
        with socket.create_connection(("127.0.0.1", port), timeout) as connection:
            connection.sendall(f"GET {path} HTTP/1.0\r\nHost: localhost\r\n\r\n".encode())
            answer = b""
            while part := connection.recv(65536):
                answer += part
    except OSError:
        return 0, b""
    head, _, body = answer.partition(b"\r\n\r\n")
    words = head.split(None, 2)
    return (int(words[1]), body) if len(words) > 1 and words[1].isdigit() else (0, b"")


def free(port: int) -> bool:
    """Whether a server could listen on this port of the loopback interface now."""
    try:
        socket.create_server(("127.0.0.1", port)).close()
    except OSError:
        return False
    return True


def any_free() -> int:
    """A port that is free now."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
        return port
