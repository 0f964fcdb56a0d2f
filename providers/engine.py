"""A connection to a Docker engine, wherever it is, and its errors as those of `model.errors`."""

from __future__ import annotations

import errno
import os
import re
import socket
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import docker
import requests
from docker.errors import APIError, DockerException
from docker.tls import TLSConfig
from pydantic import BaseModel, ConfigDict

from model.docker_errors import Rows, classify
from model.errors import (
    ConfigurationError,
    Conflict,
    HelixError,
    NotFound,
    PermissionDenied,
    PlatformUnhealthy,
    QuotaExceeded,
    Transient,
)
from providers.tunnel import Tunnel, TunnelOptions

if TYPE_CHECKING:
    from types import TracebackType

DEFAULT_HOST = "unix:///var/run/docker.sock"
POOL = 16
"""HTTP connections kept to one engine."""

SENTENCES: Rows = (
    (
        r"port is already allocated|address already in use",
        Conflict,
        "free the port, or choose another",
    ),
    (
        r"executable file not found|exec format error|oci runtime create failed|"
        r"runc create failed|no such file or directory.*unknown",
        ConfigurationError,
        "check the image's command, and that it was built for the engine's platform",
    ),
    (
        r"non-overlapping ipv4 address pool|predefined address pools",
        QuotaExceeded,
        "remove unused networks: docker network prune; or add default-address-pools to daemon.json",
    ),
    (
        r"no space left on device",
        PlatformUnhealthy,
        "free space on the engine's machine: docker system df",
    ),
    (r"is not running|is restarting|removal of container .* in progress", Transient, ""),
    (r"invalid mount|bind source path|invalid volume|mount denied|not a directory",
     ConfigurationError, "check the volumes in [deploy.<instance>]"),
)  # fmt: skip
"""What the engine says, case ignored -> what that means, and what to do. Seen on engine 20.10."""

STATUS: dict[int, type[HelixError]] = {
    400: ConfigurationError,
    401: PermissionDenied,
    403: PermissionDenied,
    404: NotFound,
    409: Conflict,
}
"""What its status means, where the sentence says nothing."""

HINTS: dict[type[HelixError], str] = {
    PermissionDenied: "an authorization plug-in of the engine refuses it: ask who runs the engine",
    NotFound: "see what is there: helix doctor <instance>",
    Conflict: "something else has the name: rename the instance, or remove it",
    ConfigurationError: "correct the setting that the message names, in [deploy.<instance>]",
    Transient: "it is tried again; helix doctor says more of the engine",
    PlatformUnhealthy: "helix doctor says more of the engine",
}
"""What to do, where the class alone says it."""


@dataclass(frozen=True)
class EngineAddress:
    """Where an engine is, and how to get in."""

    host: str = ""
    """unix:///path, tcp://host:port or ssh://user@host:port; the engine that the docker command
    would speak to if empty."""
    tls: str = ""
    """A folder with ca.pem, cert.pem and key.pem, for tcp://."""
    tunnel: TunnelOptions = TunnelOptions()

    @property
    def url(self) -> str:
        """`host`, with the default filled in."""
        return self.host or default_host()

    @property
    def scheme(self) -> str:
        """unix, tcp or ssh."""
        return urlsplit(self.url).scheme

    @property
    def is_local(self) -> bool:
        """Whether the engine shares this machine's network and, as a rule, its disk."""
        return self.scheme == "unix"

    @property
    def machine(self) -> str:
        """The name under which people reach the engine's machine."""
        return "127.0.0.1" if self.is_local else urlsplit(self.url).hostname or "127.0.0.1"


class EngineSettings(BaseModel):
    """The settings of every kind that speaks to an engine: where it is, and how to get in."""

    model_config = ConfigDict(extra="ignore")

    host: str = ""
    """The engine: unix:///var/run/docker.sock, ssh://user@host:22 or tcp://host:2376."""
    tls: str | None = None
    """A folder with ca.pem, cert.pem and key.pem, for tcp://."""
    ssh_key: str | None = None
    """The private key file, for ssh://."""
    known_hosts: str | None = None
    """The file of known host keys, for ssh://."""
    network: str | None = None
    """A network of the engine that the release joins, to reach what else is there."""

    def engine(self) -> EngineAddress:
        """Where the engine is."""
        return EngineAddress(
            host=self.host,
            tls=self.tls or "",
            tunnel=TunnelOptions(identity=self.ssh_key or "", known_hosts=self.known_hosts or ""),
        )


def default_host() -> str:
    """DOCKER_HOST, else the docker command's current context, else the usual socket: the engine
    that a build on this machine uses too."""
    if host := os.environ.get("DOCKER_HOST"):
        return host
    from docker.context import ContextAPI

    try:
        context = ContextAPI.get_current_context()
    except (DockerException, OSError, ValueError, KeyError):
        return DEFAULT_HOST
    host = getattr(context, "Host", None) or DEFAULT_HOST
    return DEFAULT_HOST if host.startswith("http+unix") else host


