"""The `kubernetes` kind against a real control plane, with a node that is a stand-in."""

from __future__ import annotations

import base64
import re
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, ClassVar

import httpx
import pytest
import yaml
from pydantic import SecretStr

from helix_deploy.testing import Killed, ProviderSuite
from model import names
from model.artifact import Artifact, BuildSettings, Image
from model.errors import (
    Ambiguous,
    AuthExpired,
    Busy,
    ConfigurationError,
    Conflict,
    HealthCheckFailed,
    HelixError,
    PermissionDenied,
    QuotaExceeded,
    Throttled,
    Transient,
)
from model.instance import HealthCheck, Instance, RegistryTarget, Target, Volume
from model.kubernetes_errors import REASONS, STATUSES, classify
from model.platform import Phase, Revision
from providers import kubernetes as provider_module
from providers import kubernetes_logs
from providers.base import Context, PullCredentials
from providers.kubernetes import KubernetesProvider
from providers.kubernetes_api import Api
from providers.kubernetes_objects import KubernetesSettings
from providers.kubernetes_permissions import FORWARD, needed
from tests.contract.failing_suite import FailingSuite, FailingWorld
from tests.fakes.kubelet import MERGE, Kubelet, wait_until
from tests.fakes.kubelet_runtime import LoopbackRuntime
from tests.fakes.kubernetes_faults import FaultyServer
from tests.services.certificates import make_certificates
from tests.services.control_plane import Cluster
from tests.services.faults import faulty

pytestmark = pytest.mark.kubernetes

ROOT = Path(__file__).parents[2]
CANARY = "canary-4711"
REPOSITORY = "registry.test/shop"
Json = dict[str, Any]


@pytest.fixture(scope="module")
def node(cluster: Cluster) -> Iterator[Kubelet]:
    with Kubelet(cluster, LoopbackRuntime()) as found:
        yield found


