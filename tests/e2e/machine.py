"""A person at a machine: the real command, its embedded stack, an engine and a registry."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import docker
import httpx

from tests.services.registry import TestRegistry, free_port

APP = Path(__file__).parent / "app"
HELIX = [sys.executable, "-m", "cli"]
ROOT = Path(__file__).parent.parent.parent


@dataclass
class Result:
    """How a command ended."""

    exit: int
    out: str
    err: str

    @property
    def document(self) -> Any:
        """The command's one JSON document."""
        return json.loads(self.out)

    @property
    def events(self) -> list[dict[str, Any]]:
        """The command's stream of JSON lines."""
        return [json.loads(line) for line in self.out.splitlines() if line.startswith("{")]

    @property
    def text(self) -> str:
        """Everything it printed."""
        return self.out + self.err


@dataclass
class Machine:
    """One state folder, and all commands run with it."""

    home: Path
    env: dict[str, str] = field(default_factory=dict)
    command: list[str] = field(default_factory=lambda: HELIX)
    """How the command is started."""

    def environ(self) -> dict[str, str]:
        """What every command is run with."""
        clean = {key: value for key, value in os.environ.items() if not key.startswith("TEMPORAL_")}
        return {
            **clean,
            "HELIX_STATE_DIR": str(self.home / "state"),
            "NO_COLOR": "1",
            "PYTHONPATH": str(ROOT),
            **self.env,
        }

    def helix(
        self, *words: str, cwd: Path | None = None, expect: int | None = 0, timeout: float = 180
    ) -> Result:
        """Run the command to its end.

        Args:
            expect: the exit code that must come; None if any may.
        """
        done = subprocess.run(
            [*self.command, *words],
            cwd=cwd or self.home,
            env=self.environ(),
            capture_output=True,
            text=True,
            timeout=timeout,
            stdin=subprocess.DEVNULL,
        )
        result = Result(done.returncode, done.stdout, done.stderr)
        if expect is not None:
            assert result.exit == expect, f"helix {' '.join(words)}: {result.exit}\n{result.text}"
        return result

    def begin(self, *words: str, cwd: Path) -> subprocess.Popen[str]:
        """Start the command and go on."""
        return subprocess.Popen(
            [*self.command, *words],
            cwd=cwd,
            env=self.environ(),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            stdin=subprocess.DEVNULL,
        )

    def stack(self) -> dict[str, Any]:
        """What `helix up` recorded of the server and the worker."""
        document: dict[str, Any] = self.helix("up", "--json").document
        return document


@dataclass
class Project:
    """A folder with a helix.toml and the controllable app."""

    machine: Machine
    folder: Path
    name: str
    port: int
    registry: TestRegistry | None

    @property
    def url(self) -> str:
        """Where the instance serves."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def repository(self) -> str:
        """Where its images are stored."""
        assert self.registry is not None
        return f"{self.registry.host}/{self.name}"

    def behave(self, version: str, mode: str = "good", **more: Any) -> None:
        """Change the source."""
        (self.folder / "behaviour.json").write_text(
            json.dumps({"version": version, "mode": mode, **more})
        )

    def patience(self, seconds: int) -> None:
        """How long a release may take to become healthy; 6 seconds at first."""
        toml = self.folder / "helix.toml"
        toml.write_text(toml.read_text().replace("deadline = 6", f"deadline = {seconds}"))

    def push(self, *words: str, expect: int | None = 0, timeout: float = 180) -> Result:
        """`helix push dev`."""
        return self.machine.helix(
            "push", "dev", *words, cwd=self.folder, expect=expect, timeout=timeout
        )

    def begin_push(self, *words: str) -> subprocess.Popen[str]:
        """`helix push dev`, in the background."""
        return self.machine.begin("push", "dev", *words, cwd=self.folder)

    def helix(self, *words: str, expect: int | None = 0) -> Result:
        """Any command, in the project's folder."""
        return self.machine.helix(*words, cwd=self.folder, expect=expect)

    def version(self) -> str | None:
        """What the instance answers now; None if it does not."""
        try:
            answer = httpx.get(self.url, timeout=10)
        except httpx.HTTPError:
            return None
        return answer.json()["version"] if answer.status_code == 200 else None

    def containers(self) -> list[Any]:
        """Everything of this project in the engine, running or not."""
        return [
            one
            for one in docker.from_env().containers.list(all=True, ignore_removed=True)
            if self.name in one.name
        ]

    def history(self) -> list[dict[str, Any]]:
        """What the ledger has, newest first."""
        found = self.helix("history", "dev", "--json").document
        rows: list[dict[str, Any]] = found["deployments"] if isinstance(found, dict) else found
        return rows


def make_project(
    machine: Machine,
    registry: TestRegistry | None,
    *,
    deploy: str = "",
    source: Path = APP,
) -> Project:
    """A new project whose instance `dev` runs on this machine's engine."""
    name = f"e2e{uuid.uuid4().hex[:8]}"
    folder = machine.home / name
    shutil.copytree(source, folder, ignore=shutil.ignore_patterns("helix.toml"))
    project = Project(machine, folder, name, free_port(), registry)
    lines = [
        "[project]",
        f'name = "{name}"',
        "[cloud.dev.docker]",
        f"publish = {project.port}",
        "[deploy.dev]",
        "stop_grace = 3",
        deploy,
        "[deploy.dev.health_check]",
        'path = "/"',
        "deadline = 6",
    ]
    if registry is not None:
        lines += ["[deploy.dev.registry]", f'repository = "{project.repository}"']
        settings = registry.settings
        lines += [f"{key} = {json.dumps(value)}" for key, value in settings.items()]
    (folder / "helix.toml").write_text("\n".join(lines) + "\n")
    return project


def eventually(check: Any, seconds: float = 30, what: str = "it") -> Any:
    """Wait until the check is true, and return what it returned."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if found := check():
            return found
        time.sleep(0.1)
    raise AssertionError(f"{what} did not come within {seconds} s")


def clean_up(project: Project) -> None:
    """Remove what the project left in the engine, whatever state it is in."""
    engine = docker.from_env()
    for container in project.containers():
        container.remove(force=True, v=True)
    for network in engine.networks.list():
        if project.name in network.name:
            network.remove()
    for volume in engine.volumes.list():
        if project.name in volume.name:
            volume.remove(force=True)
    for image in engine.api.images():  # the more there are, the longer an engine takes to list them
        if any(project.name in str(name) for name in image["RepoTags"] or ()):
            with suppress(docker.errors.NotFound):  # it had two names
                engine.api.remove_image(image["Id"], force=True)


def lines(process: subprocess.Popen[str]) -> Iterator[str]:
    """What a background command prints."""
    assert process.stdout is not None
    yield from process.stdout
