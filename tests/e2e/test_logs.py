"""What a release prints, and what a build printed."""

from __future__ import annotations

import threading

import pytest

from tests.e2e.machine import Project, lines

pytestmark = pytest.mark.engine


def test_the_output_of_the_running_release_and_of_its_build(project: Project) -> None:
    project.behave("1")
    project.push()
    assert "version 1 begins" in project.helix("logs", "dev").text
    assert "app.py" in project.helix("logs", "dev", "--build").text


def test_output_is_followed_as_it_comes(project: Project) -> None:
    project.behave("1")
    project.push()
    following = project.machine.begin("logs", "dev", "--follow", cwd=project.folder)
    seen: list[str] = []
    reader = threading.Thread(target=lambda: seen.extend(lines(following)), daemon=True)
    reader.start()
    try:
        for one in project.containers():
            if one.labels.get("helix.role") == "app":
                one.exec_run(["sh", "-c", "echo a later line > /proc/1/fd/1"])
        for _ in range(100):
            if any("a later line" in line for line in seen):
                break
            reader.join(0.1)
        assert any("version 1 begins" in line for line in seen)
        assert any("a later line" in line for line in seen)
    finally:
        following.kill()
        following.communicate()
