"""Every kind of registry that a cloud or a company runs, against real registries."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from registries import gar
from tests.contract.registry_suite import RegistrySuite, RegistryWorld, a_world
from tests.fakes.stores import KINDS, Store, every_store
from tests.services.registry import TestRegistry, plain_registry

pytestmark = pytest.mark.registry


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TestRegistry]:
    with plain_registry(tmp_path_factory.mktemp("plain")) as registry:
        yield registry


@pytest.fixture(scope="module")
def stores(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Store]]:
    with every_store(tmp_path_factory.mktemp("stores")) as stores:
        yield stores


class TestRegistryKinds(RegistrySuite):
    @pytest.fixture(params=KINDS)
    def world(
        self,
        request: pytest.FixtureRequest,
        stores: dict[str, Store],
        plain: TestRegistry,
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
    ) -> RegistryWorld:
        store = stores[request.param]
        monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path / "docker"))
        monkeypatch.setattr(gar, "LOOK_SECONDS", 0.01)
        for name, value in store.environ.items():
            monkeypatch.setenv(name, value)
        return a_world(store, plain)
