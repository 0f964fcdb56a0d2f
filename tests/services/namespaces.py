"""Machines that are only reached by a network: namespaces of the kernel, and engines in them."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import threading
import time
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.services.need import missing

START_SECONDS = 60.0
STOP_SECONDS = 30.0


@dataclass(frozen=True)
class Host:
    """A machine: what runs in it sees its own interfaces, ports and loopback, and no others."""

    name: str
    address: str
    link: str
    """The end of its cable that is here."""
    bridge: str

    @property
    def enter(self) -> list[str]:
        """What a command is begun with, to run there under the same process id."""
        # Not `ip netns exec`: that mounts /sys anew, and then there are no cgroups.
        return ["nsenter", f"--net=/run/netns/{self.name}"]

    def cut(self) -> None:
        """Pull the cable: what is sent is lost, and nobody is told."""
        _run("ip", "link", "set", self.link, "nomaster")

    def mend(self) -> None:
        """Plug it in again."""
        _run("ip", "link", "set", self.link, "master", self.bridge)


@dataclass(frozen=True)
class Network:
    """A network that some machines share with this one."""

    address: str
    """Ours in it: servers for the others listen there."""
    hosts: tuple[Host, ...]


@contextmanager
def network(*names: str) -> Iterator[Network]:
    """A network with machines of these names, all gone at the end."""
    for tool in ("ip", "nsenter"):
        if shutil.which(tool) is None:
            missing("namespaces", f"there is no {tool}", "on Debian: apt-get install iproute2")
    if os.geteuid() != 0:
        missing("namespaces", "a network of its own needs root", "run the tests as root")
    mark = uuid.uuid4().hex[:6]
    bridge, subnet = f"hx{mark}", f"10.212.{int(mark[:2], 16)}"
    hosts = tuple(
        Host(f"hx{mark}-{name}", f"{subnet}.{number}", f"hx{mark}v{number}", bridge)
        for number, name in enumerate(names, start=2)
    )
    try:
        _run("ip", "link", "add", bridge, "type", "bridge")
        _run("ip", "address", "add", f"{subnet}.1/24", "dev", bridge)
        _run("ip", "link", "set", bridge, "up")
        for host in hosts:
            _add(host)
        yield Network(f"{subnet}.1", hosts)
    except subprocess.CalledProcessError as error:
        missing("namespaces", f"{' '.join(error.cmd)}: {error.stderr.strip()}", "run as root")
    finally:
        for host in hosts:
            subprocess.run(["ip", "link", "delete", host.link], capture_output=True)
            subprocess.run(["ip", "netns", "delete", host.name], capture_output=True)
        subprocess.run(["ip", "link", "delete", bridge], capture_output=True)


def _add(host: Host) -> None:
    inside = ["ip", "-n", host.name]
    _run("ip", "netns", "add", host.name)
    peer = ["peer", "name", "eth0", "netns", host.name]
    _run("ip", "link", "add", host.link, "type", "veth", *peer)
    _run("ip", "link", "set", host.link, "master", host.bridge)
    _run("ip", "link", "set", host.link, "up")
    _run(*inside, "address", "add", f"{host.address}/24", "dev", "eth0")
    for device in ("lo", "eth0"):
        _run(*inside, "link", "set", device, "up")
    # dockerd looks for a way out, though there is none.
    _run(*inside, "route", "add", "default", "via", f"{host.address.rpartition('.')[0]}.1")


@contextmanager
def engine_in(name: str, folder: Path, options: Sequence[str] = ()) -> Iterator[None]:
    """An engine in a namespace, at `d.sock` in the folder. It shares nothing with this machine's:
    not its data, not its containerd's namespace, not its network.

    Args:
        folder: where its data, configuration and log go; a short path, as it holds a socket.
        options: more of dockerd's.
    """
    config = folder / "daemon.json"
    config.write_text("{}")
    command = [
        "nsenter", f"--net=/run/netns/{name}", "dockerd",
        "--config-file", str(config),
        "--data-root", str(folder / "data"),
        "--exec-root", str(folder / "run"),
        "--pidfile", str(folder / "pid"),
        "--containerd-namespace", name,
        "--containerd-plugins-namespace", f"{name}-plugins",
        "--bip", "10.213.0.1/24",
        "--host", f"unix://{folder / 'd.sock'}",
        *options,
    ]  # fmt: skip
    log = (folder / "dockerd.log").open("ab")
    stopping = threading.Event()

    def start() -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
        )

    def keep() -> None:
        """As systemd does: SwarmKit of engine 20.10 may panic when a service is removed."""
        while running[-1].wait() is not None and not stopping.is_set():
            running.append(start())

    running = [start()]
    try:
        _wait(running[-1], folder)
        threading.Thread(target=keep, daemon=True).start()
        yield
    finally:
        stopping.set()
        process = running[-1]
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)  # the session that we began, and its containerd
            process.wait()
        log.close()
        for mount in _mounts(folder):
            subprocess.run(["umount", "--lazy", mount], capture_output=True)
        shutil.rmtree(folder / "data", ignore_errors=True)
        shutil.rmtree(folder / "run", ignore_errors=True)


def _wait(process: subprocess.Popen[bytes], folder: Path) -> None:
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline and process.poll() is None:
        done = subprocess.run(
            ["docker", "--host", f"unix://{folder / 'd.sock'}", "version"], capture_output=True
        )
        if done.returncode == 0:
            return
        time.sleep(0.1)
    tail = (folder / "dockerd.log").read_text(errors="replace")[-2000:]
    raise RuntimeError(f"the second engine did not start:\n{tail}")


def _mounts(folder: Path) -> list[str]:
    """What is mounted below a folder, the deepest first."""
    found = [line.split()[1] for line in Path("/proc/mounts").read_text().splitlines()]
    return sorted((one for one in found if one.startswith(f"{folder}/")), reverse=True)


def _run(*command: str) -> None:
    subprocess.run(command, check=True, capture_output=True, text=True)
