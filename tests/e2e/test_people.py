"""A person is asked, and answers at the command line."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.e2e.machine import Project, eventually
from tests.e2e.test_cancel import phase

pytestmark = pytest.mark.engine


def asks(project: Project, what: str) -> None:
    eventually(lambda: phase(project) == f"asking-{what}", 60, f"the question about {what}")


def test_a_release_waits_for_approval(projects: Callable[..., Project]) -> None:
    project = projects(deploy="approval = true")
    project.behave("1")
    pushing = project.begin_push()
    asks(project, "approval")
    assert project.version() is None and project.containers() == []
    refused = project.helix("answer", "retry", "dev", expect=2)
    assert "is no answer here" in refused.text
    project.helix("approve", "dev", "--reason", "looks good")
    out, _ = pushing.communicate(timeout=60)
    assert pushing.returncode == 0, out
    assert "helix approve" in out and project.version() == "1"
    assert project.history()[0]["progress"]["decisions"][0]["why"] == "looks good"

    project.behave("2")
    pushing = project.begin_push()
    asks(project, "approval")
    project.helix("reject", "dev", "--reason", "not today")
    out, _ = pushing.communicate(timeout=60)
    assert pushing.returncode == 3 and "not today" in out
    assert project.version() == "1"


def test_a_failed_step_asks_what_to_do(projects: Callable[..., Project]) -> None:
    project = projects(deploy='on_failure = "ask"')
    project.behave("1")
    project.push()
    project.behave("2", "broken")
    pushing = project.begin_push()
    asks(project, "health-check")
    assert project.version() == "1"
    project.helix("answer", "retry", "dev")
    eventually(lambda: phase(project) == "health-check", 30, "the second check")
    asks(project, "health-check")
    project.helix("answer", "roll-back", "dev", "--reason", "it is broken")
    out, _ = pushing.communicate(timeout=60)
    assert pushing.returncode == 3, out
    assert project.version() == "1"
