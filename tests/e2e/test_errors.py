"""What goes wrong on a machine gets a clear error, and nothing is left behind."""

from __future__ import annotations

import socket
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import docker
import pytest

from tests.e2e.machine import Machine, Project, clean_up, make_project
from tests.services.registry import TestRegistry

pytestmark = pytest.mark.engine


def nothing_left(project: Project) -> None:
    """No container, network or scratch of the project."""
    assert project.containers() == []
    networks = [one.name for one in docker.from_env().networks.list()]
    assert not [name for name in networks if project.name in name]
    scratch = project.machine.home / "state" / "scratch"
    assert not list(scratch.rglob("context"))


def test_a_broken_dockerfile_names_the_line(project: Project) -> None:
    (project.folder / "Dockerfile").write_text("ARG BASE=python:3-slim\nFROM ${BASE}\nRUN false\n")
    result = project.push(expect=3)
    assert "RUN false" in result.text and "build" in result.text
    assert project.history()[0]["progress"]["failure"]["code"] == "BuildFailed"
    assert "RUN false" in project.helix("logs", "dev", "--build").text
    nothing_left(project)


def test_a_missing_file_is_named(project: Project) -> None:
    dockerfile = project.folder / "Dockerfile"
    dockerfile.write_text(dockerfile.read_text() + "COPY absent.txt /\n")
    result = project.push(expect=None)
    assert result.exit in {2, 3} and "absent.txt" in result.text
    nothing_left(project)


def test_no_dockerfile_at_all(project: Project) -> None:
    (project.folder / "Dockerfile").unlink()
    result = project.push(expect=2)
    assert "Dockerfile" in result.text
    nothing_left(project)


def test_a_port_in_use_is_named_before_anything_changes(project: Project) -> None:
    with socket.create_server(("127.0.0.1", project.port)):
        project.behave("1")
        result = project.push(expect=3)
    assert str(project.port) in result.text
    nothing_left(project)


def test_an_engine_that_is_not_there(project: Project) -> None:
    toml = project.folder / "helix.toml"
    toml.write_text(
        toml.read_text().replace(
            "[cloud.dev.docker]\n", '[cloud.dev.docker]\nhost = "tcp://127.0.0.1:1"\n'
        )
        + "[deploy.dev.steps.validate]\nattempts = 2\n"
    )
    project.behave("1")
    result = project.push(expect=3)
    assert "127.0.0.1:1" in result.text and "engine" in result.text
    nothing_left(project)


@pytest.fixture
def small_disk() -> Iterator[Path]:
    """A folder with room for a few megabytes."""
    with tempfile.TemporaryDirectory(prefix="hx") as folder:
        command = ["mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", folder]
        if subprocess.run(command, capture_output=True).returncode != 0:
            pytest.skip("only root can mount a small disk")
        yield Path(folder)
        subprocess.run(["umount", "-l", folder], check=True)


def test_a_full_disk_is_said_and_the_next_push_works(
    small_disk: Path, registry: TestRegistry
) -> None:
    home = Path(tempfile.mkdtemp(prefix="hx"))
    (home / "state").mkdir()
    machine = Machine(
        home,
        env={
            "REGISTRY_PASSWORD": registry.password,
            "HELIX_STORE_URL": f"file://{small_disk}/store",
        },
    )
    project = make_project(machine, registry)
    try:
        ballast = project.folder / "ballast"
        with ballast.open("wb") as file, open("/dev/urandom", "rb") as random:
            file.write(random.read(20_000_000))
        project.behave("1")
        result = project.push(expect=None)
        assert result.exit in {1, 2, 3}
        assert "disk" in result.text or "space" in result.text
        nothing_left(project)
        ballast.unlink()
        project.push()
        assert project.version() == "1"
    finally:
        clean_up(project)
        machine.helix("down", expect=None)
