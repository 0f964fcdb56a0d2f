"""What `helix` must do on every kind of platform: the real command, worker and workflow, with only
the platform's own address replaced.

A kind's test module says what stands in for the platform, and inherits the scenario:

    class TestFly(KindSuite):
        @pytest.fixture(scope="class")
        @classmethod
        def stand(cls, tmp_path_factory) -> Iterator[Stand]: ...
"""

from __future__ import annotations

import json
import re
import shutil
import tempfile
import threading
import uuid
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.machine import APP, Machine, Project, eventually
from tests.services.registry import free_port

BEHAVIOURS = {"good": "serve", "exits": "exit", "silent": "hang", "broken": "sick"}
"""A mode of the controllable app -> what the stand-ins that run no image call it."""
BARE = "FROM scratch\nCOPY behaviour.json /\n"
"""Enough for a platform that only looks at the image's name."""


class Stand(ABC):
    """What stands in for a kind's platform, and where to look at what runs there."""

    env: dict[str, str] = {}
    """What the person and the worker have in their environment."""
    dockerfile: str | None = BARE
    """None: the app's own, for a platform that really runs images."""
    first_words: str = "starting {version}"
    """What `helix logs` shows of a release."""
    bad: str = "broken"
    """How a release is bad that the platform never lets have requests."""
    holds: bool = True
    """Whether the previous release answers all the time that a new one is tried."""
    silent_in: str = "health-check"
    """The phase in which a release is waited for that never listens."""
    volumes: bool = False
    """Whether the kind has them."""
    data_is_left: str = ""
    """What `helix destroy --data` says of data that only a person can remove."""

    @abstractmethod
    def tables(self, project: str, volume: bool) -> str:
        """helix.toml's tables on the target and registry of the instance `dev`.

        Args:
            project: the project's name; its objects on the platform have it in theirs.
            volume: whether the instance has one.
        """

    @abstractmethod
    def serves(self, project: str) -> list[str]:
        """The versions that requests reach now, as a client or the platform sees it."""

    @abstractmethod
    def remains(self, project: str) -> list[str]:
        """What is on the platform because of the instance, volumes excepted."""

    def data(self, project: str) -> list[str]:
        """The volumes of the instance."""
        return []


class KindProject(Project):
    """A project whose instance `dev` runs on a stand-in."""

    stand: Stand

    def behave(self, version: str, mode: str = "good", **more: Any) -> None:
        """Change the source, and with it the release's environment."""
        super().behave(version, mode, **more)
        toml = self.folder / "helix.toml"
        text = re.sub(r'NAME = ".*"', f'NAME = "{version}"', toml.read_text())
        toml.write_text(re.sub(r'BEHAVIOUR = ".*"', f'BEHAVIOUR = "{BEHAVIOURS[mode]}"', text))

    def serves(self) -> list[str]:
        """The versions that requests reach."""
        return self.stand.serves(self.name)

    def remains(self) -> list[str]:
        """What the instance left on the platform, volumes excepted."""
        return self.stand.remains(self.name)

    def newest(self) -> dict[str, Any]:
        """The progress of the last deployment."""
        progress: dict[str, Any] = self.history()[0]["progress"]
        return progress

    def status(self) -> dict[str, Any]:
        """What `helix status` says."""
        report: dict[str, Any] = self.helix("status", "dev", "--json").document["instances"][0]
        return report

    def phase(self) -> str:
        """Where the running deployment is; empty if none runs."""
        running = self.status()["deployment"]
        return str(running["phase"]) if running else ""

    @contextmanager
    def watched(self) -> Iterator[set[tuple[str, ...]]]:
        """What served at any moment of the block."""
        seen: set[tuple[str, ...]] = set()
        over = threading.Event()

        def watch() -> None:
            while not over.wait(0.02):
                seen.add(tuple(self.serves()))

        watcher = threading.Thread(target=watch, daemon=True)
        watcher.start()
        try:
            yield seen
        finally:
            over.set()
            watcher.join()


def make_kind_project(machine: Machine, stand: Stand, volume: bool = False) -> KindProject:
    """A new project for a stand-in."""
    name = f"e2e{uuid.uuid4().hex[:8]}"
    folder = machine.home / name
    shutil.copytree(APP, folder)
    if stand.dockerfile is not None:
        (folder / "Dockerfile").write_text(stand.dockerfile)
    (folder / "helix.toml").write_text(
        f"""
[project]
name = "{name}"
[deploy.dev.env]
NAME = "0"
BEHAVIOUR = "serve"
[deploy.dev.health_check]
path = "/"
deadline = 6
{stand.tables(name, volume)}
"""
    )
    project = KindProject(machine, folder, name, free_port(), None)
    project.stand = stand
    return project


