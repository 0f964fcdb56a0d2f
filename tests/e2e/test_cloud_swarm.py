"""`helix push` to a real swarm, by way of a registry with a password."""

from __future__ import annotations

import dataclasses
import json
import re
import shutil
import tempfile
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.machine import APP, Machine, Project, eventually
from tests.services.registry import TestRegistry, free_port
from tests.services.swarm import Swarm, swarm

pytestmark = pytest.mark.engine


@pytest.fixture(scope="module")
def bed(registry: TestRegistry) -> Iterator[Swarm]:
    """A swarm that reaches the registry."""
    with (
        tempfile.TemporaryDirectory(prefix="hx-swarm-") as folder,
        swarm(Path(folder)) as found,
        found.lent(registry.port),
    ):
        yield found


@dataclasses.dataclass
class SwarmProject(Project):
    """A project whose instance `dev` runs on the swarm."""

    bed: Swarm | None = None

    @property
    def url(self) -> str:
        assert self.bed is not None
        return f"http://{self.bed.address}:{self.port}"

    def services(self) -> list[str]:
        assert self.bed is not None
        found = self.bed.client.services.list()
        return [str(one.name) for one in found if self.name in str(one.name)]


@pytest.fixture
def project(machine: Machine, bed: Swarm, registry: TestRegistry) -> Iterator[SwarmProject]:
    name = f"e2e{uuid.uuid4().hex[:8]}"
    folder = machine.home / name
    shutil.copytree(APP, folder, ignore=shutil.ignore_patterns("helix.toml"))
    made = SwarmProject(machine, folder, name, free_port(), registry, bed)
    lines = [
        "[project]",
        f'name = "{name}"',
        "[cloud.dev.swarm]",
        f'host = "{bed.host}"',
        f'tls = "{bed.tls}"',
        f"publish = {made.port}",
        'publish_mode = "host"',
        "monitor = 0.5",
        "[deploy.dev]",
        "stop_grace = 3",
        "[deploy.dev.secrets]",
        'PASSWORD = "env:REGISTRY_PASSWORD"',
        "[deploy.dev.health_check]",
        'path = "/"',
        "deadline = 6",
        "[deploy.dev.registry]",
        f'repository = "{made.repository}"',
        *(f"{key} = {json.dumps(value)}" for key, value in registry.settings.items()),
    ]
    (folder / "helix.toml").write_text("\n".join(lines) + "\n")
    yield made
    for service in bed.client.services.list():
        if name in str(service.name):
            service.remove()


def told(project: SwarmProject) -> str:
    """What `helix status` says, if the swarm answered in time."""
    text = project.helix("status", "dev").text
    return "" if "cannot tell" in text else text


def test_the_life_of_an_instance_on_a_swarm(project: SwarmProject, registry: TestRegistry) -> None:
    project.behave("1")
    project.push()
    assert project.version() == "1"
    project.behave("2")
    pushed = project.push()
    assert project.version() == "2", pushed.text

    project.behave("3", "broken")
    result = project.push(expect=3)
    assert "answers 500" in result.text
    assert project.version() == "2"
    newest = project.history()[0]
    assert newest["progress"]["outcome"] == "rolled-back"

    status = eventually(lambda: told(project), 60, "the swarm's word")
    assert re.search(r"dev\s+swarm\s+2\b", status)
    assert project.helix("logs", "dev").text.strip()
    project.helix("rollback", "--instance", "dev", "--yes")
    assert project.version() == "1"
    plan = project.helix("plan", "dev", "--json", expect=None).document
    assert plan["drift"] == "" and plan["kind"] == "swarm"

    assert registry.password not in json.dumps(project.history())
    project.helix("destroy", "dev", "--yes")
    assert project.services() == []
    assert project.version() is None