class Engine:
    """Opened on first use, given back by `close`.

    Args:
        address: where it is.
        timeout: seconds to wait for one answer.
    """

    def __init__(self, address: EngineAddress, timeout: float = 60) -> None:
        self.address = address
        self._timeout = timeout
        self._tunnel: Tunnel | None = None
        self._ports: dict[int, int] = {}

    @cached_property
    def client(self) -> docker.DockerClient:
        """docker-py's client, connected.

        Raises:
            Transient: nothing answers.
            PermissionDenied, ConfigurationError: see the hint.
        """
        url, tls = self.address.url, None
        match self.address.scheme:
            case "unix":
                _try_socket(urlsplit(url).path)
            case "tcp" | "http" | "https":
                tls = self._tls()
            case "ssh":
                self._tunnel = Tunnel(url, self.address.tunnel)
                url = f"unix://{self._tunnel.socket}"
            case _:
                raise ConfigurationError(
                    f"«{url}» is not the address of an engine",
                    hint="write unix:///path, tcp://host:2376 or ssh://user@host",
                )
        with translated():
            return docker.DockerClient(
                base_url=url,
                version="auto",
                timeout=int(self._timeout),
                tls=tls or False,
                max_pool_size=POOL,
            )

    def reach(self, port: int) -> tuple[str, int]:
        """The host and port to dial from here for a port published on the engine's machine."""
        _ = self.client
        if self._tunnel is not None:
            if port not in self._ports:
                self._ports[port] = self._tunnel.forward(port)
            return "127.0.0.1", self._ports[port]
        return self.address.machine, port

    def check(self) -> dict[str, Any]:
        """See that the engine answers, for a person who waits for the answer. Returns what it says
        of itself.

        Raises:
            PlatformUnhealthy: this machine's own engine does not run.
            Transient: another machine's cannot be reached, or it cannot answer now.
        """
        if self.address.is_local:
            try:
                _try_socket(urlsplit(self.address.url).path)
            except Transient as error:
                raise PlatformUnhealthy(error.message, hint=error.hint) from None
        with translated():
            return dict(self.client.info())

    def close(self) -> None:
        """Give back connections and the tunnel. Idempotent."""
        if "client" in self.__dict__:
            self.client.close()
            del self.__dict__["client"]
        if self._tunnel is not None:
            self._tunnel.close()
            self._tunnel = None
        self._ports.clear()

    def __enter__(self) -> Engine:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def _tls(self) -> TLSConfig | None:
        folder = self.address.tls
        if not folder and not self.address.host and os.environ.get("DOCKER_TLS_VERIFY"):
            folder = os.environ.get("DOCKER_CERT_PATH", "")
        if not folder:
            return None
        files = {name: Path(folder).expanduser() / f"{name}.pem" for name in ("ca", "cert", "key")}
        for file in files.values():
            if not file.is_file():
                raise ConfigurationError(
                    f"the engine's TLS folder has no {file.name}: {folder}",
                    hint="it needs ca.pem, cert.pem and key.pem",
                )
        with translated():
            return _OwnAuthority(
                client_cert=(str(files["cert"]), str(files["key"])),
                ca_cert=str(files["ca"]),
                verify=True,
            )


class _OwnAuthority(TLSConfig):
    """TLS by the engine's own authority, whatever REQUESTS_CA_BUNDLE says: requests would prefer
    that one, and send the call through a proxy that is meant for the world."""

    def configure_client(self, client: docker.APIClient) -> None:
        super().configure_client(client)
        client.trust_env = False


@contextmanager
def translated(rows: Rows = ()) -> Iterator[None]:
    """docker-py's errors as those of `model.errors`. Also a decorator: `@translated()`.

    Args:
        rows: what a kind knows of its own, looked at before `SENTENCES`.
    """
    try:
        yield
    except HelixError:
        raise
    except APIError as error:
        raise from_api(error, rows) from None
    except requests.exceptions.Timeout:
        raise Transient("the engine does not answer in time", hint=HINTS[Transient]) from None
    except (requests.exceptions.RequestException, DockerException, OSError) as error:
        if "SSLError" in str(error):  # docker-py keeps its cause as text only
            raise ConfigurationError(
                f"TLS with the engine fails: {_line(error)}",
                hint="check the folder that `tls` names, and the host name in the certificate",
            ) from None
        raise Transient(
            f"the engine does not answer: {_line(error)}",
            hint="check that it runs; `helix doctor` says more",
        ) from None


def from_api(error: APIError, rows: Rows = ()) -> HelixError:
    """What an answer of the engine means: by its sentence, else by its status."""
    said = " ".join(str(error.explanation or error).split())
    for pattern, cls, hint in (*rows, *SENTENCES):
        if re.search(pattern, said, re.IGNORECASE):
            return cls(said, hint=hint or HINTS.get(cls, ""))
    status = getattr(error.response, "status_code", 500)
    cls = STATUS.get(status, classify(said, default=Transient))
    return cls(said, hint=HINTS.get(cls, ""))


def lines_of(chunks: Iterable[bytes]) -> Iterator[str]:
    """The lines of a stream of bytes, without their ends."""
    rest = b""
    for chunk in chunks:
        *whole, rest = (rest + chunk).split(b"\n")
        yield from (line.decode(errors="replace").rstrip("\r") for line in whole)
    if rest:
        yield rest.decode(errors="replace").rstrip("\r")


def _try_socket(path: str) -> None:
    """Dial the socket once: docker-py's own error for this does not say why it failed.

    Raises:
        PermissionDenied, Transient
    """
    probe = socket.socket(socket.AF_UNIX)
    probe.settimeout(5)
    try:
        probe.connect(path)
    except PermissionError:
        raise PermissionDenied(
            f"this account may not use the engine at {path}",
            hint="sudo usermod -aG docker $USER, then log in again",
        ) from None
    except OSError as error:
        reason = "it is not there" if error.errno == errno.ENOENT else error.strerror or str(error)
        raise Transient(
            f"no engine at {path}: {reason}",
            hint="start it (sudo systemctl start docker), or set DOCKER_HOST",
        ) from None
    finally:
        probe.close()


def _line(error: BaseException) -> str:
    return " ".join(str(error).split())[-200:]
