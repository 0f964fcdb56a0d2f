"""A way to a machine behind SSH: one connection of OpenSSH's own client, and forwards through it.

    with Tunnel("ssh://deploy@10.0.0.5:22", TunnelOptions()) as tunnel:
        tunnel.socket            # the engine's socket, here
        tunnel.forward(32768)    # a port here that leads to port 32768 of 127.0.0.1 over there

The person's own ~/.ssh/config, agent and known hosts apply. Nothing is ever asked: a host that is
not known, or a key that needs a passphrase, is an error that says so. docker-py's own ssh:// is not
used: it fails under parallel calls and ignores ~/.ssh/config.
"""

from __future__ import annotations

import contextlib
import re
import shutil
import socket
import subprocess
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from urllib.parse import urlsplit

from model.errors import ConfigurationError, HelixError, PermissionDenied, Transient

REMOTE_SOCKET = "/var/run/docker.sock"
CONNECT_TIMEOUT = 10
"""Seconds to reach the machine."""
READY_TIMEOUT = 20.0
"""Seconds until the engine's socket must be there: connecting and logging in."""

ERRORS: tuple[tuple[str, type[HelixError], str], ...] = (
    (
        r"host key verification failed|remote host identification has changed",
        ConfigurationError,
        "check the machine's host key, then add it: ssh-keyscan {host} >> ~/.ssh/known_hosts",
    ),
    (
        r"permission denied|too many authentication failures|no supported authentication",
        PermissionDenied,
        "make this work without a question: ssh {host} true",
    ),
    (
        r"administratively prohibited|open failed|forwarding (request )?failed|remote forward",
        ConfigurationError,
        "allow AllowStreamLocalForwarding and AllowTcpForwarding in the machine's sshd_config",
    ),
    (
        r"could not resolve hostname|name or service not known",
        Transient,
        "check the host name and this machine's DNS",
    ),
    (r"bad configuration option|no such identity|not accessible", ConfigurationError, ""),
    (
        r"refused|timed out|timeout|reset|closed|unreachable|no route",
        Transient,
        "check that the machine is up and reachable: ssh {host} true",
    ),
)
"""What OpenSSH says on its standard error -> what that means, and what to do."""

# ssh outlives a killed parent. Its shell holds the other end of our pipe: when we die, however
# suddenly, the pipe closes and takes ssh along.
_LEASH = """
exec 3<&0
ssh "$@" </dev/null 3<&- & ssh=$!
(read -r _ <&3; kill "$ssh") 2>/dev/null & leash=$!
wait "$ssh"
kill "$leash" 2>/dev/null
"""


@dataclass(frozen=True)
class TunnelOptions:
    """What OpenSSH does not find by itself."""

    identity: str = ""
    """The private key file."""
    known_hosts: str = ""
    """The file of known host keys."""


class Tunnel:
    """One SSH connection, open from construction until `close`.

    Raises:
        ConfigurationError: the address is wrong, the host key is not known, forwarding is refused.
        PermissionDenied: the machine does not let us in.
        Transient: the machine does not answer.
    """

    def __init__(self, url: str, options: TunnelOptions) -> None:
        self._destination, port, remote = parse(url)
        # A Unix socket's path may have 107 bytes: stay short.
        self._folder = Path(tempfile.mkdtemp(prefix="hx-", dir="/tmp"))
        self._control = self._folder / "c"
        self.socket = self._folder / "d"
        """The engine's socket on this machine."""
        self._arguments = [
            "-o", "BatchMode=yes",
            "-o", "ExitOnForwardFailure=yes",
            "-o", "StreamLocalBindUnlink=yes",
            "-o", "ServerAliveInterval=10",
            "-o", "ServerAliveCountMax=3",
            "-o", f"ConnectTimeout={CONNECT_TIMEOUT}",
            "-o", f"ControlPath={self._control}",
            *(("-p", str(port)) if port else ()),
            *(("-i", options.identity, "-o", "IdentitiesOnly=yes") if options.identity else ()),
            *(("-o", f"UserKnownHostsFile={options.known_hosts}") if options.known_hosts else ()),
        ]  # fmt: skip
        try:
            self._process = self._dial(remote)
        except BaseException:
            shutil.rmtree(self._folder, ignore_errors=True)
            raise
        try:
            self._wait()
        except BaseException:
            self.close()
            raise

    def forward(self, port: int) -> int:
        """A port of this machine that leads to `port` of the other machine's own 127.0.0.1."""
        for attempt in range(5):
            local = _free_port()
            found = subprocess.run(
                [
                    "ssh", *self._arguments, "-O", "forward",
                    "-L", f"127.0.0.1:{local}:127.0.0.1:{port}", "--", self._destination,
                ],
                stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=READY_TIMEOUT,
            )  # fmt: skip
            if found.returncode == 0:
                return local
            if not self.alive or attempt == 4:
                break  # else another process was faster to take the port
        raise self._error(found.stderr)

    @property
    def alive(self) -> bool:
        """Whether the connection stands."""
        return self._process.poll() is None

    def close(self) -> None:
        """End the connection and remove what belongs to it. Idempotent."""
        if self._process.stdin is not None:
            self._process.stdin.close()
        try:
            self._process.wait(timeout=5)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        if self._process.stderr is not None:
            self._process.stderr.close()
        shutil.rmtree(self._folder, ignore_errors=True)

    def __enter__(self) -> Tunnel:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def _dial(self, remote: str) -> subprocess.Popen[str]:
        if shutil.which("ssh") is None:
            raise ConfigurationError(
                "this machine has no ssh, which an engine at ssh:// is reached with",
                hint="apt-get install openssh-client",
            )
        return subprocess.Popen(
            [
                "sh", "-c", _LEASH, "ssh", *self._arguments,
                "-nNT", "-M", "-L", f"{self.socket}:{remote}", "--", self._destination,
            ],
            stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip

    def _wait(self) -> None:
        end = time.monotonic() + READY_TIMEOUT
        while not (self.socket.exists() and self._control.exists()):
            if not self.alive:
                raise self._error(self._process.stderr.read() if self._process.stderr else "")
            if time.monotonic() > end:
                raise self._error("timed out")
            time.sleep(0.02)

    def _error(self, said: str) -> HelixError:
        lines = [line.strip() for line in said.splitlines() if line.strip()]
        message = f"ssh to {self._destination}: {lines[-1] if lines else 'the connection ended'}"
        for pattern, cls, hint in ERRORS:
            if re.search(pattern, said, re.IGNORECASE):
                return cls(message, hint=hint.format(host=self._destination))
        return Transient(message, hint=f"try: ssh {self._destination} true")


def parse(url: str) -> tuple[str, int | None, str]:
    """What ssh calls the machine (user@host), its port if named, and the engine's socket there.

    Raises:
        ConfigurationError: it is not ssh://[user@]host[:port][/path/of/the/socket].
    """
    problem = ConfigurationError(
        f"«{url}» is not the address of an engine",
        hint='write host = "ssh://user@machine", with :port after it if it is not 22',
    )
    parts = urlsplit(url)
    try:
        host, port = parts.hostname or "", parts.port
    except ValueError:
        raise problem from None
    user = parts.username or ""
    # A name that begins with «-» would be an option of ssh.
    if not re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9_.:-]*", host) or parts.password:
        raise problem
    if user and not re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9_.@-]*", user):
        raise problem
    path = parts.path if parts.path not in ("", "/") else REMOTE_SOCKET
    return (f"{user}@{host}" if user else host), port, path


def _free_port() -> int:
    with contextlib.closing(socket.socket()) as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
