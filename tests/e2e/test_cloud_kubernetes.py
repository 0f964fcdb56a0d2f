"""`helix push` to Kubernetes: a real control plane, whose pods run on a real engine."""

from __future__ import annotations

import json
import shutil
import threading
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import docker
import pytest

from tests.e2e.machine import APP, Machine, Project, eventually
from tests.fakes.kubelet import Kubelet
from tests.fakes.kubelet_runtime import EngineRuntime
from tests.services.control_plane import Cluster
from tests.services.registry import TestRegistry, free_port

pytestmark = [pytest.mark.kubernetes, pytest.mark.engine, pytest.mark.registry]


@pytest.fixture(scope="module")
def node(cluster: Cluster) -> Iterator[Kubelet]:
    """A node that runs pods on this machine's engine."""
    engine = docker.from_env()
    runtime = EngineRuntime(engine, f"helix-test-node-{uuid.uuid4().hex[:8]}")
    with Kubelet(cluster, runtime, "node-engine") as found:
        yield found
    runtime.sweep()
    engine.close()


class KubernetesProject(Project):
    """A project whose instance `dev` is a namespace of its own."""

    node: Kubelet

    def listed(self, path: str) -> list[dict[str, Any]]:
        """Objects of the namespace that are not on their way out."""
        group, _, plural = path.rpartition("/")
        root = f"/apis/{group}" if group else "/api/v1"
        found = self.node.api.get(f"{root}/namespaces/{self.name}/{plural}").json()["items"]
        return [one for one in found if not one["metadata"].get("deletionTimestamp")]

    def serves(self) -> set[str]:
        """The versions that a request to the service reaches: what kube-proxy would do."""
        versions = set()
        for one in self.listed("discovery.k8s.io/v1/endpointslices"):
            for each in one.get("endpoints") or ():
                if each["conditions"]["ready"]:
                    address, port = each["addresses"][0], one["ports"][0]["port"]
                    answer = self.node.probes.get(
                        f"http://{address}:{port}", headers={"connection": "close"}
                    )
                    versions.add(answer.json()["version"])
        return versions

    def remains(self) -> list[str]:
        """What is in the namespace because of the instance, claims excepted."""
        plurals = ("apps/v1/deployments", "apps/v1/statefulsets", "services", "secrets", "pods")
        return [one["metadata"]["name"] for path in plurals for one in self.listed(path)]

    def claims(self) -> list[str]:
        """The claims of the namespace."""
        return [one["metadata"]["name"] for one in self.listed("persistentvolumeclaims")]

    @contextmanager
    def watched(self) -> Iterator[set[str]]:
        """The versions that served at any moment of the block."""
        seen: set[str] = set()
        over = threading.Event()

        def watch() -> None:
            while not over.wait(0.05):
                seen.update(self.serves())

        watcher = threading.Thread(target=watch, daemon=True)
        watcher.start()
        try:
            yield seen
        finally:
            over.set()
            watcher.join()


@pytest.fixture
def projects(
    machine: Machine, registry: TestRegistry, node: Kubelet
) -> Iterator[Callable[..., KubernetesProject]]:
    """Makes projects to order."""
    made: list[KubernetesProject] = []

    def make(volume: str = "") -> KubernetesProject:
        name = f"e2e{uuid.uuid4().hex[:8]}"
        folder = machine.home / name
        shutil.copytree(APP, folder, ignore=shutil.ignore_patterns("helix.toml"))
        project = KubernetesProject(machine, folder, name, free_port(), registry)
        project.node = node
        made.append(project)
        namespace = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}}
        assert node.api.post("/api/v1/namespaces", json=namespace).is_success
        settings = {
            "kubeconfig": str(node.cluster.kubeconfig("admin")),
            "namespace": name,
            "port": 8080,
            "start_deadline": 30,
        }
        if volume:
            settings["volume"] = volume
        stored = {"repository": project.repository, **registry.settings}
        (folder / "helix.toml").write_text(
            f"""
[project]
name = "{name}"
[cloud.dev.kubernetes]
{_lines(settings)}
[deploy.dev]
stop_grace = 3
[deploy.dev.secrets]
GREETING = "env:GREETING"
[deploy.dev.health_check]
path = "/"
deadline = 10
[deploy.dev.registry]
{_lines(stored)}
"""
        )
        (folder / ".env").write_text("GREETING=canary-4711\n")
        return project

    yield make
    for one in made:
        node.api.delete(f"/api/v1/namespaces/{one.name}")


def _lines(values: dict[str, Any]) -> str:
    return "\n".join(f"{key} = {json.dumps(value)}" for key, value in values.items())


def test_releases_come_go_and_come_back(projects: Callable[..., KubernetesProject]) -> None:
    project = projects()
    project.behave("1")
    project.push()
    assert project.serves() == {"1"}

    project.behave("2")
    with project.watched() as seen:
        project.push()
    assert project.serves() == {"2"} and seen == {"1", "2"}
    assert "unchanged" in project.push().text

    project.behave("3", "exits")
    with project.watched() as seen:
        result = project.push(expect=3)
    assert "exited with code 3" in result.text
    assert "cannot go on: the schema is missing" in result.text
    assert seen == project.serves() == {"2"}
    assert project.history()[0]["progress"]["outcome"] == "rolled-back"

    report = project.helix("status", "dev", "--json").document["instances"][0]
    assert report["release"]["number"] == 3
    assert "version 2 begins" in project.helix("logs", "dev").text

    project.helix("rollback", "--instance", "dev", "--yes")
    assert project.serves() == {"1"}

    project.helix("destroy", "dev", "--yes")
    assert project.remains() == [] and project.serves() == set()
    assert project.helix("logs", "dev", expect=None).exit != 0


def test_a_database_keeps_its_claim(projects: Callable[..., KubernetesProject]) -> None:
    project = projects("helix-data:/data")
    project.behave("1")
    project.push()
    assert project.claims() == ["helix-data"]
    [pod] = project.listed("pods")
    box = project.node.find(project.name, pod["metadata"]["name"])
    assert box is not None and box.box is not None
    assert box.box.run(["sh", "-c", "echo kept > /data/file"])[0] == 0

    project.behave("2", "broken")
    with project.watched() as seen:
        project.push(expect=3)
    assert "2" not in seen
    assert project.serves() == {"1"}
    [pod] = project.listed("pods")
    box = project.node.find(project.name, pod["metadata"]["name"])
    assert box is not None and box.box is not None
    assert box.box.run(["cat", "/data/file"]) == (0, "kept\n")

    project.helix("destroy", "dev", "--yes")
    assert project.remains() == [] and project.claims() == ["helix-data"]
    project.helix("destroy", "dev", "--data", "--yes")
    eventually(lambda: project.claims() == [], what="the end of the claim")
