"""One machine for all end-to-end tests; a project of its own for each."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.machine import Machine, Project, clean_up, make_project
from tests.services.registry import TestRegistry, secured_registry


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
