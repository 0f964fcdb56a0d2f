"""Real registries for tests: Debian's docker-registry on loopback, in the forms people run it.

with secured_registry(tmp_path) as registry:
    ...  # registry.host, registry.ca, registry.username, registry.password
    registry.stop()  # an outage
    registry.start()
"""

from __future__ import annotations

import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml
from pydantic import JsonValue, SecretStr

from model.instance import RegistryTarget
from registries.base import RegistryContext
from tests.fakes.token_server import ISSUER, SERVICE, TokenServer, token_server
from tests.services.certificates import Certificates, make_certificates
from tests.services.need import program

USERNAME = "helix"
PASSWORD = "correct horse"
_HTPASSWD = "helix:$2y$04$DpcZKJ/lXEyXfhVR7Z3Mzu1bUBfPHkGUrtHPAlru8ovCMeaXeRpSm\n"
"""The bcrypt of PASSWORD, which opens nothing but these registries."""
START_SECONDS = 15.0


@dataclass
class TestRegistry:
    """A registry that runs."""

    __test__ = False

    folder: Path
    port: int
    config: dict[str, Any]
    ca: Path | None = None
    username: str = ""
    password: str = ""
    tokens: TokenServer | None = None
    address: str = "127.0.0.1"
    _process: subprocess.Popen[bytes] | None = field(default=None, repr=False)

    @property
    def host(self) -> str:
        """Host and port, as image names have them."""
        return f"{self.address}:{self.port}"

    @property
    def settings(self) -> dict[str, JsonValue]:
        """What an instance's registry table would say."""
        found: dict[str, JsonValue] = {}
        if self.ca is not None:
            found["ca"] = str(self.ca)
        if self.username:
            found |= {"username": self.username, "password": "env:REGISTRY_PASSWORD"}
        return found

    @property
    def context(self) -> RegistryContext:
        """Resolves the reference in `settings`."""
        return RegistryContext(secret=lambda reference: SecretStr(self.password))

    def target(self, path: str, **settings: JsonValue) -> RegistryTarget:
        """A repository here; settings replace our own."""
        merged = {**self.settings, **settings}
        return RegistryTarget(repository=f"{self.host}/{path}", settings=merged)

    def start(self) -> None:
        """Start it, if it does not run, and wait until it answers. Its data is still there."""
        if self._process is not None:
            return
        file = self.folder / "registry.yml"
        file.write_text(yaml.safe_dump(self.config))
        with (self.folder / "registry.log").open("ab") as log:
            self._process = subprocess.Popen(
                [program("docker-registry", "registry", _MEND), "serve", str(file)],
                stdout=log,
                stderr=log,
            )
        deadline = time.monotonic() + START_SECONDS
        while time.monotonic() < deadline and self._process.poll() is None:
            with socket.socket() as probe:
                if probe.connect_ex((self.address, self.port)) == 0:
                    return
            time.sleep(0.02)
        self.stop()
        tail = (self.folder / "registry.log").read_text()[-2000:]
        raise RuntimeError(f"the registry on port {self.port} did not start:\n{tail}")

    def stop(self, how: signal.Signals = signal.SIGKILL) -> None:
        """An outage: connections are refused from now on."""
        if self._process is not None:
            self._process.send_signal(how)
            self._process.wait()
            self._process = None


_MEND = "on Debian: apt-get install docker-registry"


@contextmanager
def open_registry(
    folder: Path,
    *,
    auth: dict[str, Any] | None = None,
    tls: Certificates | None = None,
    **more: Any,
) -> Iterator[TestRegistry]:
    """A registry with this `auth` section, with TLS if certificates are given.

    Args:
        folder: where its data, configuration and log go.
        more: further settings of the object that is yielded, such as another `address` of this
            machine to listen on, or `delete=False` to forbid deletion.
    """
    program("docker-registry", "registry", _MEND)
    folder.mkdir(parents=True, exist_ok=True)
    port = free_port()
    storage = {
        "filesystem": {"rootdirectory": str(folder / "data")},
        "delete": {"enabled": more.pop("delete", True)},
        "maintenance": {"readonly": {"enabled": more.pop("readonly", False)}},
    }
    address = more.get("address", "127.0.0.1")
    http: dict[str, Any] = {"addr": f"{address}:{port}", "relativeurls": True}
    if tls is not None:
        http["tls"] = {"certificate": str(tls.certificate), "key": str(tls.key)}
    config = {"version": 0.1, "log": {"level": "warn"}, "storage": storage, "http": http}
    if auth is not None:
        config["auth"] = auth
    registry = TestRegistry(folder, port, config, ca=tls.ca if tls else None, **more)
    registry.start()
    try:
        yield registry
    finally:
        registry.stop()


@contextmanager
def plain_registry(folder: Path, **more: Any) -> Iterator[TestRegistry]:
    """Plain HTTP, open to all."""
    with open_registry(folder, **more) as registry:
        yield registry


@contextmanager
def secured_registry(folder: Path, **more: Any) -> Iterator[TestRegistry]:
    """TLS by a private authority, user name and password."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "htpasswd").write_text(_HTPASSWD)
    auth = {"htpasswd": {"realm": "test", "path": str(folder / "htpasswd")}}
    addresses = [more["address"]] if "address" in more else []
    certificates = make_certificates(folder / "tls", addresses=addresses)
    account = {"username": USERNAME, "password": PASSWORD}
    with open_registry(folder, auth=auth, tls=certificates, **account, **more) as registry:
        yield registry


@contextmanager
def token_registry(folder: Path, **more: Any) -> Iterator[TestRegistry]:
    """Plain HTTP and tokens from a token server, which is `tokens` of what is yielded."""
    certificates = make_certificates(folder / "tokens")
    with token_server(certificates) as server:
        server.users[USERNAME] = PASSWORD
        auth = {
            "token": {
                "realm": server.realm,
                "service": SERVICE,
                "issuer": ISSUER,
                "rootcertbundle": str(certificates.ca),
            }
        }
        account: dict[str, Any] = {"username": USERNAME, "password": PASSWORD, "tokens": server}
        with open_registry(folder, auth=auth, **account, **more) as registry:
            yield registry


@contextmanager
def trusted(registry: TestRegistry) -> Iterator[None]:
    """The engines of this machine trust the registry's certificate. They need not be told of those
    that are on loopback."""
    assert registry.ca is not None
    folder = Path("/etc/docker/certs.d", registry.host)
    folder.mkdir(parents=True)
    try:
        (folder / "ca.crt").write_bytes(registry.ca.read_bytes())
        yield
    finally:
        (folder / "ca.crt").unlink(missing_ok=True)
        folder.rmdir()


def free_port() -> int:
    """A loopback port that nobody listens on at this moment."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
