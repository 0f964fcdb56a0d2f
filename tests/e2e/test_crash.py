"""Whatever is killed, at whatever moment: the deployment reaches a legal end and leaves nothing.

The worker, or the Temporal server, is killed with SIGKILL while a certain activity runs. Then the
person types `helix up`, as any next command does by itself, and looks at what became of it.
"""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from tests.e2e.machine import Machine, Project, eventually
from tests.e2e.runs import is_running, wait_for_activity
from tests.services.proxy import Proxy

pytestmark = pytest.mark.engine

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
    machine: Machine, slow_project: Project, slow_registry: Proxy, moment: str, victim: str
) -> None:
    project = slow_project
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
