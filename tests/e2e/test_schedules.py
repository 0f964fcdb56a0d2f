"""An instance is deployed by itself, whatever is restarted, and whoever deploys it meanwhile."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import docker
import pytest

from tests.e2e.machine import Machine, Project, eventually
from tests.e2e.test_cancel import phase
from tests.e2e.test_crash import kill
from tests.e2e.test_people import asks, ended
from tests.services.registry import plain_registry

pytestmark = pytest.mark.engine

NEVER = ("--cron", "0 4 1 1 *")


@pytest.fixture
def make(projects: Callable[..., Project], machine: Machine) -> Any:
    """Makes projects without a registry, whose schedules are gone afterwards."""
    made: list[Project] = []

    def one(**options: Any) -> Project:
        made.append(projects(registry=None, **options))
        return made[-1]

    yield one
    machine.helix("up")
    for each in made:
        each.helix("schedule", "remove", "dev", expect=None)


def shown(project: Project) -> dict[str, Any]:
    found: dict[str, Any] = project.helix("schedule", "show", "dev", "--json").document
    return found


def ran(project: Project, outcome: str, seconds: float = 60) -> dict[str, Any]:
    """Wait for a run that ended so, and return the newest one."""

    def found() -> dict[str, Any] | None:
        runs = shown(project)["recent"]
        return next((one for one in runs if one["outcome"] == outcome), None)

    run: dict[str, Any] = eventually(found, seconds, f"a run that {outcome}")
    return run


def triggers(project: Project) -> list[tuple[str, str]]:
    """What started each deployment, and how it ended; newest first."""
    return [(one["request"]["trigger"], one["progress"]["outcome"]) for one in project.history()]


def audited(project: Project, outcome: str) -> list[tuple[str, str]]:
    """What was done, and why, of all that the audit trail says has ended so."""
    events = project.helix("audit", "list", "dev", "--json").document["events"]
    return [(one["action"], one["reason"]) for one in events if one["outcome"] == outcome]


def at(moment: datetime) -> str:
    """A cron expression of one moment in UTC, which then never comes again."""
    return f"{moment:%S %M %H %d %m * %Y}"


def test_a_cron_fires_after_the_server_was_killed_and_what_was_missed_is_caught_up(
    machine: Machine, make: Callable[..., Project]
) -> None:
    minutely, patient, strict = make(), make(), make()
    for project in (minutely, patient, strict):
        project.behave("1")
        project.push()
    minutely.helix("schedule", "add", "dev", "--cron", "* * * * *")
    due = datetime.now(UTC) + timedelta(seconds=15)
    patient.helix("schedule", "add", "dev", "--cron", at(due), "--catch-up", "1h")
    strict.helix("schedule", "add", "dev", "--cron", at(due), "--catch-up", "10s")
    assert datetime.now(UTC) < due, "the machine is too slow for this test"
    kill(machine, "server")
    # The outage lasts until the second one must not start any more.
    time.sleep(max(0, (due + timedelta(seconds=12) - datetime.now(UTC)).total_seconds()))
    machine.helix("up")
    ran(patient, "succeeded")
    assert triggers(patient) == [("schedule", "succeeded"), ("push", "succeeded")]
    eventually(lambda: shown(strict)["missed"] == 1, what="the note that a run was missed")
    assert triggers(strict) == [("push", "succeeded")]
    ran(minutely, "succeeded", seconds=90)
    assert minutely.version() == "1"


def test_a_person_and_a_schedule_meet_in_both_orders(make: Callable[..., Project]) -> None:
    project = make()
    project.behave("1")
    project.push()
    toml = project.folder / "helix.toml"
    # What waits for approval holds its lock for as long as this test wants.
    toml.write_text(toml.read_text().replace("[deploy.dev]", "[deploy.dev]\napproval = true"))
    pushing = project.begin_push()
    asks(project, "approval")
    project.helix("schedule", "add", "dev", *NEVER)
    project.helix("schedule", "trigger", "dev")
    skipped = ran(project, "skipped")
    assert "is being deployed already" in skipped["why"] and "started by" in skipped["why"]
    assert audited(project, "skipped") == [("schedule", skipped["why"])]
    project.helix("approve", "dev")
    ended(pushing, 0)

    project.helix("schedule", "trigger", "dev")
    asks(project, "approval")
    refused = project.push(expect=5)
    assert "schedule by" in refused.err and "helix cancel" in refused.err
    project.helix("approve", "dev")
    ran(project, "succeeded")
    assert [trigger for trigger, _ in triggers(project)] == ["schedule", "push", "push"]


def test_a_freeze_refuses_pushes_and_skips_runs_and_an_override_is_recorded(
    make: Callable[..., Project],
) -> None:
    project = make()
    project.behave("1")
    project.push()
    toml = project.folder / "helix.toml"
    toml.write_text(toml.read_text() + '[[deploy.freeze.windows]]\nreason = "stocktaking"\n')
    project.behave("2")
    refused = project.push(expect=None)
    assert refused.exit != 0 and "stocktaking" in refused.err and "--override-freeze" in refused.err
    assert project.version() == "1"
    project.push("--override-freeze", "the shop is down")
    assert project.version() == "2"
    assert project.history()[0]["request"]["override_freeze"] == "the shop is down"
    assert "the shop is down" in project.helix("audit", "list", "dev", "--json").out
    project.helix("schedule", "add", "dev", *NEVER)
    project.helix("schedule", "trigger", "dev")
    assert "stocktaking" in ran(project, "skipped")["why"]
    # What a freeze is for is still possible.
    project.helix("rollback", "--instance", "dev")
    assert project.version() == "1"


@pytest.fixture
def base(tmp_path: Path) -> Iterator[str]:
    """A base image in a registry that answers: a rebuild fetches it again."""
    engine = docker.from_env()
    with plain_registry(tmp_path / "bases") as registry:
        name = f"{registry.host}/python"
        engine.images.get("python:3-slim").tag(name, "3-slim")
        engine.images.push(name, "3-slim")
        yield f"{name}:3-slim"
    engine.images.remove(f"{name}:3-slim", noprune=True)


def test_a_repository_is_built_at_its_newest_commit(
    make: Callable[..., Project], base: str
) -> None:
    project = make()
    dockerfile = project.folder / "Dockerfile"
    dockerfile.write_text(dockerfile.read_text().replace("python:3-slim", base))
    assert base in dockerfile.read_text()
    first = commit(project, "2")
    url = f"file://{project.folder}"
    project.helix("schedule", "add", "dev", *NEVER, "--git", url, "--ref", "main")
    project.helix("schedule", "trigger", "dev")
    ran(project, "succeeded")
    assert project.version() == "2"
    second = commit(project, "3")
    project.behave("4")  # not committed, and so not deployed
    project.helix("schedule", "trigger", "dev")
    eventually(lambda: project.version() == "3", 60, "the next commit's release")
    reasons = [one["request"]["reason"] for one in project.history()]
    assert second[:12] in reasons[0] and first[:12] in reasons[1]

    # What was built from there can be built anew without it.
    eventually(lambda: phase(project) == "", 60, "the end of the second run")
    project.helix("schedule", "add", "dev", *NEVER, "--rebuild", "--replace")
    project.helix("schedule", "trigger", "dev")
    eventually(lambda: len(triggers(project)) == 3, 60, "the third run")
    eventually(lambda: phase(project) == "", 60, "the end of the third run")
    assert triggers(project) == [("schedule", "succeeded")] * 3
    images = [one["progress"]["artifact"]["built_from"] for one in project.history()]
    assert project.version() == "3" and len(set(images)) == 3


def commit(project: Project, version: str) -> str:
    """Commit the project's folder with another version of its app. Returns the commit's id."""
    project.behave(version)
    author = ["-c", "user.name=ada", "-c", "user.email=ada@shop.test"]
    for words in (["init", "-q", "-b", "main"], ["add", "."], ["commit", "-qm", version]):
        subprocess.run(["git", *author, *words], cwd=project.folder, check=True)
    head = ["git", "rev-parse", "HEAD"]
    return subprocess.check_output(head, cwd=project.folder, text=True).strip()