@contextmanager
def machine_for(stand: Stand) -> Iterator[Machine]:
    """A machine whose commands and worker know the stand-in."""
    with tempfile.TemporaryDirectory(prefix="hx") as folder:
        docker = {"DOCKER_CONFIG": f"{folder}/docker"}
        machine = Machine(Path(folder), env={**docker, **stand.env})
        machine.helix("up")
        try:
            yield machine
        finally:
            machine.helix("down", expect=None)


class KindSuite:
    """The scenario of every kind that runs releases."""

    @pytest.fixture(scope="class")
    @classmethod
    def machine(cls, stand: Stand) -> Iterator[Machine]:
        with machine_for(stand) as machine:
            yield machine

    @pytest.fixture
    def projects(self, machine: Machine, stand: Stand) -> Iterator[Callable[..., KindProject]]:
        """Makes projects to order, and takes them from the platform at the end."""
        made: list[KindProject] = []

        def make(volume: bool = False) -> KindProject:
            made.append(make_kind_project(machine, stand, volume))
            return made[-1]

        yield make
        for one in made:
            one.helix("destroy", "dev", "--data", "--yes", expect=None)

    @pytest.fixture
    def project(self, projects: Callable[..., KindProject]) -> KindProject:
        return projects()

    def test_releases_come_go_and_come_back(self, project: KindProject) -> None:
        project.behave("1")
        plan = project.helix("plan", "dev", "--json", expect=10).document
        assert plan["release"] is None and plan["changed"] is True
        assert project.remains() == []
        project.push()
        assert project.serves() == ["1"]

        project.behave("2")
        assert project.helix("plan", "dev", "--json", expect=10).document["drift"] == ""
        project.push()
        assert project.serves() == ["2"]
        assert project.helix("plan", "dev", "--json").document["changed"] is False
        assert "unchanged" in project.push().text
        third, second = project.history()[:2]
        assert third["progress"]["revision"] == second["progress"]["revision"]

        status = project.status()
        assert status["release"]["number"] == 3
        assert status["platform"]["state"] in ("running", "unknown"), "three seconds may not do"
        words = project.stand.first_words.format(version="2")
        assert words in project.helix("logs", "dev").text

        project.helix("rollback")
        assert project.serves() == ["1"]
        history = project.history()
        triggers = [one["request"]["trigger"] for one in history]
        assert triggers == ["rollback", "push", "push", "push"]
        states = {one["step"]: one["state"] for one in history[0]["progress"]["steps"]}
        assert (states["build"], states["push"]) == ("skipped", "skipped")

    def test_a_bad_release_is_rolled_back_while_the_one_before_answers(
        self, project: KindProject
    ) -> None:
        project.behave("1")
        project.push()
        project.behave("2", project.stand.bad)
        with project.watched() as seen:
            result = project.push(expect=3)
        assert "rolled back" in result.text
        assert project.serves() == ["1"]
        assert seen == {("1",)} if project.stand.holds else ("2",) not in seen
        bad, good = (one["progress"] for one in project.history())
        assert (bad["outcome"], bad["failure"]["code"]) == ("rolled-back", "HealthCheckFailed")
        assert good["outcome"] == "succeeded"
        plan = project.helix("plan", "dev", "--json", expect=10).document
        assert plan["runs"] and plan["drift"] == ""

    def test_a_bad_first_release_leaves_nothing(self, project: KindProject) -> None:
        project.behave("1", "exits")
        project.push(expect=3)
        assert project.serves() == []
        assert project.remains() == []

    def test_a_cancelled_release_is_undone(self, project: KindProject) -> None:
        project.behave("1")
        project.push()
        toml = project.folder / "helix.toml"
        toml.write_text(toml.read_text().replace("deadline = 6", "deadline = 120"))
        project.behave("2", "silent")
        pushing = project.begin_push()
        eventually(lambda: project.phase() == project.stand.silent_in, 60, "the wait for it")
        assert "helix cancel" in project.push(expect=5).text
        project.helix("cancel", "dev")
        pushing.communicate(timeout=60)
        assert pushing.returncode == 7
        assert project.serves() == ["1"]
        assert project.newest()["outcome"] == "cancelled"

    def test_destroy_keeps_the_data_until_it_is_told_not_to(
        self, projects: Callable[..., KindProject], stand: Stand
    ) -> None:
        project = projects(volume=stand.volumes)
        project.behave("1")
        project.push()
        data = stand.data(project.name)
        assert len(data) == int(stand.volumes)
        for _ in range(2):
            project.helix("destroy", "dev", "--yes")
        assert project.remains() == [] and project.serves() == []
        assert stand.data(project.name) == data
        project.push()
        assert project.serves() == ["1"] and stand.data(project.name) == data
        told = project.helix("destroy", "dev", "--yes", "--data", expect=None)
        assert (told.exit, stand.data_is_left in told.text) == (
            2 if stand.data_is_left else 0,
            True,
        )
        assert project.remains() == [] and stand.data(project.name) == []


def toml_values(**values: Any) -> str:
    """Lines of a table."""
    return "\n".join(f"{key} = {json.dumps(value)}" for key, value in values.items())
