"""`helix push` of a HelixDB project to Helix Cloud, which is a stand-in."""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.machine import Machine, Result
from tests.fakes.helix_cloud import CLUSTER_KEY, KEY, HelixCloud


@pytest.fixture
def cloud() -> Iterator[HelixCloud]:
    with HelixCloud() as found:
        yield found


class HelixProject:
    """A HelixDB project whose instance `production` is a cluster of Helix Cloud."""

    def __init__(self, machine: Machine, cloud: HelixCloud) -> None:
        self.machine = machine
        self.folder = machine.home / f"e2e{uuid.uuid4().hex[:8]}"
        (self.folder / "db").mkdir(parents=True)
        key = self.folder.with_suffix(".key")
        key.write_text(f"{KEY}\n")
        key.chmod(0o600)
        (self.folder / "db" / "schema.hx").write_text("N::Book { title: String }\n")
        lines = [
            "[project]",
            f'name = "{self.folder.name}"',
            "[cloud.production.helix]",
            'cluster_id = "c1"',
            f'endpoint = "{cloud.address}"',
            f'token = "file:{key}"',
            'build_mode = "release"',
            'env_vars = { LEVEL = "info" }',
        ]
        (self.folder / "helix.toml").write_text("\n".join(lines) + "\n")

    def say(self, text: str) -> None:
        """Change the queries."""
        (self.folder / "db" / "queries.hx").write_text(f"QUERY books() => RETURN {text}\n")

    def helix(self, *words: str, expect: int | None = 0) -> Result:
        """Any command, in the project's folder."""
        return self.machine.helix(*words, cwd=self.folder, expect=expect)


def test_the_life_of_a_cluster(machine: Machine, cloud: HelixCloud) -> None:
    project, cluster = HelixProject(machine, cloud), cloud.clusters["c1"]
    project.say("one")
    said = project.helix("push", "production").text
    assert "one" in cluster.sources["queries.hx"] and cluster.env == {"LEVEL": "info"}
    assert 'cluster_id = "c1"' in str(cluster.helix_toml)

    project.say("two")
    project.helix("push", "production")
    assert "two" in cluster.sources["queries.hx"]
    assert project.helix("plan", "production").exit == 0
    assert "unchanged" in project.helix("push", "production").text or cluster.deployments == 2

    project.say("WRONG")
    failed = project.helix("push", "production", expect=3).text
    assert "queries.hx: unexpected token WRONG" in failed
    assert "two" in cluster.sources["queries.hx"]

    assert "production" in project.helix("status", "production").text
    assert "loaded" in project.helix("logs", "production").text
    project.helix("rollback", "1", "--instance", "production", "--yes")
    assert "one" in cluster.sources["queries.hx"]

    refused = project.helix("destroy", "production", "--yes", expect=None)
    assert refused.exit != 0 and "cannot delete the cluster" in refused.text
    history = json.dumps(project.helix("history", "production", "--json").document)
    assert not any(key in history + said for key in (KEY, CLUSTER_KEY))


def test_a_project_without_queries_is_refused_before_anything_is_asked(
    machine: Machine, cloud: HelixCloud
) -> None:
    project = HelixProject(machine, cloud)
    Path(project.folder, "db", "schema.hx").unlink()
    refused = project.helix("push", "production", expect=2)
    assert "no .hx files" in refused.text and cloud.calls == []
