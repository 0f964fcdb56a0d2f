"""What a kubelet serves to the API server: logs, commands, and connections to ports of pods.

Sources: the routes of `k8s.io/kubelet/pkg/cri/streaming`, and the WebSocket protocol
`v4.channel.k8s.io` of its `remotecommand` and `portforward` packages.
"""

from __future__ import annotations

import base64
import hashlib
import json
import socket
import ssl
import struct
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs, urlsplit

from tests.services.certificates import Certificates

if TYPE_CHECKING:
    from tests.fakes.kubelet import Pod
    from tests.fakes.kubelet_runtime import Line

PROTOCOL = "v4.channel.k8s.io"
MAGIC = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
"""RFC 6455, section 1.3."""
BINARY, CLOSE, PING, PONG = 2, 8, 9, 10
STDOUT, ERROR = b"\x01", b"\x03"
FOLLOW_SECONDS = 0.05


class KubeletWeb:
    """The kubelet's own server.

    Args:
        find: the pod of a namespace and name, if it runs here.
    """

    def __init__(self, find: Callable[[str, str], Pod | None], certificates: Certificates) -> None:
        class Handler(_Handler):
            pod_of = staticmethod(find)

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificates.certificate, certificates.key)
        # The handshake is the handler's: a slow caller must not keep others from being accepted.
        self._server.socket = context.wrap_socket(
            self._server.socket, server_side=True, do_handshake_on_connect=False
        )
        self.port = self._server.server_port

    def start(self) -> None:
        """Serve."""
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()

    def close(self) -> None:
        """End it."""
        self._server.shutdown()
        self._server.server_close()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    pod_of: Callable[[str, str], Pod | None]

    def log_message(self, *_: object) -> None:
        """Not in a test's output."""

    def do_GET(self) -> None:
        url = urlsplit(self.path)
        query = parse_qs(url.query)
        what, namespace, name, *_rest = url.path.strip("/").split("/")
        pod = self.pod_of(namespace, name)
        routes = {
            "containerLogs": self._logs,
            "exec": self._exec,
            "portForward": self._forward,
        }
        if pod is None or what not in routes:
            self._refuse(404, f"pod {name} does not exist")
            return
        with suppress(OSError, EOFError):
            routes[what](pod, query)
        self.close_connection = True

    do_POST = do_GET

    def _refuse(self, status: int, text: str) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(text.encode())))
        self.end_headers()
        self.wfile.write(text.encode())

    # Logs -----------------------------------------------------------------------------------------

    def _logs(self, pod: Pod, query: dict[str, list[str]]) -> None:
        asked = {key: values[-1] for key, values in query.items()}
        lines = pod.lines(previous=asked.get("previous") == "true")
        if lines is None:
            self._refuse(400, "container is waiting to start")
            return
        stamps = asked.get("timestamps") == "true"
        found = _selected(lines, asked)
        self.send_response(200)
        self.send_header("Content-Type", "text/plain")
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        self._chunk("".join(_written(line, stamps) for line in found))
        count = len(lines)
        while asked.get("follow") == "true" and pod.box is not None:
            lines = pod.lines() or []
            self._chunk("".join(_written(line, stamps) for line in lines[count:]))
            count = len(lines)
            time.sleep(FOLLOW_SECONDS)
        self.wfile.write(b"0\r\n\r\n")

    def _chunk(self, text: str) -> None:
        if data := text.encode():
            self.wfile.write(f"{len(data):x}\r\n".encode() + data + b"\r\n")
            self.wfile.flush()

    # WebSocket ------------------------------------------------------------------------------------

    def _upgrade(self) -> None:
        key = self.headers.get("Sec-WebSocket-Key", "")
        digest = hashlib.sha1((key + MAGIC).encode()).digest()
        self.send_response(101)
        self.send_header("Upgrade", "websocket")
        self.send_header("Connection", "Upgrade")
        self.send_header("Sec-WebSocket-Accept", base64.b64encode(digest).decode())
        self.send_header("Sec-WebSocket-Protocol", PROTOCOL)
        self.end_headers()

    def _send(self, data: bytes, opcode: int = BINARY) -> None:
        size = len(data)
        if size < 126:
            head = struct.pack("!BB", 0x80 | opcode, size)
        elif size < 1 << 16:
            head = struct.pack("!BBH", 0x80 | opcode, 126, size)
        else:
            head = struct.pack("!BBQ", 0x80 | opcode, 127, size)
        self.wfile.write(head + data)
        self.wfile.flush()

    def _receive(self) -> tuple[int, bytes]:
        first, second = self._exactly(2)
        size = second & 0x7F
        if size == 126:
            (size,) = struct.unpack("!H", self._exactly(2))
        elif size == 127:
            (size,) = struct.unpack("!Q", self._exactly(8))
        mask = self._exactly(4) if second & 0x80 else b"\0\0\0\0"
        data = self._exactly(size)
        return first & 0x0F, bytes(byte ^ mask[at % 4] for at, byte in enumerate(data))

    def _exactly(self, count: int) -> bytes:
        data = self.rfile.read(count)
        if len(data) < count:
            raise EOFError
        return data

    def _exec(self, pod: Pod, query: dict[str, list[str]]) -> None:
        if pod.box is None:
            self._refuse(500, "container not found")
            return
        self._upgrade()
        code, output = pod.box.run(query["command"])
        self._send(STDOUT + output.encode())
        status: dict[str, Any] = {"metadata": {}, "status": "Success"}
        if code:
            cause = {"reason": "ExitCode", "message": str(code)}
            status = {
                "metadata": {},
                "status": "Failure",
                "message": f"command terminated with non-zero exit code: {code}",
                "reason": "NonZeroExitCode",
                "details": {"causes": [cause]},
            }
        self._send(ERROR + json.dumps(status).encode())
        self._send(struct.pack("!H", 1000), CLOSE)

    def _forward(self, pod: Pod, query: dict[str, list[str]]) -> None:
        port = int((query.get("port") or query["ports"])[0])
        self._upgrade()
        for channel in (0, 1):
            self._send(bytes([channel]) + struct.pack("<H", port))
        address = pod.box.address if pod.box is not None else ""
        try:
            goal = socket.create_connection((address, port), timeout=5)
        except OSError as error:
            self._send(b"\x01" + f"error forwarding port {port} to pod: {error}".encode())
            self._send(struct.pack("!H", 1000), CLOSE)
            return
        goal.settimeout(None)

        def back() -> None:
            with suppress(OSError, ValueError):
                while data := goal.recv(16384):
                    self._send(b"\0" + data)
                self._send(struct.pack("!H", 1000), CLOSE)

        threading.Thread(target=back, daemon=True).start()
        try:
            while True:
                opcode, data = self._receive()
                if opcode == CLOSE:
                    return
                if opcode == PING:
                    self._send(data, PONG)
                elif data[:1] == b"\0":
                    goal.sendall(data[1:])
        finally:
            with suppress(OSError):
                goal.shutdown(socket.SHUT_RDWR)
            goal.close()


def _selected(lines: list[Line], asked: dict[str, str]) -> list[Line]:
    since = None
    if "sinceSeconds" in asked:
        since = datetime.now(UTC) - timedelta(seconds=int(asked["sinceSeconds"]))
    if "sinceTime" in asked:
        since = datetime.fromisoformat(asked["sinceTime"].replace("Z", "+00:00"))
    found = [line for line in lines if since is None or line[0] >= since]
    count = int(asked["tailLines"]) if "tailLines" in asked else len(found)
    return found[len(found) - count :] if count < len(found) else found


def _written(line: Line, stamps: bool) -> str:
    moment, text = line
    stamp = moment.isoformat(timespec="microseconds").replace("+00:00", "000Z")
    return f"{stamp} {text}\n" if stamps else f"{text}\n"
