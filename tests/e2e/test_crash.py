"""Whatever is killed, at whatever moment: the deployment reaches a legal end and leaves nothing.

The worker, or the Temporal server, is killed with SIGKILL while a certain activity runs. Then the
person types `helix up`, as any next command does by itself, and looks at what became of it.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from tests.e2e.machine import Machine, Project, eventually
from tests.e2e.runs import is_running, wait_for_activity
from tests.services.proxy import Proxy, proxy
from tests.services.registry import TestRegistry

pytestmark = pytest.mark.engine

DOCKERFILE = """
ARG BASE=python:3-slim
FROM ${BASE}
COPY app.py behaviour.json /app/
RUN sleep 3
COPY ballast /ballast
CMD ["python3", "-u", "/app/app.py"]
"""


@pytest.fixture
def slow_registry(registry: TestRegistry) -> Iterator[Proxy]:
    """The registry behind a line that takes some seconds for an image."""
    url = urlsplit(f"https://{registry.host}")
    with proxy(url.hostname or "", url.port or 0) as running:
        yield running


@pytest.fixture
def project(
    projects: Callable[..., Project], slow_registry: Proxy, registry: TestRegistry
) -> Project:
    """Every activity of it takes long enough to be hit."""
    made = projects(deploy='strategy = "stop-first"')
    toml = made.folder / "helix.toml"
    toml.write_text(toml.read_text().replace(registry.host, slow_registry.host))
    (made.folder / "ballast").write_bytes(os.urandom(1_000_000))
    (made.folder / "Dockerfile").write_text(DOCKERFILE)
    made.behave("1", stubborn=True)
    made.push()
    return made


VICTIMS = ("worker", "server")
MOMENTS = {
    "build": {},
    "push": {},
    "start_release": {},
    "check_health": {"slow_start": 2},
    "restore_release": {"mode": "silent"},
}
"""Activity -> what the second release does, so that the activity is reached."""


def kill(machine: Machine, victim: str) -> None:
    """SIGKILL, and nobody is told."""
    pid = machine.stack()[victim]["pid"]
    os.kill(pid, signal.SIGKILL)
    eventually(lambda: not _lives(pid), what=f"the death of the {victim}")


def _lives(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().split(")")[1].split()[0] not in "ZX"
    except OSError:
        return False


@pytest.mark.parametrize("victim", VICTIMS)
@pytest.mark.parametrize("moment", MOMENTS)
def test_a_kill_leaves_nothing_half_done(
    machine: Machine, project: Project, slow_registry: Proxy, moment: str, victim: str
) -> None:
    (project.folder / "ballast").write_bytes(os.urandom(3_000_000))
    project.behave("2", **MOMENTS[moment])
    slow_registry.bytes_per_second = 1_000_000
    pushing = project.begin_push()
    wait_for_activity(machine, project, moment)
    kill(machine, victim)
    slow_registry.bytes_per_second = 0
    pushing.kill()
    pushing.communicate()

    machine.helix("up")
    eventually(lambda: not is_running(machine, project), 120, "the end of the deployment")

    newest = project.history()[0]
    outcome = newest["progress"]["outcome"]
    survivor = {"succeeded": "2", "rolled-back": "1"}[outcome]
    assert outcome == ("rolled-back" if moment == "restore_release" else "succeeded")
    assert project.version() == survivor
    apps = [one for one in project.containers() if one.labels.get("helix.role") == "app"]
    assert [one.labels["helix.release"] for one in apps if one.status == "running"] == [survivor]
    assert {one.labels["helix.release"] for one in apps} <= {"1", survivor}
    assert not list((machine.home / "state" / "scratch").rglob("context"))
    # No lock is left: the next push is not refused.
    project.behave("3")
    project.push()
    assert project.version() == "3"
