"""The manifest of the workers, on a real control plane that enforces the strictest pod security."""

from __future__ import annotations

import copy
import tomllib
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from tests.e2e.machine import ROOT
from tests.fakes.kubelet import wait_until
from tests.services import manifests
from tests.services.control_plane import Cluster
from worker.settings import Settings

pytestmark = pytest.mark.kubernetes

FILE = ROOT / "examples" / "kubernetes" / "worker.yaml"
NAMESPACE = "helix-deploy"


@pytest.fixture
def api(cluster: Cluster) -> Iterator[httpx.Client]:
    with cluster.http() as api:
        yield api
        api.delete(f"/api/v1/namespaces/{NAMESPACE}")
        wait_until(lambda: api.get(f"/api/v1/namespaces/{NAMESPACE}").status_code == 404, 60)


def deployment() -> dict[str, Any]:
    return next(one for one in manifests.read(FILE) if one["kind"] == "Deployment")


def pods(api: httpx.Client) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = api.get(f"/api/v1/namespaces/{NAMESPACE}/pods").json()["items"]
    return found


def test_it_is_taken_as_it_is_without_a_warning(api: httpx.Client) -> None:
    assert manifests.apply(api, manifests.read(FILE)) == []
    namespace = api.get(f"/api/v1/namespaces/{NAMESPACE}").json()
    assert namespace["metadata"]["labels"]["pod-security.kubernetes.io/enforce"] == "restricted"
    wait_until(lambda: len(pods(api)) == 2, 60)
    assert manifests.apply(api, manifests.read(FILE)) == []  # twice is once


@pytest.mark.parametrize(
    "change",
    [
        {"allowPrivilegeEscalation": True},
        {"capabilities": {"drop": []}},
        {"runAsNonRoot": False},
    ],
    ids=lambda change: next(iter(change)),
)
def test_that_would_be_said_of_a_worker_with_more_rights(
    api: httpx.Client, change: dict[str, Any]
) -> None:
    changed = copy.deepcopy(manifests.read(FILE))
    for one in changed:
        if one["kind"] == "Deployment":
            one["spec"]["template"]["spec"]["containers"][0]["securityContext"] |= change
    warnings = manifests.apply(api, changed)
    assert "restricted" in warnings[0]
    assert pods(api) == []


def test_it_fits_the_image_and_itself() -> None:
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    spec = deployment()["spec"]["template"]["spec"]
    (worker,) = spec["containers"]
    assert worker["image"].endswith(f"/worker:{version}")
    dockerfile = (ROOT / "Dockerfile").read_text()
    number = spec["securityContext"]["runAsUser"]
    assert f"USER {number}:{spec['securityContext']['runAsGroup']}" in dockerfile
    ports = {one["name"]: one["containerPort"] for one in worker["ports"]}
    assert f"HELIX_HEALTH_ADDRESS=0.0.0.0:{ports['health']}" in dockerfile
    folders = {one["mountPath"] for one in worker["volumeMounts"]}
    assert any(f"HELIX_STATE_DIR={folder} " in dockerfile for folder in folders)


def test_its_settings_are_ours(monkeypatch: pytest.MonkeyPatch) -> None:
    data = next(one["data"] for one in manifests.read(FILE) if one["kind"] == "ConfigMap")
    known = {f"HELIX_{name.upper()}" for name in Settings.model_fields}
    assert {name for name in data if name.startswith("HELIX_")} <= known
    for name, value in data.items():
        monkeypatch.setenv(name, value)
    settings = Settings()
    spec = deployment()["spec"]["template"]["spec"]
    assert settings.graceful_shutdown_seconds + 30 == spec["terminationGracePeriodSeconds"]
    assert settings.metrics_address.endswith(
        f":{spec['containers'][0]['ports'][1]['containerPort']}"
    )