@pytest.fixture(autouse=True)
def hurry(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(provider_module, "DRAIN_SECONDS", 0.0)
    monkeypatch.setattr(provider_module, "LOOK_SECONDS", 0.02)
    monkeypatch.setattr(kubernetes_logs, "FOLLOW_SECONDS", 0.05)


def documented_role() -> list[Json]:
    """The Role of the documentation, and who gets it."""
    text = (ROOT / "docs/providers/kubernetes.md").read_text()
    [block] = re.findall(r"```yaml\n(.*?)```", text, re.DOTALL)
    return list(yaml.safe_load_all(block))


class KubernetesWorld(FailingWorld):
    """A namespace of its own, used with no more than the documented permissions."""

    patience = 5.0
    secrets: ClassVar[dict[str, str]] = {"env:TOKEN": CANARY}

    def __init__(self, node: Kubelet, **options: Any) -> None:
        self.node = node
        self.runtime: LoopbackRuntime = node.runtime  # type: ignore[assignment]
        self.cluster = node.cluster
        self.admin = node.api
        self.options = options
        self.settings: Json = {"start_deadline": 8}
        self.namespace = f"shop-{uuid.uuid4().hex[:8]}"
        self.kubeconfig = str(node.cluster.kubeconfig("deployer"))
        self.context = Context(secret=lambda reference: SecretStr(CANARY))
        self.make(
            "",
            "namespaces",
            {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": self.namespace}},
        )
        kinds = {"Role": "roles", "RoleBinding": "rolebindings"}
        for one in documented_role():
            self.make("rbac.authorization.k8s.io", kinds[one["kind"]], one)
        account = f"/api/v1/namespaces/{self.namespace}/serviceaccounts/default"
        wait_until(lambda: self.admin.get(account).is_success)

    def forbid(self, *resources: str) -> None:
        """Take permissions away again."""
        path = "/apis/rbac.authorization.k8s.io/v1/namespaces"
        path = f"{path}/{self.namespace}/roles/helix-deploy"
        role = self.admin.get(path).json()
        for rule in role["rules"]:
            rule["resources"] = [one for one in rule["resources"] if one not in resources]
        role["rules"] = [rule for rule in role["rules"] if rule["resources"]]
        assert self.admin.put(path, json=role).is_success
        # The authorizer learns of it a moment later.
        review = {
            "apiVersion": "authorization.k8s.io/v1",
            "kind": "SelfSubjectAccessReview",
            "spec": {"resourceAttributes": _attributes(resources[-1], self.namespace)},
        }
        path = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews"
        with self.cluster.http("deployer") as api:
            wait_until(lambda: not api.post(path, json=review).json()["status"]["allowed"])

    @contextmanager
    def through_faults(self) -> Iterator[FaultyServer]:
        """Reach the API server by way of a proxy that can fail, and through which no port can be
        forwarded."""
        self.forbid("pods/portforward")
        with FaultyServer(self.cluster) as server:
            kubeconfig = self.cluster.kubeconfig("deployer", url=server.url)
            self.kubeconfig = str(kubeconfig)
            yield server

    @contextmanager
    def failing(self, rate: float, seed: int) -> Iterator[list[str]]:
        self.forbid("pods/portforward")
        self.settings["start_deadline"] = 60  # what is slow here is not what this is about
        # No registry answers here, and nobody pulls.
        self.options |= {"registry": None, "build": BuildSettings(kind="image", image=REPOSITORY)}
        server = f"127.0.0.1:{self.cluster.port}"
        with faulty(server, rate, seed, self.cluster.certificates) as line:
            self.kubeconfig = str(self.cluster.kubeconfig("deployer", url=line.url))
            yield line.injected

    def make(self, group: str, plural: str, wanted: Json) -> None:
        """Make an object as an administrator."""
        where = "" if plural == "namespaces" else f"namespaces/{self.namespace}/"
        root = f"/apis/{group}/v1" if group else "/api/v1"
        answer = self.admin.post(f"{root}/{where}{plural}", json=wanted)
        assert answer.is_success, answer.text

    def listed(self, group: str, plural: str) -> list[Json]:
        """The objects of a kind in the namespace."""
        root = f"/apis/{group}/v1" if group else "/api/v1"
        answer = self.admin.get(f"{root}/namespaces/{self.namespace}/{plural}")
        assert answer.is_success, answer.text
        return list(answer.json()["items"])

    def instance(self, name: str, behaviour: str = "serve") -> Instance:
        more: Json = {
            "env": {"NAME": name, "BEHAVIOUR": behaviour, "WORLD": self.namespace},
            "secrets": {"TOKEN": "env:TOKEN"},
            "registry": RegistryTarget(repository=REPOSITORY),
            "stop_grace": 0,
            "health_check": HealthCheck(interval=0.05, successes=1, timeout=1, deadline=4),
        } | self.options
        settings = {
            "kubeconfig": self.kubeconfig,
            "namespace": self.namespace,
            **self.settings,
        }
        target = Target(kind="kubernetes", settings=settings)
        return Instance(project="shop", name="prod", target=target, **more)

    def token(self) -> str:
        """The secret that the container had which was started last."""
        return [one["TOKEN"] for one in self.runtime.started if one["WORLD"] == self.namespace][-1]

    def artifact(self, tag: str = "1") -> Artifact:
        return Artifact(image=Image(repository=REPOSITORY, digest=f"sha256:{tag * 64}"))

    def provider(self, instance: Instance) -> KubernetesProvider:
        return KubernetesProvider(instance, self.context)

    def answer(self) -> str:
        for one in self.listed("discovery.k8s.io", "endpointslices"):
            for each in one.get("endpoints") or ():
                if each["conditions"]["ready"]:
                    address = self.node.address(each["addresses"][0])
                    port = one["ports"][0]["port"]
                    url = f"http://{address}:{port}"
                    return self.node.probes.get(url, headers={"connection": "close"}).text
        return ""

    def running(self) -> list[str]:
        for plural in ("deployments", "statefulsets"):
            wait_until(lambda plural=plural: all(map(_settled, self.listed("apps", plural))))  # type: ignore[misc]
        return [
            one["metadata"]["annotations"][names.LABEL_DEPLOYMENT]
            for one in self.listed("", "pods")
            if not one["metadata"].get("deletionTimestamp")
        ]

    def remains(self) -> list[str]:
        kinds = [
            ("apps", "deployments"), ("apps", "statefulsets"), ("", "services"), ("", "secrets"),
            ("", "persistentvolumeclaims"), ("networking.k8s.io", "ingresses"), ("", "pods"),
        ]  # fmt: skip
        return [
            f"{plural}/{one['metadata']['name']}"
            for group, plural in kinds
            for one in self.listed(group, plural)
            if not one["metadata"].get("deletionTimestamp")
        ]

    @contextmanager
    def kill_after(self, writes: int) -> Iterator[None]:
        left, write = writes, Api.write

        def counted(api: Api, *words: Any, **options: Any) -> Json:
            nonlocal left
            try:
                return write(api, *words, **options)
            finally:
                left -= 1
                if left == 0:
                    raise Killed

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(Api, "write", counted)
            yield

    def remove(self, revision: Revision) -> None:
        plural = {"Deployment": "deployments", "StatefulSet": "controllerrevisions"}[
            revision.detail["kind"]
        ]
        path = f"/apis/apps/v1/namespaces/{self.namespace}/{plural}/{revision.detail['name']}"
        assert self.admin.delete(path).is_success
        wait_until(lambda: self.admin.get(path).status_code == 404)


def _attributes(resource: str, namespace: str) -> Json:
    what, _, part = resource.partition("/")
    verb = "get" if part == "log" else "create"
    return {"namespace": namespace, "resource": what, "subresource": part, "verb": verb}


def _settled(workload: Json) -> bool:
    status = workload.get("status") or {}
    seen = status.get("observedGeneration", 0) >= workload["metadata"]["generation"]
    return seen and status.get("replicas", 0) == workload["spec"]["replicas"]


@contextmanager
def a_world(node: Kubelet, **options: Any) -> Iterator[KubernetesWorld]:
    world = KubernetesWorld(node, **options)
    yield world
    node.api.delete(f"/api/v1/namespaces/{world.namespace}")


class TestStateless(ProviderSuite, FailingSuite):
    """A Deployment a release."""

    @pytest.fixture
    def world(self, node: Kubelet) -> Iterator[KubernetesWorld]:
        with a_world(node) as found:
            yield found


class TestStateful(ProviderSuite, FailingSuite):
    """A StatefulSet with a claim."""

    @pytest.fixture
    def world(self, node: Kubelet) -> Iterator[KubernetesWorld]:
        with a_world(node, volumes=(Volume(mount="/data", name="helix-data"),)) as found:
            yield found

    def holds_data(self, name: str) -> bool:
        return name == "persistentvolumeclaims/helix-data"


@pytest.fixture
def world(node: Kubelet) -> Iterator[KubernetesWorld]:
    with a_world(node) as found:
        yield found


@pytest.fixture
def stateful(node: Kubelet) -> Iterator[KubernetesWorld]:
    with a_world(node, volumes=(Volume(mount="/data", name="helix-data"),)) as found:
        yield found


# --- one writer, and its data ---------------------------------------------------------------------


def test_a_claim_is_never_open_twice(stateful: KubernetesWorld) -> None:
    stateful.deployed(1)
    stateful.deployed(2)
    assert stateful.driver.deploy(stateful.release(3, "exit")).error is not None
    stateful.deployed(4)
    assert stateful.runtime.overlaps == []


def test_a_pod_that_does_not_end_keeps_the_next_one_from_starting(
    stateful: KubernetesWorld,
) -> None:
    stateful.settings["start_deadline"] = 2
    first = stateful.deployed(1)
    second = stateful.release(2)
    stateful.node.deaf = True
    try:
        with stateful.opened(second.instance) as provider:
            handle = provider.start(second, first)
            assert "the pod helix-shop-prod-0 of the release before ends, on node-1" in (
                provider.poll(handle).detail
            )
            with pytest.raises(HealthCheckFailed, match="not running after 2 s"):
                stateful.driver.wait(second, handle)
            assert len(stateful.listed("", "pods")) == 1
    finally:
        stateful.node.hear()
    assert stateful.driver.restore(second, first) == first
    assert stateful.answer() == "r1"
    assert stateful.runtime.overlaps == []


def test_destroy_keeps_the_claim_until_it_is_told_not_to(stateful: KubernetesWorld) -> None:
    stateful.deployed(1)
    claims = ["persistentvolumeclaims/helix-data"]
    with stateful.opened() as provider:
        provider.destroy(data=False)
        assert stateful.remains() == claims
        provider.destroy(data=False)
        assert stateful.remains() == claims
        provider.destroy(data=True)
        assert stateful.remains() == []


def test_a_claim_that_was_there_before_is_used_and_never_deleted(
    stateful: KubernetesWorld,
) -> None:
    spec = {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "3Gi"}}}
    stateful.make(
        "",
        "persistentvolumeclaims",
        {"apiVersion": "v1", "kind": "PersistentVolumeClaim",
         "metadata": {"name": "helix-data"}, "spec": spec},
    )  # fmt: skip
    stateful.deployed(1)
    with stateful.opened() as provider:
        provider.destroy(data=True)
    assert stateful.remains() == ["persistentvolumeclaims/helix-data"]


