"""The self-hosted stack of docker-compose.yml for tests, beside whatever else runs on the engine.

with stack(tmp_path, worker_image) as running:
    running.up()
    running.env  # for a person's commands
    running.kill()  # all of it, at once
"""

from __future__ import annotations

import json
import os
import random
import shutil
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import docker
from docker.models.containers import Container

from model.instance import JsonValue
from scripts.setup import stack as programs
from scripts.setup.shell import ROOT, SetupFailed
from scripts.stack import REGISTRY_USER, prepare
from tests.services.need import missing

UP_SECONDS = 240
USER = os.getuid() or 12345
"""Who uses the stack, and whom its workers run as: never root, whoever runs the tests."""
AS_USER = (
    []
    if os.getuid()
    else [
        "setpriv", f"--reuid={USER}", f"--regid={USER}", "--clear-groups",
        # Python may be in root's home.
        "--inh-caps=+dac_read_search", "--ambient-caps=+dac_read_search",
    ]
)  # fmt: skip
"""What a command begins with to be run as that user."""
PORTS = ("TEMPORAL", "UI", "CODEC", "POSTGRES", "REGISTRY", "PROMETHEUS", "GRAFANA", "OTLP")
LABEL = "com.docker.compose.project"


@dataclass(frozen=True)
class StackRegistry:
    """Its registry, as an instance's table names it: see `tests.e2e.machine.make_project`."""

    host: str
    settings: dict[str, JsonValue]
    password: str


@dataclass
class Stack:
    """One that may run."""

    name: str
    folder: Path
    env_file: Path
    ports: dict[str, int]

    def compose(self, *words: str) -> subprocess.CompletedProcess[str]:
        """`docker compose` of this stack, run to its end."""
        return subprocess.run(
            [*programs.compose(), "--env-file", str(self.env_file), *words],
            cwd=ROOT,
            capture_output=True,
            text=True,
            timeout=UP_SECONDS,
        )

    def up(self) -> None:
        """Bring it up, and wait until all of it is healthy.

        Raises:
            AssertionError: it does not get healthy; with what compose and the containers say.
        """
        done = self.compose("up", "--detach", "--wait", "--no-build")
        logs = "" if done.returncode == 0 else self.compose("logs", "--tail=20").stdout
        assert done.returncode == 0, done.stderr + logs

    def down(self) -> None:
        """Remove it with its data."""
        done = self.compose("down", "--volumes", "--timeout=20")
        assert done.returncode == 0, done.stderr

    def containers(self, *, running: bool = False) -> list[Container]:
        """Its containers."""
        found: list[Container] = docker.from_env().containers.list(
            all=not running, filters={"label": f"{LABEL}={self.name}"}
        )
        return found

    def kill(self) -> None:
        """SIGKILL for all that runs, at once."""
        ids = [container.id for container in self.containers(running=True)]
        subprocess.run(["docker", "kill", *ids], check=True, capture_output=True)

    def remains(self) -> list[str]:
        """What is left of it on the engine."""
        engine, label = docker.from_env(), {"label": f"{LABEL}={self.name}"}
        found = [*self.containers(), *engine.volumes.list(filters=label)]
        return sorted(one.name for one in [*found, *engine.networks.list(filters=label)])

    def url(self, service: str) -> str:
        """Where a service is published, by the name of its port."""
        return f"http://127.0.0.1:{self.ports[service]}"

    def secret(self, name: str) -> str:
        """What a secret's file says."""
        return (self.folder / "secrets" / name).read_text().strip()

    def secrets(self) -> dict[str, str]:
        """Every secret by what it is for, in the form in which it would be seen."""
        found = {
            file.name: file.read_text().strip() for file in (self.folder / "secrets").iterdir()
        }
        found["encryption-keys"] = found["encryption-keys"].partition(":")[2]
        found["registry-key"] = found["registry-key"].splitlines()[1]
        found["pgpass"] = found["pgpass"].rpartition(":")[2]
        found["registry-htpasswd"] = found["registry-htpasswd"].partition(":")[2]
        return found | {"registry-password": self.registry.password}

    @cached_property
    def registry(self) -> StackRegistry:
        """Its registry."""
        password = self.folder / "registry" / "password"
        settings: dict[str, JsonValue] = {
            "ca": str(self.folder / "registry" / "ca.pem"),
            "username": REGISTRY_USER,
            "password": f"file:{password}",
        }
        return StackRegistry(
            f"127.0.0.1:{self.ports['REGISTRY']}", settings, password.read_text().strip()
        )

    @cached_property
    def env(self) -> dict[str, str]:
        """What `client.env` sets in a person's shell."""
        script = '. "$0"; exec env -0'
        done = subprocess.run(
            ["sh", "-c", script, self.folder / "client.env"],
            env={},
            capture_output=True,
            check=True,
        )
        pairs = (line.partition("=") for line in done.stdout.decode().split("\0") if line)
        return {
            name: value
            for name, _, value in pairs
            if name.startswith(("TEMPORAL_", "HELIX_", "OTEL_"))
        }

    def spans(self) -> list[dict[str, Any]]:
        """The resources whose spans its collector has kept."""
        lines = (self.folder / "data" / "traces" / "spans.jsonl").read_text().splitlines()
        return [resource for line in lines for resource in json.loads(line)["resourceSpans"]]


@contextmanager
def stack(folder: Path, worker_image: str) -> Iterator[Stack]:
    """A stack of its own name, ports and network, not up yet; gone afterwards, with its data."""
    _require()
    number = random.randrange(1, 255)
    ports = dict(zip(PORTS, _free_ports(len(PORTS)), strict=True))
    made = Stack(f"hxstack{os.getpid()}", folder / "stack", folder / "env", ports)
    # By a name that nobody else builds: `up` replaces what runs another image.
    image = f"helix-deploy/worker:{made.name}"
    subprocess.run(["docker", "tag", worker_image, image], check=True)
    chosen = {
        "STACK_NAME": made.name,
        "STACK_USER": f"{USER}:{USER if AS_USER else os.getgid()}",
        "STACK_SUBNET": f"10.213.{number}.0/24",
        "STACK_GATEWAY": f"10.213.{number}.1",
        "STACK_HEALTH_INTERVAL": "2s",
        "STACK_WORKER_IMAGE": image,
        **{f"STACK_{name}_PORT": str(port) for name, port in ports.items()},
    }
    prepare(made.folder, made.env_file, chosen)
    give(folder)
    try:
        yield made
    finally:
        made.down()
        subprocess.run(["docker", "rmi", image], check=True, capture_output=True)


def give(folder: Path) -> None:
    """Let all that is in a folder be the user's."""
    for one in (folder, *folder.rglob("*")):
        shutil.chown(one, USER)


def _free_ports(count: int) -> list[int]:
    """Ports that nobody uses, and that the system gives to no client while the stack is down."""
    found: list[int] = []
    for port in random.sample(range(20000, 30000), 200):
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) != 0:
                found.append(port)
        if len(found) == count:
            break
    return found


def _require() -> None:
    try:
        programs.compose()
    except SetupFailed as error:
        missing("stack", error.what, error.mend)
    for image in programs.IMAGES:
        done = subprocess.run(["docker", "image", "inspect", image], capture_output=True)
        if done.returncode != 0:
            missing("stack", f"the engine has no image {image}", "run: make tools")
