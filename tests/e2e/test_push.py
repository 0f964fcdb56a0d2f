"""`helix push`: releases that are good, unchanged, and bad, on a real engine and registry."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.e2e.machine import Project
from tests.services.traffic import traffic

pytestmark = pytest.mark.engine


def steps(project: Project) -> dict[str, str]:
    """Step -> state of the newest deployment."""
    newest = project.history()[0]
    return {step["step"]: step["state"] for step in newest["progress"]["steps"]}


def test_a_first_a_second_and_an_unchanged_release(project: Project) -> None:
    project.behave("1")
    project.push()
    assert project.version() == "1"
    assert steps(project)["build"] == steps(project)["push"] == "done"

    project.behave("2")
    project.push()
    assert project.version() == "2"

    before = {one.id: one.attrs["State"]["StartedAt"] for one in project.containers()}
    result = project.push()
    assert "unchanged" in result.text
    after = {one.id: one.attrs["State"]["StartedAt"] for one in project.containers()}
    assert project.version() == "2" and before == after
    newest = project.history()[0]
    assert newest["progress"]["artifact"]["reused"] is True
    assert steps(project)["push"] == "skipped"


def test_what_runs_is_the_digest_that_was_pushed(project: Project) -> None:
    project.behave("1")
    project.push()
    image = project.history()[0]["progress"]["artifact"]["image"]
    assert image["repository"] == project.repository
    running = [one for one in project.containers() if one.labels.get("helix.role") == "app"]
    assert len(running) == 1
    assert running[0].labels["helix.artifact"] == image["digest"]
    pulled = running[0].image.attrs
    assert image["id"] == pulled["Id"] or any(
        image["digest"] in name for name in pulled["RepoDigests"]
    )


@pytest.mark.parametrize(
    ("mode", "said"),
    [
        ("exits", "cannot go on: the schema is missing"),
        ("silent", "not healthy after 6 s"),
        ("broken", "answers 500"),
    ],
)
def test_a_bad_release_is_rolled_back_and_the_old_one_answers_all_along(
    project: Project, mode: str, said: str
) -> None:
    project.behave("1")
    project.push()
    project.behave("2", mode)
    with traffic(project.url) as seen:
        result = project.push(expect=3)
    assert said in result.text
    assert seen.requests > 20 and seen.failed == []
    assert not seen.seen('"2"')
    assert project.version() == "1"
    newest = project.history()[0]
    assert newest["progress"]["outcome"] == "rolled-back"
    assert newest["progress"]["failure"]["code"] == "HealthCheckFailed"
    running = [one for one in project.containers() if one.labels.get("helix.role") == "app"]
    assert [one.labels["helix.release"] for one in running] == ["1"]


@pytest.mark.parametrize("mode", ["exits", "silent", "broken"])
def test_a_first_push_that_fails_leaves_nothing(project: Project, mode: str) -> None:
    project.behave("1", mode)
    project.push(expect=3)
    assert project.containers() == []
    assert project.version() is None
    # And the next one is a first push again.
    project.behave("2")
    project.push()
    assert project.version() == "2"


def test_a_rollback_goes_back_without_a_build_and_can_name_any_release(project: Project) -> None:
    for version in ("1", "2", "3"):
        project.behave(version)
        project.push()
    project.helix("rollback", "--instance", "dev", "--yes")
    assert project.version() == "2"
    project.helix("rollback", "1", "--instance", "dev", "--yes")
    assert project.version() == "1"
    newest = project.history()[0]
    assert newest["request"]["trigger"] == "rollback" and newest["request"]["of_release"] == 1
    assert steps(project)["build"] == steps(project)["push"] == "skipped"


def test_a_retry_does_not_repeat_what_succeeded(project: Project) -> None:
    project.behave("1")
    project.push()
    project.behave("2", "silent")
    project.push(expect=3)
    project.helix("retry", expect=3)
    assert steps(project)["build"] == steps(project)["push"] == "skipped"
    assert steps(project)["health-check"] == "failed"
    assert project.history()[0]["request"]["trigger"] == "retry"


def test_a_retry_succeeds_once_what_was_wrong_outside_is_mended(
    projects: Callable[..., Project], tmp_path: Path
) -> None:
    project = projects(deploy=f'volumes = ["{tmp_path}:/flag"]')
    toml = project.folder / "helix.toml"
    check = "import os, sys; sys.exit(not os.path.exists('/flag/ready'))"
    toml.write_text(
        toml.read_text().replace('path = "/"', f'command = ["python3", "-c", "{check}"]')
    )
    project.behave("1")
    project.push(expect=3)
    (tmp_path / "ready").touch()
    project.helix("retry", "--reason", "it is ready now")
    assert project.version() == "1"
    assert steps(project)["build"] == steps(project)["push"] == "skipped"
    first, retried = reversed(project.history())
    assert retried["request"]["retry_of"] == first["deployment"]


def test_a_project_without_a_registry_runs_what_its_engine_built(
    projects: Callable[..., Project],
) -> None:
    project = projects(registry=None)
    project.behave("1")
    project.push()
    assert project.version() == "1"
    assert steps(project)["push"] == "skipped"


def test_destroy_leaves_nothing_in_the_engine(project: Project) -> None:
    project.behave("1")
    project.push()
    project.helix("destroy", "dev", "--yes")
    assert project.containers() == []
    assert "destroyed" in project.helix("status", "dev").text or project.version() is None


def test_the_stream_of_events_is_one_object_a_line(project: Project) -> None:
    project.behave("1")
    events = project.push("--json").events
    assert [one["step"] for one in events if one.get("state") == "done"][:2] == [
        "validate",
        "build",
    ]
    assert events[-1]["event"] == "end" and events[-1]["outcome"] == "succeeded"


def test_a_detached_push_goes_on_and_can_be_followed(project: Project) -> None:
    project.behave("1")
    project.push("--detach")
    project.helix("follow")
    assert project.version() == "1"
