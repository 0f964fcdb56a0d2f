"""Other ways to this machine's engine: an SSH server and a TCP port in front of its socket."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
import threading
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import asyncssh

ENGINE_SOCKET = "/var/run/docker.sock"


@dataclass(frozen=True)
class SshHost:
    """A machine behind SSH, which is this one."""

    url: str
    """ssh://tester@127.0.0.1:port"""
    key: Path
    """The private key that it lets in."""
    known_hosts: Path
    """The file with its host key."""
    connections: list[str]
    """The user of each connection so far."""


class _Server(asyncssh.SSHServer):
    def __init__(self, connections: list[str]) -> None:
        self._connections = connections

    def auth_completed(self) -> None:
        self._connections.append("in")

    def connection_requested(self, *_where: Any) -> bool:
        return True

    def unix_connection_requested(self, _path: str) -> bool:
        return True


@contextmanager
def ssh_host(folder: Path) -> Iterator[SshHost]:
    """An SSH server on loopback that lets one key in and forwards ports and sockets."""
    host_key = asyncssh.generate_private_key("ssh-ed25519")
    user_key = asyncssh.generate_private_key("ssh-ed25519")
    key, known_hosts = folder / "id", folder / "known_hosts"
    user_key.write_private_key(str(key))
    key.chmod(0o600)
    (folder / "authorized").write_bytes(user_key.export_public_key())
    connections: list[str] = []

    async def listen() -> asyncssh.SSHAcceptor:
        return await asyncssh.create_server(
            lambda: _Server(connections),
            "127.0.0.1",
            0,
            server_host_keys=[host_key],
            authorized_client_keys=str(folder / "authorized"),
        )

    with serving(listen) as server:
        port = server.get_port()
        public = host_key.export_public_key().decode().strip()
        known_hosts.write_text(f"[127.0.0.1]:{port} {public}\n")
        yield SshHost(f"ssh://tester@127.0.0.1:{port}", key, known_hosts, connections)


@contextmanager
def tcp_engine(
    context: ssl.SSLContext | None = None,
    address: str = "127.0.0.1",
    socket: str | Path = ENGINE_SOCKET,
) -> Iterator[int]:
    """A TCP port that leads to the engine; behind TLS if a context is given."""

    async def bridge(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        up, down = await asyncio.open_unix_connection(socket)
        await asyncio.gather(pump(reader, down), pump(up, writer))

    async def listen() -> asyncio.Server:
        return await asyncio.start_server(bridge, address, 0, ssl=context)

    with serving(listen) as server:
        yield server.sockets[0].getsockname()[1]


@contextmanager
def unix_socket(path: Path, port: int) -> Iterator[None]:
    """A socket that leads to a TCP port of loopback."""

    async def bridge(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        up, down = await asyncio.open_connection("127.0.0.1", port)
        await asyncio.gather(pump(reader, down), pump(up, writer))

    async def listen() -> asyncio.Server:
        return await asyncio.start_unix_server(bridge, path)

    with serving(listen):
        yield


async def pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Write what is read, until its end."""
    with contextlib.suppress(OSError):
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
    writer.close()


@contextmanager
def serving(listen: Callable[[], Awaitable[Any]]) -> Iterator[Any]:
    """Run a server in a loop and a thread of its own for the block."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()

    async def start() -> Any:
        return await listen()

    server = asyncio.run_coroutine_threadsafe(start(), loop).result(10)
    try:
        yield server
    finally:
        loop.call_soon_threadsafe(server.close)
        loop.call_soon_threadsafe(loop.stop)
        thread.join(5)