def test_an_instance_may_get_a_volume_and_lose_it_again(world: KubernetesWorld) -> None:
    first = world.deployed(1)
    assert first.detail["kind"] == "Deployment"
    world.options["volumes"] = (Volume(mount="/data", name="helix-data"),)
    second = world.deployed(2)
    assert second.detail["kind"] == "StatefulSet"
    assert world.running() == [second.deployment]
    del world.options["volumes"]
    third = world.deployed(3)
    assert (third.detail["kind"], world.answer()) == ("Deployment", "r3")
    assert world.running() == [third.deployment]
    release = world.release(3).model_copy(update={"deployment": third.deployment})
    assert world.driver.restore(release, second) == second
    assert world.answer() == "r2"
    assert world.running() == [second.deployment]


# --- what goes wrong on the platform --------------------------------------------------------------


@pytest.mark.parametrize("kind", ["world", "stateful"])
def test_an_image_that_is_not_there_ends_the_wait_at_once(
    kind: str, request: pytest.FixtureRequest
) -> None:
    where: KubernetesWorld = request.getfixturevalue(kind)
    first = where.deployed(1)
    where.runtime.missing["9" * 64] = "manifest unknown"
    result = where.driver.deploy(where.release(2, tag="9"))
    assert isinstance(result.error, HealthCheckFailed)
    assert "manifest unknown" in result.error.message
    assert result.restored == first
    assert where.answer() == "r1"
    assert where.running() == [first.deployment]


