"""A cancel during any step cleans up; a second push is refused and told who is first."""

from __future__ import annotations

import os
from typing import Any

import pytest

from tests.e2e.machine import Machine, Project, eventually
from tests.e2e.runs import wait_for_activity
from tests.services.proxy import Proxy

pytestmark = pytest.mark.engine


def phase(project: Project) -> str:
    """What the running deployment is at."""
    document = project.helix("status", "dev", "--json").document
    running = document.get("deployment") or document["instances"][0].get("deployment")
    return str(running["phase"]) if running else ""


def test_a_second_push_exits_5_and_names_the_first(project: Project) -> None:
    project.patience(120)
    project.behave("1", "silent")
    first = project.begin_push()
    eventually(lambda: phase(project), what="the first push")
    project.behave("2")
    second = project.push(expect=5)
    assert "helix cancel" in second.text and "helix follow" in second.text
    project.helix("cancel", "dev")
    first.communicate(timeout=120)
    assert first.returncode == 7


def test_a_cancelled_release_is_undone(project: Project) -> None:
    project.behave("1")
    project.push()
    project.patience(120)
    project.behave("2", "silent")
    pushing = project.begin_push()
    eventually(lambda: phase(project) == "health-check", what="the health check")
    project.helix("cancel", "dev", "--reason", "wrong version")
    pushing.communicate(timeout=60)
    assert pushing.returncode == 7
    assert project.version() == "1"
    assert project.history()[0]["progress"]["outcome"] == "cancelled"
    running = [one for one in project.containers() if one.labels.get("helix.role") == "app"]
    assert [one.labels["helix.release"] for one in running] == ["1"]


MOMENTS: dict[str, dict[str, Any]] = {
    "build": {},
    "push": {},
    "start_release": {},
    "check_health": {"mode": "silent"},
}
"""Activity -> what the second release does, so that the activity takes its time."""


@pytest.mark.parametrize("moment", MOMENTS)
def test_a_cancel_during_a_step_cleans_up(
    machine: Machine, slow_project: Project, slow_registry: Proxy, moment: str
) -> None:
    project = slow_project
    project.patience(120)
    (project.folder / "ballast").write_bytes(os.urandom(3_000_000))
    project.behave("2", **MOMENTS[moment])
    slow_registry.bytes_per_second = 1_000_000
    pushing = project.begin_push()
    wait_for_activity(machine, project, moment)
    project.helix("cancel", "dev")
    slow_registry.bytes_per_second = 0
    pushing.communicate(timeout=60)
    assert pushing.returncode == 7
    assert project.version() == "1"
    apps = [one for one in project.containers() if one.labels.get("helix.role") == "app"]
    assert [one.labels["helix.release"] for one in apps] == ["1"]
    assert not list((machine.home / "state" / "scratch").rglob("context"))
    project.behave("3")
    project.push()
    assert project.version() == "3"
