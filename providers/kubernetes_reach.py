"""Into a pod, through the API server: a connection to one of its ports, and a command in it.

As `kubectl port-forward` and `kubectl exec` do it: whoever may use the API can reach the pod, from
anywhere, before any service leads to it.
"""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any

from kubernetes.stream import portforward, stream
from websocket import WebSocketException

from model.errors import HelixError, Transient
from providers.kubernetes_api import Api
from providers.kubernetes_objects import CONTAINER

BYTES = 16384
TIMED_OUT, NOT_RUN = 124, 126
"""Exit codes, as shells and `timeout` have them."""
RESET = b"\1\0\0\0\0\0\0\0"
"""SO_LINGER of no time: the end of the connection is a reset."""


def connect(api: Api, pod: str, port: int) -> Any:
    """A connection to a port of a pod, as a socket. That the port is closed shows only later.

    Raises:
        HelixError: the API server refuses it, or does not reach the node.
    """
    opened = api.stream(
        portforward,
        "connect_get_namespaced_pod_portforward",
        pod,
        doing=f"create pods/portforward {pod}",
        ports=str(port),
    )
    return opened.socket(port)


def execute(api: Api, pod: str, command: Sequence[str], timeout: float) -> tuple[int, str]:
    """Run a command in a pod: exit code and output.

    Raises:
        HelixError: the API server refuses it, or does not reach the node.
    """
    opened = api.stream(
        stream,
        "connect_get_namespaced_pod_exec",
        pod,
        doing=f"create pods/exec {pod}",
        container=CONTAINER,
        command=list(command),
        stdout=True,
        stderr=True,
        stdin=False,
        tty=False,
        _preload_content=False,
    )
    try:
        opened.run_forever(timeout=timeout)
        if opened.is_open():
            return TIMED_OUT, f"did not end within {timeout:g} s"
        return _exit_code(opened), opened.read_all()
    except (OSError, WebSocketException) as error:
        raise Transient(f"the connection to {pod} broke: {error}") from None
    finally:
        opened.close()


def _exit_code(opened: Any) -> int:
    try:
        return int(opened.returncode)
    except (KeyError, IndexError, TypeError, ValueError):
        return NOT_RUN  # it never ran, and the output says why


class Forward:
    """A port of this machine that leads to a port of a pod, until `close`.

    Args:
        reach: opens a new connection to it; raises HelixError if it cannot.
    """

    def __init__(self, reach: Callable[[], Any]) -> None:
        self._reach = reach
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        threading.Thread(target=self._accept, name="forward", daemon=True).start()

    def close(self) -> None:
        """Take no more connections. Those that are open end with the caller's."""
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def _accept(self) -> None:
        while True:
            try:
                here, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(here,), daemon=True).start()

    def _serve(self, here: socket.socket) -> None:
        try:
            there = self._reach()
        except HelixError:
            # Not an orderly end: the caller must not take it for an answer without content.
            here.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
            here.close()
            return
        threading.Thread(target=_copy, args=(here, there), daemon=True).start()
        _copy(there, here)


def _copy(source: Any, goal: Any) -> None:
    with suppress(OSError):
        while data := source.recv(BYTES):
            goal.sendall(data)
    for one in (source, goal):
        with suppress(OSError):
            one.shutdown(socket.SHUT_RDWR)
        one.close()