def test_a_registry_that_is_away_for_a_moment_is_waited_for(world: KubernetesWorld) -> None:
    world.runtime.missing["8" * 64] = "connection refused"
    release = world.release(1, tag="8")
    with world.opened(release.instance) as provider:
        handle = provider.start(release, None)
        wait_until(lambda: "connection refused" in provider.poll(handle).detail)
        assert provider.poll(handle).phase is Phase.STARTING
        world.runtime.missing.clear()
        world.driver.wait(release, handle)


def test_too_little_memory_is_called_that(world: KubernetesWorld) -> None:
    result = world.driver.deploy(world.release(1, "memory"))
    assert result.error is not None
    assert "OOMKilled" in result.error.message and "raise memory" in result.error.message


@pytest.mark.parametrize(
    ("kind", "said"),
    [("world", "ProgressDeadlineExceeded"), ("stateful", "not running after 2 s")],
)
def test_a_pod_that_no_node_has_room_for_ends_with_the_deadline(
    kind: str, said: str, request: pytest.FixtureRequest
) -> None:
    where: KubernetesWorld = request.getfixturevalue(kind)
    where.settings |= {"start_deadline": 2, "cpu": "100"}
    release = where.release(1)
    with where.opened(release.instance) as provider:
        handle = provider.start(release, None)
        wait_until(lambda: "Insufficient cpu" in provider.poll(handle).detail)
        wait_until(lambda: provider.poll(handle).phase is Phase.FAILED)
        detail = provider.poll(handle).detail
        assert said in detail and "Unschedulable" in detail
        assert provider.restore(release.deployment, None) is None


@pytest.mark.parametrize("kind", ["world", "stateful"])
def test_a_pod_that_a_policy_refuses_says_why(kind: str, request: pytest.FixtureRequest) -> None:
    where: KubernetesWorld = request.getfixturevalue(kind)
    quota = {
        "apiVersion": "v1", "kind": "ResourceQuota", "metadata": {"name": "none"},
        "spec": {"hard": {"pods": "0"}},
    }  # fmt: skip
    where.make("", "resourcequotas", quota)
    release = where.release(1)
    with where.opened(release.instance) as provider:
        with pytest.raises(QuotaExceeded, match="exceeded quota"):
            provider.preflight()
        handle = provider.start(release, None)
        wait_until(lambda: provider.poll(handle).phase is Phase.FAILED)
        assert "exceeded quota" in provider.poll(handle).detail
        provider.restore(release.deployment, None)


