"""A Docker Swarm of one node: a second engine in a network namespace of its own.

It shares nothing with this machine's engine: not its data, not its containerd's namespace, not its
network, and all that is left of it at the end goes with it. A pair of interfaces leads from here to
there, so that the published ports of its services can be reached.

Swarm's routing mesh needs IPVS of the kernel. Where that is missing a port can only be published on
the task's own node (`has_mesh`).
"""

from __future__ import annotations

import asyncio
import ctypes
import os
import shutil
import socket
import subprocess
import threading
import uuid
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import docker

from tests.services.bridges import pump, serving
from tests.services.certificates import make_certificates
from tests.services.namespaces import engine_in
from tests.services.need import missing

CLONE_NEWNET = 0x40000000
START_SECONDS = 60.0
STOP_SECONDS = 30.0


@dataclass(frozen=True)
class Swarm:
    """A swarm that runs."""

    client: docker.DockerClient
    host: str
    """tcp://address:2376, with TLS."""
    tls: Path
    """The folder with ca.pem, cert.pem and key.pem."""
    address: str
    """Where its published ports are."""
    namespace: Path
    socket: Path
    has_mesh: bool

    @contextmanager
    def lent(self, port: int, address: str = "127.0.0.1") -> Iterator[None]:
        """In this block, a loopback port of ours is one of the swarm's too, such as that of a
        registry: engines trust those that are on loopback.

        Args:
            address: which one of the swarm's, if not loopback.
        """

        async def relay(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            up, down = await asyncio.open_connection("127.0.0.1", port)
            await asyncio.gather(pump(reader, down), pump(up, writer))

        listening = _socket_in(self.namespace, address, port)

        async def listen() -> asyncio.Server:
            return await asyncio.start_server(relay, sock=listening)

        with serving(listen):
            yield


@contextmanager
def swarm(folder: Path) -> Iterator[Swarm]:
    """A swarm of one manager, gone at the end.

    Args:
        folder: where its data, configuration and log go; a short path, as it holds a socket.
    """
    for tool in ("ip", "nsenter", "dockerd"):
        if shutil.which(tool) is None:
            missing("swarm", f"there is no {tool}", "on Debian: apt-get install docker.io iproute2")
    if os.geteuid() != 0:
        missing("swarm", "an engine of its own needs root", "run the tests as root")
    name = f"hx{uuid.uuid4().hex[:6]}"
    with ExitStack() as stack:
        theirs = stack.enter_context(_network(name))
        certificates = make_certificates(folder / "tls", addresses=(theirs,))
        # The engine wants to be shown a certificate too; its own will do.
        for source, target in ((certificates.certificate, "cert"), (certificates.key, "key")):
            shutil.copyfile(source, folder / "tls" / f"{target}.pem")
        socket = folder / "d.sock"
        tls = folder / "tls"
        reached = (
            "--host", f"tcp://{theirs}:2376", "--tlsverify", "--tlscacert", str(tls / "ca.pem"),
            "--tlscert", str(tls / "server.pem"), "--tlskey", str(tls / "server.key"),
        )  # fmt: skip
        stack.enter_context(engine_in(name, folder, reached))
        client = docker.DockerClient(base_url=f"unix://{socket}", timeout=120)
        stack.callback(client.close)
        client.swarm.init(
            advertise_addr=theirs, listen_addr=theirs, default_addr_pool=[_pool(theirs)]
        )
        yield Swarm(
            client=client,
            host=f"tcp://{theirs}:2376",
            tls=folder / "tls",
            address=theirs,
            namespace=Path("/run/netns", name),
            socket=socket,
            has_mesh=Path("/proc/net/ip_vs").exists(),
        )


def _socket_in(namespace: Path, address: str, port: int) -> socket.socket:
    """A socket that listens in another network namespace. A thread enters that for a
    moment, and only it: a socket stays where it was made."""
    made: list[socket.socket] = []

    def make() -> None:
        with namespace.open() as handle:
            if ctypes.CDLL(None, use_errno=True).setns(handle.fileno(), CLONE_NEWNET) != 0:
                raise OSError(ctypes.get_errno(), "setns")
        made.append(socket.create_server((address, port)))

    thread = threading.Thread(target=make)
    thread.start()
    thread.join()
    return made[0]


@contextmanager
def _network(name: str) -> Iterator[str]:
    """A network namespace, and a way into it: the address over there."""
    octet = int(name[2:4], 16)
    ours, theirs = f"10.211.{octet}.1", f"10.211.{octet}.2"
    inside = ["ip", "-n", name]
    try:
        _run("ip", "netns", "add", name)
        _run("ip", "link", "add", name, "type", "veth", "peer", "name", "eth0", "netns", name)
        _run("ip", "address", "add", f"{ours}/30", "dev", name)
        _run("ip", "link", "set", name, "up")
        _run(*inside, "address", "add", f"{theirs}/30", "dev", "eth0")
        for device in ("lo", "eth0"):
            _run(*inside, "link", "set", device, "up")
        # dockerd looks for a way out, though there is none.
        _run(*inside, "route", "add", "default", "via", ours)
        yield theirs
    except subprocess.CalledProcessError as error:
        missing("swarm", f"{' '.join(error.cmd)}: {error.stderr.strip()}", "run as root on Linux")
    finally:
        for command in (["link", "delete", name], ["netns", "delete", name]):
            subprocess.run(["ip", *command], capture_output=True)


def _pool(address: str) -> str:
    """The addresses of overlay networks."""
    return f"10.{214 + int(address.split('.')[2]) % 32}.0.0/16"


def _run(*command: str) -> None:
    subprocess.run(command, check=True, capture_output=True, text=True)
