"""`helix push` to Kubernetes: a real control plane, whose pods run on a real engine."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator
from typing import Any

import docker
import pytest

from tests.e2e.kind_suite import KindProject, KindSuite, Stand, toml_values
from tests.fakes.kubelet import Kubelet
from tests.fakes.kubelet_runtime import EngineRuntime
from tests.services.control_plane import Cluster
from tests.services.registry import TestRegistry

pytestmark = [pytest.mark.kubernetes, pytest.mark.engine, pytest.mark.registry]


class Kubernetes(Stand):
    """A namespace a project, on a node that runs pods on this machine's engine."""

    dockerfile = None
    first_words = "version {version} begins"
    volumes = True

    def __init__(self, node: Kubelet, registry: TestRegistry) -> None:
        self.node, self.registry = node, registry
        self.env = {"REGISTRY_PASSWORD": registry.password, "GREETING": "canary-4711"}
        self.namespaces: list[str] = []

    def tables(self, project: str, volume: bool) -> str:
        """Its namespace is made here, too: the provider makes none."""
        namespace = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": project}}
        assert self.node.api.post("/api/v1/namespaces", json=namespace).is_success
        self.namespaces.append(project)
        target: dict[str, Any] = {
            "kubeconfig": str(self.node.cluster.kubeconfig("admin")),
            "namespace": project,
            "port": 8080,
            "start_deadline": 30,
        }
        if volume:
            target["volume"] = "helix-data:/data"
        stored = {"repository": f"{self.registry.host}/{project}", **self.registry.settings}
        return (
            f"[cloud.dev.kubernetes]\n{toml_values(**target)}\n"
            '[deploy.dev.secrets]\nGREETING = "env:GREETING"\n'
            f"[deploy.dev.registry]\n{toml_values(**stored)}"
        )

    def listed(self, project: str, path: str) -> list[dict[str, Any]]:
        """Objects of the namespace that are not on their way out."""
        group, _, plural = path.rpartition("/")
        root = f"/apis/{group}" if group else "/api/v1"
        found = self.node.api.get(f"{root}/namespaces/{project}/{plural}").json()["items"]
        return [one for one in found if not one["metadata"].get("deletionTimestamp")]

    def serves(self, project: str) -> list[str]:
        """What a request to the service reaches: what kube-proxy would do."""
        versions = set()
        for one in self.listed(project, "discovery.k8s.io/v1/endpointslices"):
            for each in one.get("endpoints") or ():
                if each["conditions"]["ready"]:
                    address, port = each["addresses"][0], one["ports"][0]["port"]
                    answer = self.node.probes.get(
                        f"http://{address}:{port}", headers={"connection": "close"}
                    ).json()
                    assert answer["env"] == self.env["GREETING"], "the pod has its secret"
                    versions.add(answer["version"])
        return sorted(versions)

    def remains(self, project: str) -> list[str]:
        plurals = ("apps/v1/deployments", "apps/v1/statefulsets", "services", "secrets", "pods")
        return [one["metadata"]["name"] for path in plurals for one in self.listed(project, path)]

    def data(self, project: str) -> list[str]:
        claims = self.listed(project, "persistentvolumeclaims")
        return [one["metadata"]["name"] for one in claims]

    def run(self, project: str, *command: str) -> tuple[int, str]:
        """A command in the project's only pod."""
        (pod,) = self.listed(project, "pods")
        found = self.node.find(project, pod["metadata"]["name"])
        assert found is not None and found.box is not None
        return found.box.run(command)


class TestKubernetes(KindSuite):
    @pytest.fixture(scope="class")
    @classmethod
    def stand(cls, cluster: Cluster, registry: TestRegistry) -> Iterator[Kubernetes]:
        engine = docker.from_env()
        runtime = EngineRuntime(engine, f"helix-test-node-{uuid.uuid4().hex[:8]}")
        with Kubelet(cluster, runtime, "node-engine") as node:
            stand = Kubernetes(node, registry)
            yield stand
            for one in stand.namespaces:
                node.api.delete(f"/api/v1/namespaces/{one}")
        runtime.sweep()
        engine.close()

    def test_the_last_words_of_a_release_that_exits_are_shown(self, project: KindProject) -> None:
        project.behave("1", "exits")
        result = project.push(expect=3)
        assert "exited with code 3" in result.text
        assert "cannot go on: the schema is missing" in result.text

    def test_a_database_keeps_its_data_through_a_bad_release(
        self, projects: Callable[..., KindProject], stand: Kubernetes
    ) -> None:
        project = projects(volume=True)
        project.behave("1")
        project.push()
        assert stand.data(project.name) == ["helix-data"]
        assert stand.run(project.name, "sh", "-c", "echo kept > /data/file")[0] == 0

        project.behave("2", "broken")
        with project.watched() as seen:
            project.push(expect=3)
        assert not any("2" in one for one in seen)
        assert project.serves() == ["1"]
        assert stand.run(project.name, "cat", "/data/file") == (0, "kept\n")
