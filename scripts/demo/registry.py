"""The demo's own registry: a container with TLS and a password, both made for this machine."""

from __future__ import annotations

import json
import os
import secrets
import ssl
import time
import urllib.error
import urllib.request
from dataclasses import dataclass
from pathlib import Path

import bcrypt

from scripts.setup.shell import SetupFailed, run
from tests.services.certificates import make_certificates

IMAGE = "registry:2"
USERNAME = "demo"
INSIDE = "/etc/docker/registry"
START_SECONDS = 20.0
CONFIG = {
    "version": 0.1,
    "log": {"level": "warn"},
    "storage": {
        "filesystem": {"rootdirectory": "/var/lib/registry"},
        "delete": {"enabled": True},
    },
    "http": {
        "addr": ":5000",
        "tls": {"certificate": f"{INSIDE}/server.pem", "key": f"{INSIDE}/server.key"},
    },
    "auth": {"htpasswd": {"realm": "demo", "path": f"{INSIDE}/htpasswd"}},
}
"""As JSON, which is YAML too."""


@dataclass(frozen=True)
class DemoRegistry:
    """Where it is, and how to log in."""

    folder: Path
    name: str
    """The container's."""
    port: int

    @property
    def host(self) -> str:
        """Host and port, as image names have them."""
        return f"127.0.0.1:{self.port}"

    @property
    def ca(self) -> Path:
        """The authority that signed its certificate."""
        return self._inside / "ca.pem"

    @property
    def _inside(self) -> Path:
        """What the container has under `INSIDE`."""
        return self.folder / INSIDE.lstrip("/")

    @property
    def password(self) -> Path:
        """The file that holds the password, for its owner only."""
        return self.folder / "password"

    def ensure(self) -> None:
        """Have it run and answer.

        Raises:
            SetupFailed: it does not answer.
        """
        state = self._state()
        if state is None:
            self._make_files()
            create = ["docker", "create", "--name", self.name, "--label", "helix.demo=registry"]
            mend = "see that the engine works (docker version), then run make demo again"
            run([*create, "-p", f"{self.host}:5000", IMAGE], mend=mend)
            run(["docker", "cp", f"{self.folder / 'etc'}/.", f"{self.name}:/etc"], mend=mend)
        if state != "running":
            mend = f"see why: docker logs {self.name}; then: make demo-down demo"
            run(["docker", "start", self.name], mend=mend)
        self._wait()

    def remove(self) -> None:
        """Remove it with all that is stored in it."""
        if self._state() is not None:
            run(["docker", "rm", "--force", "--volumes", self.name], mend="docker ps -a")

    def _state(self) -> str | None:
        command = ["docker", "ps", "--all", "--filter", f"name=^{self.name}$"]
        return run([*command, "--format", "{{.State}}"], mend="docker version").strip() or None

    def _make_files(self) -> None:
        inside = self._inside
        make_certificates(inside, name="helix demo authority", days=365)
        password = secrets.token_urlsafe(24)
        _write_private(self.password, password)
        hashed = bcrypt.hashpw(password.encode(), bcrypt.gensalt(rounds=5)).decode()
        _write_private(inside / "htpasswd", f"{USERNAME}:{hashed}\n")
        (inside / "config.yml").write_text(json.dumps(CONFIG))

    def _wait(self) -> None:
        trust = ssl.create_default_context(cafile=str(self.ca))
        direct = urllib.request.build_opener(
            urllib.request.HTTPSHandler(context=trust), urllib.request.ProxyHandler({})
        )
        deadline = time.monotonic() + START_SECONDS
        while time.monotonic() < deadline:
            try:
                direct.open(f"https://{self.host}/v2/", timeout=2)
            except urllib.error.HTTPError as answer:
                if answer.code == 401:  # it wants the password: it works
                    return
            except OSError:
                pass
            time.sleep(0.1)
        raise SetupFailed(
            f"the registry at {self.host} did not answer within {START_SECONDS:.0f} s",
            f"see why: docker logs {self.name}; then: make demo-down demo",
        )


def _write_private(path: Path, text: str) -> None:
    path.unlink(missing_ok=True)
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        file.write(text)
