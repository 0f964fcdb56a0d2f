"""One machine for all end-to-end tests; a project of its own for each."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from tests.e2e.machine import Machine, Project, clean_up, make_project
from tests.services.proxy import Proxy, proxy
from tests.services.registry import TestRegistry, secured_registry

DOCKERFILE = """
ARG BASE=python:3-slim
FROM ${BASE}
COPY app.py behaviour.json /app/
RUN sleep 3
COPY ballast /ballast
CMD ["python3", "-u", "/app/app.py"]
"""
"""Slow enough to be interrupted, and with a layer that takes its time on the way."""


@pytest.fixture(scope="session")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TestRegistry]:
    """A registry with TLS and a password."""
    with secured_registry(tmp_path_factory.mktemp("registry")) as running:
        yield running


@pytest.fixture(scope="session")
def machine(registry: TestRegistry) -> Iterator[Machine]:
    """Somebody's machine, its stack running."""
    with tempfile.TemporaryDirectory(prefix="hx") as folder:
        machine = Machine(Path(folder), env={"REGISTRY_PASSWORD": registry.password})
        machine.helix("up")
        yield machine
        machine.helix("down", expect=None)


@pytest.fixture
def project(machine: Machine, registry: TestRegistry) -> Iterator[Project]:
    """A project with the controllable app."""
    made = make_project(machine, registry)
    yield made
    clean_up(made)


@pytest.fixture
def projects(machine: Machine, registry: TestRegistry) -> Iterator[Callable[..., Project]]:
    """Makes projects to order."""
    made: list[Project] = []

    def make(**options: Any) -> Project:
        made.append(make_project(machine, options.pop("registry", registry), **options))
        return made[-1]

    yield make
    for one in made:
        clean_up(one)


@pytest.fixture
def slow_registry(registry: TestRegistry) -> Iterator[Proxy]:
    """The registry behind a line that takes some seconds for an image."""
    url = urlsplit(f"https://{registry.host}")
    with proxy(url.hostname or "", url.port or 0) as running:
        yield running


@pytest.fixture
def slow_project(
    projects: Callable[..., Project], slow_registry: Proxy, registry: TestRegistry
) -> Project:
    """Every activity of it takes long enough to be hit."""
    made = projects(deploy='strategy = "stop-first"')
    toml = made.folder / "helix.toml"
    toml.write_text(toml.read_text().replace(registry.host, slow_registry.host))
    (made.folder / "ballast").write_bytes(os.urandom(1_000_000))
    (made.folder / "Dockerfile").write_text(DOCKERFILE)
    made.behave("1", stubborn=True)
    made.push()
    return made
