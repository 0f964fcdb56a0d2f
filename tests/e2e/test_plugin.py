"""A kind from another package: built, installed, and used with the real command as ours are."""

from __future__ import annotations

import os
import shutil
import site
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.e2e.machine import APP, ROOT, Machine, Project, clean_up
from tests.services import engine as engines
from tests.services.registry import free_port

pytestmark = [pytest.mark.engine, pytest.mark.temporal]

EXAMPLE = ROOT / "examples" / "provider-container"
SUITE = "first_and_a_second or unchanged or last_words or two_callers or restore_killed or outlives"
"""What of the example's own tests is run here; the others cost a minute more."""


@dataclass
class Installed:
    """A Python in which the example package is installed, beside everything of ours."""

    python: Path

    def __post_init__(self) -> None:
        self.machine = Machine(
            Path(tempfile.mkdtemp(prefix="hx")), command=[str(self.python), "-m", "cli"]
        )


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installed]:
    """The example as its users get it: a wheel, installed."""
    engines.client().close()
    folder = tmp_path_factory.mktemp("package")
    uv = [sys.executable, "-m", "uv"]
    source = folder / "source"
    shutil.copytree(EXAMPLE, source, ignore=shutil.ignore_patterns("build", "*.egg-info"))
    run([*uv, "build", "--wheel", "--no-build-isolation", "--python", sys.executable, source])
    (wheel,) = (source / "dist").glob("*.whl")
    run([*uv, "venv", "--python", sys.executable, folder / "venv"])
    python = folder / "venv" / "bin" / "python"
    options = ["--no-deps", "--offline", "--python", python]
    run([*uv, "pip", "install", *options, wheel])
    # What of ours is installed, and what it needs, as this environment has it.
    (ours,) = site.getsitepackages()
    (theirs,) = (folder / "venv").glob("lib/python*/site-packages")
    (theirs / "ours.pth").write_text(f"import site; site.addsitedir({ours!r})\n")
    found = Installed(python)
    yield found
    found.machine.helix("down", expect=None)
    shutil.rmtree(found.machine.home)


def run(words: list[str | Path], **options: str | Path) -> str:
    """Run a program that must succeed."""
    done = subprocess.run(words, capture_output=True, text=True, timeout=300, **options)  # type: ignore[call-overload]
    assert done.returncode == 0, done.stdout + done.stderr
    return str(done.stdout)


@pytest.fixture
def project(installed: Installed) -> Iterator[Project]:
    """A folder with a Dockerfile, and nothing of ours."""
    folder = installed.machine.home / engines.unique("plugin")
    shutil.copytree(APP, folder)
    made = Project(installed.machine, folder, folder.name, free_port(), None)
    yield made
    clean_up(made)


def test_it_is_used_as_every_kind_is(project: Project) -> None:
    project.behave("1")
    project.helix("init", "--cloud", "container", "--name", "dev")
    toml = project.folder / "helix.toml"
    text = toml.read_text()
    assert '[cloud.dev.container]\nprogram = "docker"\n' in text

    toml.write_text(text.replace('"docker"', '"dokcer"') + 'memory = "lots"\n')
    refused = project.helix("push", "dev", expect=2)
    line = text.splitlines().index('program = "docker"') + 1
    assert f"helix.toml:{line}:11" in refused.err and "cloud.dev.container.program" in refused.err
    assert 'did you mean "docker"?' in refused.err
    assert f"helix.toml:{line + 1}:10" in refused.err

    toml.write_text(
        text + f"\n[deploy.dev]\npublish = {project.port}\nstop_grace = 3\n"
        '\n[deploy.dev.health_check]\npath = "/"\ndeadline = 6\n'
    )
    plan = project.helix("plan", "dev", "--json", expect=10).document
    assert (plan["kind"], plan["release"]) == ("container", None)

    project.push()
    assert project.version() == "1"
    project.behave("2")
    project.push()
    assert project.version() == "2"

    status = project.helix("status", "dev", "--json").document["instances"][0]
    assert status["release"]["number"] == 2, status
    assert "version 2 begins" in project.helix("logs", "dev").out
    doctor = project.helix("doctor", "dev", expect=None).out
    assert "helix-provider-container 0.1.0" in doctor and "docker here" in doctor

    project.behave("3", "exits")
    bad = project.push(expect=3)
    assert "exited with code 3" in bad.text and "the schema is missing" in bad.text
    assert project.version() == "2"

    project.helix("rollback", "1", "--instance", "dev")
    assert project.version() == "1"
    project.helix("destroy", "dev", "--yes")
    assert project.version() is None
    assert project.containers() == []


def test_a_secret_is_in_no_argument_and_in_no_label(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    project.behave("1")
    monkeypatch.setenv("GREETING_SECRET", "canary-of-the-plugin")
    (project.folder / "helix.toml").write_text(
        f'[project]\nname = "{project.name}"\n[cloud.dev.container]\nprogram = "docker"\n'
        f"[deploy.dev]\npublish = {project.port}\nstop_grace = 3\n"
        '[deploy.dev.secrets]\nGREETING = "env:GREETING_SECRET"\n'
    )
    project.push()
    (container,) = project.containers()
    assert "GREETING=canary-of-the-plugin" in container.attrs["Config"]["Env"]
    assert "canary" not in str(container.labels) + str(container.attrs["Args"])


def test_the_published_suite_runs_outside_this_repository(installed: Installed) -> None:
    environ = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run(
        [installed.python, "-m", "pytest", "-q", "-k", SUITE, "-p", "no:cacheprovider"],
        cwd=installed.python.parents[2] / "source",
        env=environ,
        capture_output=True,
        text=True,
        timeout=280,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "6 passed" in done.stdout, done.stdout
