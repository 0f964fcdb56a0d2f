"""A registry that goes away, refuses us, or lets our token expire."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from tests.e2e.machine import Machine, Project
from tests.e2e.runs import wait_for_activity
from tests.services.proxy import proxy
from tests.services.registry import TestRegistry, token_registry

pytestmark = [pytest.mark.engine, pytest.mark.registry]


def behind(project: Project, registry: TestRegistry, host: str) -> None:
    """Put something between the project and its registry."""
    toml = project.folder / "helix.toml"
    toml.write_text(toml.read_text().replace(registry.host, host))


def test_a_registry_that_is_away_for_20_seconds_is_waited_for(
    project: Project, registry: TestRegistry
) -> None:
    url = urlsplit(f"https://{registry.host}")
    with proxy(url.hostname or "", url.port or 0) as line:
        behind(project, registry, line.host)
        project.behave("1")
        project.push()
        project.behave("2")
        line.cut()
        threading.Timer(20, lambda: setattr(line, "down", False)).start()
        began = time.monotonic()
        project.push()
        assert time.monotonic() - began > 18
    assert project.version() == "2"


def test_a_wrong_password_fails_at_once_and_says_what_to_do(
    machine: Machine, project: Project, registry: TestRegistry
) -> None:
    machine.env["WRONG_PASSWORD"] = "not it"
    toml = project.folder / "helix.toml"
    toml.write_text(toml.read_text().replace("env:REGISTRY_PASSWORD", "env:WRONG_PASSWORD"))
    project.behave("1")
    began = time.monotonic()
    result = project.push(expect=3)
    assert time.monotonic() - began < 15
    assert registry.host in result.text and "docker login" in result.text
    assert project.history()[0]["progress"]["failure"]["code"] == "PermissionDenied"
    assert project.containers() == []


def test_a_token_that_expires_on_the_way_is_renewed(
    machine: Machine, projects: Callable[..., Project], tmp_path: Path
) -> None:
    with token_registry(tmp_path) as registry:
        url = urlsplit(f"http://{registry.host}")
        with proxy(url.hostname or "", url.port or 0) as line:
            project = projects(registry=registry)
            behind(project, registry, line.host)
            (project.folder / "ballast").write_bytes(os.urandom(4_000_000))
            dockerfile = project.folder / "Dockerfile"
            dockerfile.write_text(dockerfile.read_text() + "COPY ballast /ballast\n")
            project.behave("1")
            project.push()
            project.behave("2")
            (project.folder / "ballast").write_bytes(os.urandom(4_000_000))
            assert registry.tokens is not None
            registry.tokens.ttl = 1
            line.bytes_per_second = 1_000_000
            pushing = project.begin_push()
            wait_for_activity(machine, project, "push")
            time.sleep(3)
            line.bytes_per_second = 0
            registry.tokens.ttl = 300
            out, _ = pushing.communicate(timeout=120)
            assert pushing.returncode == 0, out
            assert project.version() == "2"
