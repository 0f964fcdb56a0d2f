"""A person is asked, and answers at the command line or as the Temporal UI does it."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable

import pytest

from tests.e2e.machine import Machine, Project, eventually
from tests.e2e.test_cancel import phase
from tests.e2e.test_crash import kill
from tests.services.need import program

pytestmark = pytest.mark.engine

ASK = 'on_failure = { window = "%s" }'


def asks(project: Project, what: str) -> None:
    eventually(lambda: phase(project) == f"asking-{what}", 60, f"the question about {what}")


def send(project: Project, way: str, choice: str, address: str = "") -> int:
    """Answer with Temporal's own command, which sends what the UI sends: a signal or an update.

    Args:
        address: of the server; asked for, which also mends the stack, if it is left out.

    Returns:
        The exit code; 0 for a signal says only that it was kept.
    """
    address = address or project.machine.stack()["address"]
    verb, name = {"signal": ("signal", "answer"), "update": ("update execute", "decide")}[way]
    said = json.dumps({"choice": choice, "by": "ada", "why": f"by {way}"})
    command = [program("temporal", "temporal"), "workflow", *verb.split(), "--name", name]
    where = ["--address", address]
    what = ["--workflow-id", f"deploy:{project.name}/dev", "--input", said]
    done = subprocess.run([*command, *where, *what], capture_output=True, text=True, timeout=60)
    return done.returncode


def decisions(project: Project) -> list[tuple[str, str]]:
    """What was answered in the last deployment, and by whom."""
    return [(one["choice"], one["by"]) for one in project.history()[0]["progress"]["decisions"]]


def ended(pushing: subprocess.Popen[str], exit: int) -> str:
    """Wait for a push that must end with this exit code. Returns what it printed."""
    out, _ = pushing.communicate(timeout=90)
    assert pushing.returncode == exit, out
    return out


def test_a_release_waits_for_approval(projects: Callable[..., Project]) -> None:
    project = projects(deploy="approval = true")
    project.behave("1")
    pushing = project.begin_push()
    asks(project, "approval")
    assert project.version() is None and project.containers() == []
    refused = project.helix("answer", "retry", "dev", expect=2)
    assert "is no answer here" in refused.text
    project.helix("approve", "dev", "--reason", "looks good")
    assert "helix approve" in ended(pushing, 0) and project.version() == "1"
    assert project.history()[0]["progress"]["decisions"][0]["why"] == "looks good"

    project.behave("2")
    pushing = project.begin_push()
    asks(project, "approval")
    project.helix("reject", "dev", "--reason", "not today")
    assert "not today" in ended(pushing, 3)
    assert project.version() == "1"


def test_of_two_people_at_once_one_is_heard_and_the_other_told(
    machine: Machine, projects: Callable[..., Project]
) -> None:
    project = projects(registry=None, deploy="approval = true")
    project.behave("1")
    pushing = project.begin_push()
    asks(project, "approval")
    words = [("approve", "--reason", "ada says so"), ("reject", "--reason", "bob says so")]
    both = [machine.begin(*each, cwd=project.folder) for each in words]
    said = [one.communicate(timeout=60)[0] for one in both]
    codes = [one.returncode for one in both]
    assert sorted(codes) == [0, 2], said
    late = said[codes.index(2)]
    assert "has answered already" in late or "does not wait for an answer" in late
    ended(pushing, [0, 3][codes.index(0)])
    assert len(decisions(project)) == 1


@pytest.mark.parametrize(("otherwise", "exit"), [("approve", 0), ("reject", 3)])
def test_if_nobody_answers_the_deadline_does(
    projects: Callable[..., Project], otherwise: str, exit: int
) -> None:
    approval = f'approval = {{ window = "2s", otherwise = "{otherwise}" }}'
    project = projects(registry=None, deploy=approval)
    project.behave("1")
    project.push(expect=exit)
    assert decisions(project) == [(otherwise, "nobody")]
    assert project.version() == ("1" if otherwise == "approve" else None)


def test_an_answer_waits_for_a_worker_that_is_down(
    machine: Machine, projects: Callable[..., Project]
) -> None:
    project = projects(registry=None, deploy="approval = true")
    project.behave("1")
    pushing = project.begin_push()
    asks(project, "approval")
    address = machine.stack()["address"]
    kill(machine, "worker")
    assert send(project, "signal", "approve", address) == 0
    machine.helix("up")
    ended(pushing, 0)
    assert decisions(project) == [("approve", "ada")] and project.version() == "1"


def test_each_answer_to_a_failed_step(projects: Callable[..., Project]) -> None:
    project = projects(registry=None, deploy=ASK % "10m")
    project.patience(3)
    project.behave("1")
    project.push()
    project.behave("2", "broken")
    pushing = project.begin_push()
    asks(project, "health-check")
    assert project.version() == "1"
    project.helix("answer", "retry", "dev")
    eventually(lambda: phase(project) == "health-check", 30, "the second check")
    asks(project, "health-check")
    assert send(project, "update", "retry") == 0
    eventually(lambda: phase(project) == "health-check", 30, "the third check")
    asks(project, "health-check")
    assert send(project, "update", "approve") != 0  # what is no answer is refused
    project.helix("answer", "roll-back", "dev", "--reason", "it is broken")
    ended(pushing, 3)
    assert [choice for choice, _ in decisions(project)] == ["retry", "retry", "roll-back"]
    assert project.version() == "1"

    pushing = project.begin_push()
    asks(project, "health-check")
    assert send(project, "signal", "roll-back") == 0
    ended(pushing, 3)
    assert decisions(project) == [("roll-back", "ada")] and project.version() == "1"

    pushing = project.begin_push()
    asks(project, "health-check")
    project.helix("answer", "skip", "dev", "--reason", "the probe is wrong")
    ended(pushing, 0)
    assert project.version() is None  # it answers 500, and somebody wanted it so


def test_nobody_s_answer_to_a_failed_step_rolls_back_and_only_a_check_can_be_skipped(
    projects: Callable[..., Project],
) -> None:
    project = projects(registry=None, deploy=ASK % "6s")
    project.behave("1")
    project.push()
    project.behave("2", "exits")
    project.push(expect=3)
    assert decisions(project) == [("roll-back", "nobody")] and project.version() == "1"

    (project.folder / "Dockerfile").write_text("FROM python:3-slim\nRUN false\n")
    pushing = project.begin_push()
    asks(project, "build")
    refused = project.helix("answer", "skip", "dev", expect=2)
    assert "expected retry, roll-back" in refused.text
    ended(pushing, 3)
    assert project.version() == "1"


def test_a_release_that_goes_bad_while_it_is_watched_is_rolled_back(
    projects: Callable[..., Project],
) -> None:
    project = projects(registry=None, deploy='bake = "60s"')
    project.behave("1")
    toml = project.folder / "helix.toml"
    watched = toml.read_text()
    toml.write_text(watched.replace('bake = "60s"', 'bake = "2s"'))
    project.push()
    assert project.version() == "1"
    toml.write_text(watched)
    project.behave("2", sours=6)
    pushing = project.begin_push()
    eventually(lambda: phase(project) == "baking", 60, "the bake")
    assert project.version() == "2"
    out = ended(pushing, 3)
    assert "went bad after it was promoted: GET / answers 500" in out
    assert project.version() == "1"