def test_a_release_is_not_promoted_before_all_its_pods_are_ready(
    world: KubernetesWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(provider_module, "SETTLE_SECONDS", 0.3)
    first = world.deployed(1)
    release = world.release(2, "sick")
    with world.opened(release.instance) as provider:
        handle = provider.start(release, first)
        world.driver.wait(release, handle)
        with pytest.raises(Busy, match="all pods are ready"):
            provider.promote(handle)
        assert provider.current() == first
    assert world.answer() == "r1"


def test_a_rollback_brings_back_all_pods_of_the_release(world: KubernetesWorld) -> None:
    world.settings["replicas"] = 2
    first = world.deployed(1)
    assert world.running() == [first.deployment] * 2
    world.settings["replicas"] = 1
    second = world.deployed(2)
    assert world.running() == [second.deployment]
    release = world.release(2).model_copy(update={"deployment": second.deployment})
    assert world.driver.restore(release, first) == first
    assert world.running() == [first.deployment] * 2


# --- how a release is reached ---------------------------------------------------------------------


def test_a_release_is_reached_before_the_service_leads_to_it(world: KubernetesWorld) -> None:
    first = world.deployed(1)
    release = world.release(2)
    with world.opened(release.instance) as provider:
        handle = provider.start(release, first)
        world.driver.wait(release, handle)
        endpoint = provider.endpoint(handle)
        assert endpoint is not None
        assert [httpx.get(endpoint.url).text for _ in range(3)] == ["r2"] * 3
        assert world.answer() == "r1"


def test_without_the_permission_to_forward_readiness_decides(world: KubernetesWorld) -> None:
    world.forbid("pods/portforward")
    good = world.release(1)
    with world.opened(good.instance) as provider:
        provider.preflight()
        assert "pods/portforward" in provider.context.notes[-1]
        handle = provider.start(good, None)
        assert provider.endpoint(handle) is None
    assert world.driver.deploy(good).error is None
    result = world.driver.deploy(world.release(2, "sick"))
    assert result.error is not None and "not ready" in result.error.message
    assert world.answer() == "r1"


def test_a_command_is_run_in_the_pod(world: KubernetesWorld) -> None:
    check = HealthCheck(kind="command", command=("true",), interval=0.05, successes=1)
    world.options["health_check"] = check
    release = world.release(1)
    assert world.driver.deploy(release).error is None
    with world.opened(release.instance) as provider:
        handle = provider.start(release, provider.current())
        assert provider.run_check(handle, ["true"], 5) == (0, "ran true\n")
        assert provider.run_check(handle, ["false"], 5) == (1, "ran false\n")


def test_how_people_reach_it_comes_back_with_the_release(world: KubernetesWorld) -> None:
    first = world.deployed(1)
    with world.opened() as provider:
        name = f"helix-shop-prod.{world.namespace}.svc"
        assert provider.public_url() == f"http://{name}:8080"
    world.settings |= {"host": "shop.test", "service_type": "NodePort"}
    world.options["publish"] = 80
    second = world.deployed(2)
    [service] = world.listed("", "services")
    assert (service["spec"]["type"], service["spec"]["ports"][0]["port"]) == ("NodePort", 80)
    assert len(world.listed("networking.k8s.io", "ingresses")) == 1
    with world.opened() as provider:
        assert provider.public_url() == "http://shop.test"
    release = world.release(2).model_copy(update={"deployment": second.deployment})
    assert world.driver.restore(release, first) == first
    [service] = world.listed("", "services")
    assert (service["spec"]["type"], service["spec"]["ports"][0]["port"]) == ("ClusterIP", 8080)
    assert world.listed("networking.k8s.io", "ingresses") == []


# --- secrets --------------------------------------------------------------------------------------


def test_secrets_reach_the_pods_and_nothing_else(world: KubernetesWorld) -> None:
    login = PullCredentials("registry.test", "robot", SecretStr(f"{CANARY}-pull"))
    world.context = Context(secret=lambda reference: SecretStr(CANARY), pull=lambda: login)
    release = world.release(1)
    with world.opened(release.instance) as provider:
        handle = provider.start(release, None)
        world.driver.wait(release, handle)
        provider.promote(handle)
    assert CANARY not in handle
    assert world.token() == CANARY
    assert {
        "username": "robot",
        "password": f"{CANARY}-pull",
        "auth": base64.b64encode(f"robot:{CANARY}-pull".encode()).decode(),
    } in world.runtime.logins
    encoded = base64.b64encode(CANARY.encode()).decode()
    for group, plural in (
        ("apps", "deployments"), ("apps", "replicasets"), ("", "pods"), ("", "services"),
        ("", "events"),
    ):  # fmt: skip
        text = str(world.listed(group, plural))
        assert CANARY not in text and encoded not in text
    found = {one["metadata"]["name"]: one for one in world.listed("", "secrets")}
    assert [one.get("immutable") for one in found.values()] == [True, None]
    for one in found.values():
        assert CANARY not in str(one["metadata"]) and encoded not in str(one["metadata"])
    # Whoever deploys may write them, and never read them.
    with world.cluster.http("deployer") as api:
        path = f"/api/v1/namespaces/{world.namespace}/secrets"
        assert {api.get(f"{path}{rest}").status_code for rest in ("", f"/{next(iter(found))}")} == {
            403
        }


def test_a_rollback_brings_back_the_values_that_went_with_the_release(
    world: KubernetesWorld,
) -> None:
    first = world.deployed(1)
    world.context = Context(secret=lambda reference: SecretStr("newer"))
    second = world.deployed(2)
    assert world.token() == "newer"
    release = world.release(2).model_copy(update={"deployment": second.deployment})
    world.driver.restore(release, first)
    assert world.token() == CANARY


# --- before anything is changed -------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "settings", "said"),
    [
        ({"registry": None}, {}, "nodes pull images from a registry"),
        ({"volumes": (Volume(mount="/d", path="/srv"),)}, {}, "cannot be a claim"),
        (
            {"volumes": (Volume(mount="/d", name="d"),), "strategy": "start-first"},
            {},
            "open at once",
        ),
        ({"volumes": (Volume(mount="/d", name="d"),)}, {"replicas": 2}, "single writer"),
        ({}, {"replicas": 0}, "nothing to check"),
        ({}, {"service_account": "robot"}, "correct service_account"),
        ({}, {"memory": "much"}, "quantities must match"),
        ({}, {"kubeconfig": "/nowhere/config"}, "/nowhere/config"),
        ({}, {"context": "other"}, "other"),
    ],
)
def test_what_cannot_work_is_refused(
    world: KubernetesWorld, options: Json, settings: Json, said: str
) -> None:
    world.options |= options
    world.settings |= settings
    with pytest.raises(ConfigurationError) as refusal, world.opened() as provider:
        provider.preflight()
    assert said in str(refusal.value)
    assert world.remains() == []


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"namespace": "nowhere"}, "kubectl create namespace nowhere"),
        ({"storage_class": "fast"}, "to one of: standard"),
    ],
)
def test_who_may_look_at_the_cluster_learns_more(
    stateful: KubernetesWorld, settings: Json, said: str
) -> None:
    stateful.kubeconfig = str(stateful.cluster.kubeconfig("admin"))
    stateful.settings |= settings
    with stateful.opened() as provider, pytest.raises(ConfigurationError, match=said):
        provider.preflight()


