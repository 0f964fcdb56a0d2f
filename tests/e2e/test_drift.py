"""What runs is not what the ledger says: `status` and `plan` see it, whatever the reason."""

from __future__ import annotations

import json
import threading
from queue import Queue
from typing import Any

import pytest

from tests.e2e.machine import Machine, Project, eventually, lines

pytestmark = pytest.mark.engine


def of(report: dict[str, Any], project: Project) -> dict[str, Any]:
    """The project's instance in a report."""
    [found] = [one for one in report["instances"] if one["key"] == f"{project.name}/dev"]
    assert isinstance(found, dict)
    return found


def container(project: Project) -> Any:
    """The release's container."""
    [found] = [one for one in project.containers() if one.labels.get("helix.role") == "app"]
    return found


def test_a_live_table_shows_a_release_stop_and_go(project: Project, machine: Machine) -> None:
    project.behave("1")
    project.push()
    watching = machine.begin(
        "status", "--all", "--watch", "--interval", "0.3", "--json", cwd=machine.home
    )
    reports: Queue[dict[str, Any]] = Queue()

    def read() -> None:
        for line in lines(watching):
            reports.put(of(json.loads(line), project))

    thread = threading.Thread(target=read, daemon=True)
    thread.start()
    try:

        def state(wanted: str) -> dict[str, Any]:
            while (report := reports.get(timeout=60))["platform"]["state"] != wanted:
                pass
            return report

        assert state("running")["drift"] == ""
        container(project).stop(timeout=1)
        stopped = state("stopped")
        assert stopped["drift"].startswith("release 1 does not run: exited with code")
        container(project).start()
        assert state("running")["drift"] == ""
        container(project).remove(force=True)
        assert state("gone")["drift"] == "release 1 is gone"
    finally:
        watching.terminate()
        watching.wait(20)


def test_a_stopped_release_is_drift_for_plan_and_a_push_mends_it(project: Project) -> None:
    project.behave("1")
    project.push()
    assert project.helix("plan", "dev", "--json").document["drift"] == ""
    container(project).stop(timeout=1)
    plan = project.helix("plan", "dev", "--json", expect=10).document
    assert plan["changed"] and "does not run: exited with code" in plan["drift"]
    text = project.helix("status").out
    assert "! release 1 does not run: exited with code" in text
    project.push()
    assert eventually(project.version) == "1"
    assert of(project.helix("status", "--json").document, project)["drift"] == ""
    project.helix("plan", "dev")


def test_statistics_of_real_deployments(project: Project) -> None:
    project.behave("1")
    project.push()
    project.behave("2", "broken")
    project.push(expect=3)
    found = project.helix("stats", "dev", "--json", "--plot", "deploys.svg").document
    total = found["total"]
    assert total["outcomes"] == {
        "succeeded": 1, "rolled-back": 1, "cancelled": 0, "needs-attention": 0,
    }  # fmt: skip
    assert total["success_rate"] == 0.5 and total["success_met"] is False
    assert total["in_time"] == 1 and total["steps"]["build"]["count"] == 2
    assert [(one["step"], one["code"]) for one in total["causes"]] == [
        ("health-check", "HealthCheckFailed")
    ]
    assert "deploys.svg" in [one.name for one in project.folder.iterdir()]
    text = project.helix("stats").out
    assert "succeeded: 50 %  (goal 99.9 %: missed)" in text and "HealthCheckFailed" in text
    everything = project.helix("stats", "--all", "--json").document
    assert f"{project.name}/dev" in everything["instances"]
