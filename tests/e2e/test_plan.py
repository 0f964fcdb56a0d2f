"""`helix plan` says what a push would do, and does nothing."""

from __future__ import annotations

import pytest

from tests.e2e.machine import Project

pytestmark = pytest.mark.engine


def test_a_plan_before_and_after_a_push(project: Project) -> None:
    project.behave("1")
    first = project.helix("plan", "dev", "--json", expect=10).document
    assert first["release"] is None and first["changed"] is True
    assert "nothing runs yet" in first["interruption"]
    assert project.containers() == []

    project.push()
    assert "would change nothing" in project.helix("plan", "dev").text

    toml = project.folder / "helix.toml"
    toml.write_text(toml.read_text() + '[deploy.dev.env]\nGREETING = "a-value-of-mine"\n')
    project.behave("2")
    text = project.helix("plan", "dev", expect=10).text
    assert "GREETING" in text and "a-value-of-mine" not in text
    assert "has changed" in text and "start-first" in text
    project.push()
    assert project.helix("plan", "dev", "--json").document["changed"] is False


def test_a_plan_sees_that_something_else_runs(project: Project) -> None:
    project.behave("1")
    project.push()
    for one in project.containers():
        if one.labels.get("helix.role") == "app":
            one.remove(force=True)
    plan = project.helix("plan", "dev", "--json", expect=10).document
    assert plan["drift"]