def test_pod_security_is_asked_before_anything_is_made(world: KubernetesWorld) -> None:
    labels = {"pod-security.kubernetes.io/enforce": "restricted"}
    change = {"metadata": {"labels": labels}}
    world.admin.patch(f"/api/v1/namespaces/{world.namespace}", json=change, headers=MERGE)
    with world.opened() as provider, pytest.raises(ConfigurationError, match="PodSecurity"):
        provider.preflight()


def test_what_is_anothers_is_left_alone(stateful: KubernetesWorld) -> None:
    stateful.deployed(1)
    other = stateful.instance("r1").model_copy(update={"project": "shop-prod", "name": "x"})
    with stateful.opened(other) as provider, pytest.raises(Conflict, match="shop/prod"):
        provider.preflight()
    # Its names on the cluster are the same.
    twin = stateful.instance("r1").model_copy(update={"project": "Shop"})
    with stateful.opened(twin) as provider:
        for attempt in (provider.preflight, lambda: provider.destroy(data=True)):
            with pytest.raises(Conflict, match="shop/prod"):
                attempt()
    assert stateful.answer() == "r1"


def test_each_missing_permission_is_named(world: KubernetesWorld) -> None:
    world.forbid("deployments", "pods/log")
    with world.opened() as provider:
        assert provider.lacking() == [
            "get, list, create, patch, delete deployments of apps", "get pods/log",
        ]  # fmt: skip
    with world.opened() as provider, pytest.raises(PermissionDenied) as refusal:
        provider.preflight()
    assert "get, list, create, patch, delete deployments of apps" in refusal.value.message
    assert "get pods/log" in refusal.value.message
    assert "services" not in refusal.value.message
    with world.opened() as provider, pytest.raises(PermissionDenied) as refusal:
        provider.start(world.release(1), None)
    assert "allow deployer to list deployments of apps in the namespace" in refusal.value.hint
    assert refusal.value.request_id


