"""Workers as pods: the manifest of the examples, the image, and a push that they carry out.

The control plane is real and enforces the strictest pod security; the pods run on this machine's
engine, and reach Temporal, ledger, store and build engine by the network.
"""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import docker
import pytest
from temporalio.client import Client

from tests.contract.test_worker_manifest import FILE, NAMESPACE, deployment
from tests.e2e.machine import Machine, clean_up, eventually, make_project
from tests.fakes.kubelet import Kubelet
from tests.fakes.kubelet_runtime import EngineRuntime
from tests.services import manifests, worker_image
from tests.services.bridges import tcp_engine
from tests.services.control_plane import Cluster
from tests.services.postgres import postgres
from tests.services.registry import TestRegistry, secured_registry, trusted
from tests.services.s3 import s3
from tests.services.temporal import server_at

pytestmark = [pytest.mark.kubernetes, pytest.mark.engine, pytest.mark.timeout(900)]


SECRET = ("HELIX_LEDGER_URL", "AWS_SECRET_ACCESS_KEY", "REGISTRY_PASSWORD")
"""What of it is in the Secret."""


class Supplied(EngineRuntime):
    """A node that has the image already, as `imagePullPolicy: IfNotPresent` allows."""

    def pull(self, image: str, login: Mapping[str, Any] | None) -> None:
        self._client.images.get(image)


@pytest.fixture
def registry(tmp_path: Path) -> Iterator[TestRegistry]:
    """A registry where pods of this machine's engine reach it."""
    bridge = docker.from_env().networks.get("bridge").attrs["IPAM"]["Config"][0]
    address = bridge.get("Gateway") or bridge["Subnet"].replace(".0/16", ".1")
    with secured_registry(tmp_path / "registry", address=address) as found, trusted(found):
        yield found


@pytest.fixture
def shared(registry: TestRegistry, tmp_path: Path) -> Iterator[dict[str, str]]:
    """What workers share, in the same place."""
    address = registry.address
    with ExitStack() as stack:
        yield {
            "REGISTRY_PASSWORD": registry.password,
            **stack.enter_context(s3(address)),
            "TEMPORAL_ADDRESS": stack.enter_context(server_at(address, tmp_path / "log")),
            "HELIX_LEDGER_URL": stack.enter_context(postgres(address)).new_database(),
            "DOCKER_HOST": f"tcp://{address}:{stack.enter_context(tcp_engine(address=address))}",
        }


@pytest.fixture
def workers(cluster: Cluster, registry: TestRegistry, shared: dict[str, str]) -> Iterator[Kubelet]:
    """The manifest, applied, with our settings in the place of the example's, and our registry's
    certificate."""
    secret = {name: shared[name] for name in SECRET}
    engine = docker.from_env()
    (wanted,) = deployment()["spec"]["template"]["spec"]["containers"]
    engine.images.get(worker_image.built()).tag(wanted["image"])
    runtime = Supplied(engine, f"helix-test-node-{uuid.uuid4().hex[:8]}")
    objects = manifests.read(FILE)
    by_kind = {one["kind"]: one for one in objects}
    by_kind["ConfigMap"]["data"].update(
        {name: value for name, value in shared.items() if name not in secret}
    )
    pod = by_kind["Deployment"]["spec"]["template"]["spec"]
    assert registry.ca is not None
    certificate = {"name": "certificate", "mountPath": str(registry.ca.parent)}
    pod["volumes"].append({"name": "certificate", "configMap": {"name": "certificate"}})
    pod["containers"][0]["volumeMounts"].append(certificate)
    given = [
        _object("Secret", "worker", stringData=secret),
        _object("ConfigMap", "certificate", data={registry.ca.name: registry.ca.read_text()}),
    ]
    with Kubelet(cluster, runtime, "node-workers") as node:
        try:
            assert manifests.apply(node.api, [*objects, *given]) == []
            yield node
        finally:
            node.api.delete(f"/api/v1/namespaces/{NAMESPACE}")
            eventually(lambda: pods(node) is None, 120, "the end of the namespace")
            runtime.sweep()
            engine.images.remove(wanted["image"])
            engine.close()


def _object(kind: str, name: str, **content: Any) -> dict[str, Any]:
    about = {"name": name, "namespace": NAMESPACE}
    return {"apiVersion": "v1", "kind": kind, "metadata": about, **content}


def pods(node: Kubelet) -> dict[str, bool] | None:
    """The workers' pods, and whether they are ready; None once the namespace is gone."""
    if node.api.get(f"/api/v1/namespaces/{NAMESPACE}").status_code == 404:
        return None
    found = node.api.get(f"/api/v1/namespaces/{NAMESPACE}/pods").json()["items"]
    return {
        one["metadata"]["name"]: any(
            each["type"] == "Ready" and each["status"] == "True"
            for each in one["status"].get("conditions", ())
        )
        for one in found
        if not one["metadata"].get("deletionTimestamp")
    }


def test_a_push_is_carried_out_by_pods(
    workers: Kubelet, shared: dict[str, str], registry: TestRegistry, tmp_path: Path
) -> None:
    ready = lambda: list((pods(workers) or {}).values()) == [True, True]  # noqa: E731
    eventually(ready, 180, "two workers")

    person = Machine(tmp_path, {k: v for k, v in shared.items() if k != "DOCKER_HOST"})
    project = make_project(person, registry)
    toml = project.folder / "helix.toml"
    target = f'[cloud.dev.docker]\nhost = "{shared["DOCKER_HOST"]}"'
    toml.write_text(toml.read_text().replace("[cloud.dev.docker]", target))
    project.patience(60)
    try:
        project.behave("1")
        project.push()
        assert project.version() == "1"
        assert builder_of(shared["TEMPORAL_ADDRESS"], project.name) in (pods(workers) or {})

        # One pod after the other is replaced, as in an upgrade; then the new ones do the work.
        before = set(pods(workers) or {})
        for name in before:
            workers.api.delete(f"/api/v1/namespaces/{NAMESPACE}/pods/{name}")
        eventually(lambda: before.isdisjoint(pods(workers) or {}) and ready(), 180, "new workers")
        project.behave("2")
        project.push()
        assert project.version() == "2"
        assert builder_of(shared["TEMPORAL_ADDRESS"], project.name) not in before
    finally:
        clean_up(project)


def builder_of(address: str, project: str) -> str:
    """The worker whose own queue had the last build."""

    async def ask() -> str:
        client = await Client.connect(address)
        history = await client.get_workflow_handle(f"deploy:{project}/dev").fetch_history()
        for event in history.events:
            scheduled = event.activity_task_scheduled_event_attributes
            if scheduled.activity_type.name == "build":
                return str(scheduled.task_queue.name.partition("@")[2])
        raise AssertionError("nothing was built")

    return asyncio.run(ask())
