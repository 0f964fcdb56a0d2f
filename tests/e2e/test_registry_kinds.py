"""`helix push` to the kinds that store images and run nothing: the push is the release.

All of them against the real docker-registry: with the tokens of a token server, as GitHub's, Docker
Hub's and Google's have, or with the user and password that AWS hands out. The clouds' own APIs are
stand-ins.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.e2e.kind_suite import KindProject, Stand, machine_for, make_kind_project, toml_values
from tests.e2e.machine import Machine, eventually
from tests.fakes.stores import KINDS, Store, every_store
from tests.services.registry import PASSWORD

pytestmark = [pytest.mark.engine, pytest.mark.registry]


class StoreStand(Stand):
    """One kind of registry."""

    def __init__(self, store: Store) -> None:
        self.store = store

    def tables(self, project: str, volume: bool) -> str:
        target = self.store.target(project)
        values = {**target.settings}
        if target.repository:
            values["repository"] = target.repository
        return f"[cloud.dev.{self.store.kind}]\n{toml_values(**values)}\n"

    def serves(self, project: str) -> list[str]:
        """The digest of the tag that people pull."""
        found = self.store.digest(project, "latest")
        return [found] if found else []

    def remains(self, project: str) -> list[str]:
        return self.serves(project)


@pytest.fixture(scope="module")
def stores(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Store]]:
    with every_store(tmp_path_factory.mktemp("stores")) as stores:
        yield stores


@pytest.fixture(scope="module")
def machine(stores: dict[str, Store]) -> Iterator[Machine]:
    everything = StoreStand(stores["oci"])
    everything.env = {"REGISTRY_PASSWORD": PASSWORD}
    for store in stores.values():
        everything.env |= store.environ
    with machine_for(everything) as machine:
        yield machine


@pytest.fixture(params=KINDS)
def project(
    request: pytest.FixtureRequest, machine: Machine, stores: dict[str, Store]
) -> KindProject:
    return make_kind_project(machine, StoreStand(stores[request.param]))


def released(project: KindProject) -> str:
    """The digest of the last deployment's artifact."""
    return str(project.newest()["artifact"]["image"]["digest"])


def test_the_tag_moves_to_the_release_and_back(
    project: KindProject, request: pytest.FixtureRequest, stores: dict[str, Store]
) -> None:
    project.behave("1")
    assert project.helix("plan", "dev", "--json", expect=10).document["release"] is None
    assert project.serves() == []
    project.push()
    first = released(project)
    assert project.serves() == [first]
    assert project.helix("plan", "dev", "--json").document["changed"] is False

    project.behave("2")
    project.push()
    second = released(project)
    assert project.serves() == [second] != [first]
    assert "unchanged" in project.push().text

    status = project.status()
    assert status["release"]["number"] == 3
    assert status["platform"]["state"] in ("running", "unknown"), "three seconds may not do"
    assert "has no logs" in project.helix("logs", "dev", expect=2).text

    project.helix("rollback")
    assert project.serves() == [first]
    triggers = [one["request"]["trigger"] for one in project.history()]
    assert triggers == ["rollback", "push", "push", "push"]

    for words in ((), (), ("--data",)):
        project.helix("destroy", "dev", "--yes", *words)
    assert project.serves() == []
    store = stores[request.node.callspec.params["project"]]
    assert store.digest(project.name, second) == second, "images are never deleted"


def test_a_release_that_fails_or_is_cancelled_moves_nothing(project: KindProject) -> None:
    project.behave("1")
    project.push()
    first = project.serves()
    toml, dockerfile = project.folder / "helix.toml", project.folder / "Dockerfile"
    right = dockerfile.read_text()
    dockerfile.write_text(f"{right}COPY absent.txt /\n")
    assert "absent.txt" in project.push(expect=3).text
    assert project.serves() == first

    dockerfile.write_text(right)
    toml.write_text(toml.read_text().replace("[deploy.dev.env]", "[deploy.dev]\napproval = true\n"
                                             "[deploy.dev.env]"))  # fmt: skip
    project.behave("2")
    pushing = project.begin_push()
    eventually(lambda: project.phase() == "asking-approval", 60, "the question")
    project.push(expect=5)
    project.helix("cancel", "dev")
    pushing.communicate(timeout=60)
    assert pushing.returncode == 7
    assert project.serves() == first