def test_the_documented_role_is_what_the_code_asks_for(world: KubernetesWorld) -> None:
    world.settings["host"] = "shop.test"
    world.options |= {
        "volumes": (Volume(mount="/data", name="helix-data"),),
        "health_check": HealthCheck(kind="command", command=("true",)),
    }
    instance = world.instance("r1")
    settings = KubernetesSettings.model_validate(instance.target.settings)
    rules = documented_role()[0]["rules"]
    documented = {
        (rule["apiGroups"][0], resource, verb)
        for rule in rules
        for resource in rule["resources"]
        for verb in rule["verbs"]
    }
    better = {("", "events", "list"), ("", "pods/exec", "get"), ("", "pods/portforward", "get")}
    assert documented == {*needed(instance, settings), FORWARD, *better}
    with world.opened(instance) as provider:
        assert provider.lacking() == []


# --- errors ---------------------------------------------------------------------------------------


def test_an_old_token_and_an_unknown_authority_are_told_apart(world: KubernetesWorld) -> None:
    old = world.cluster.kubeconfig("deployer", token="expired")
    world.kubeconfig = str(old)
    with world.opened() as provider, pytest.raises(AuthExpired, match="renew the token"):
        provider.identity()
    other = make_certificates(world.cluster.folder / world.namespace)
    old.write_text(old.read_text().replace(str(world.cluster.certificates.ca), str(other.ca)))
    with world.opened() as provider, pytest.raises(ConfigurationError, match="certificate-auth"):
        provider.identity()


@pytest.mark.parametrize(
    ("status", "lost", "expected"),
    [
        (401, False, AuthExpired),
        (409, False, Busy),
        (429, False, Throttled),
        (500, False, Transient),
        (503, False, Transient),
        (504, True, Ambiguous),
        (0, True, Ambiguous),
    ],
)
def test_a_failed_call_is_what_its_class_says(
    world: KubernetesWorld, status: int, lost: bool, expected: type[HelixError]
) -> None:
    with world.through_faults() as server:
        server.next(status, "PATCH", "/deployments/", lost=lost, headers={"Retry-After": "7"})
        release = world.release(1)
        with world.opened(release.instance) as provider, pytest.raises(HelixError) as failure:
            provider.start(release, None)
        assert type(failure.value) is expected
        assert failure.value.request_id == ("audit-7" if status else "")
        assert failure.value.retry_after == (7 if status else None)
        assert len(world.listed("apps", "deployments")) == int(lost)
        assert world.driver.deploy(release).error is None
        assert len(world.listed("apps", "deployments")) == 1


def test_nobody_answers(world: KubernetesWorld) -> None:
    with world.through_faults():
        pass
    with world.opened() as provider, pytest.raises(Transient):
        provider.current()


def test_every_reason_has_its_class() -> None:
    for reason, cls in REASONS.items():
        assert classify(500, reason)[0] is cls
    for status, cls in STATUSES.items():
        assert classify(status)[0] is cls
    assert classify(502)[0] is Transient and classify(418)[0] is ConfigurationError
    for message, expected in {
        'pods "x" is forbidden: exceeded quota: q, requested: pods=1': QuotaExceeded,
        "pods is forbidden: failed quota: q: must specify limits.cpu": ConfigurationError,
        "unable to create new content in namespace x because it is being terminated": Busy,
        'failed calling webhook "w": connection refused': Transient,
        "etcdserver: request timed out": Ambiguous,
        "Operation cannot be fulfilled: the object has been modified": Busy,
    }.items():
        assert classify(403, "Forbidden", message)[0] is expected
