"""The `aws` kind against moto's server and an ECS whose services roll out."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, cast

import httpx
import pytest
from botocore.exceptions import WaiterError
from pydantic import JsonValue, SecretStr
from temporalio.testing import ActivityEnvironment

from activities.deploy import DeployActivities
from activities.services import Services
from helix_deploy.testing import Driver, Killed, ProviderSuite
from model.artifact import Artifact, BuildSettings, Image
from model.errors import (
    AuthExpired,
    Busy,
    ConfigurationError,
    Conflict,
    HealthCheckFailed,
    HelixError,
    NotFound,
    NothingToRestore,
    PermissionDenied,
    QuotaExceeded,
    Throttled,
    Transient,
)
from model.instance import HealthCheck, Instance, ObjectStorage, RegistryTarget, Target, Volume
from model.names import LABEL_DEPLOYMENT
from model.platform import Phase, Release, Revision
from model.steps import DestroyInput, ReleaseInput, RestoreInput
from project.store import Store
from providers import aws as aws_module
from providers import aws_logs
from providers.aws import AwsProvider
from providers.aws_api import AwsApi
from providers.base import Context, PullCredentials
from tests.contract.failing_suite import FailingSuite, FailingWorld
from tests.fakes.aws import REGION, AwsServer, Fault, aws_server
from tests.services.faults import faulty

SERVICE = "helix-shop-prod"
GOOD, NEXT, BAD = (f"sha256:{digit * 64}" for digit in "abd")
CANARY = "canary-4711"


@pytest.fixture(scope="module")
def answers() -> Iterator[int]:
    """The port of what the containers would serve."""

    class Page(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None: ...

    server = ThreadingHTTPServer(("127.0.0.1", 0), Page)
    threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
    yield server.server_port
    server.shutdown()
    server.server_close()


@dataclass
class Cloud:
    """AWS with what an administrator makes: cluster, network, roles and a file system."""

    aws: AwsServer
    port: int
    subnet: str
    group: str
    file_system: str

    def instance(self, volume: bool = False, **changes: Any) -> Instance:
        settings: dict[str, JsonValue] = {
            "region": REGION,
            "cluster": "main",
            "subnets": [self.subnet],
            "security_groups": [self.group],
            "execution_role": "arn:aws:iam::123456789012:role/execution",
            "endpoint_url": self.aws.url,
            **({"file_system": self.file_system} if volume else {}),
            **changes.pop("settings", {}),
        }
        return Instance(
            project="shop",
            name="prod",
            target=Target(kind="aws", settings=settings),
            port=self.port,
            volumes=(Volume(mount="/var/lib/helix", name="data"),) if volume else (),
            **{
                "registry": RegistryTarget(kind="ecr"),
                "health_check": HealthCheck(successes=1, interval=0.01),
                **changes,
            },
        )

    def driver(self) -> Driver:
        return Driver(lambda release: self.provider((release or self.release()).instance))

    def provider(self, instance: Instance | None = None, **context: Any) -> AwsProvider:
        secret = context.pop("secret", lambda reference: SecretStr(CANARY))
        return AwsProvider(instance or self.instance(), Context(secret=secret, **context))

    def release(
        self, number: int = 1, digest: str = GOOD, instance: Instance | None = None
    ) -> Release:
        return Release(
            number=number,
            deployment=f"0000-{number}",
            instance=instance or self.instance(),
            artifact=Artifact(image=Image(repository="registry.test/shop", digest=digest)),
        )

    def service(self) -> dict[str, Any]:
        described = self.aws.client("ecs").describe_services(
            cluster="main", services=[SERVICE], include=["TAGS"]
        )
        found: dict[str, Any] = described["services"][0]
        return found

    def image(self) -> str:
        """What the service runs."""
        return str(self.definition(self.service()["taskDefinition"])["image"])

    def definition(self, arn: str) -> dict[str, Any]:
        described = self.aws.client("ecs").describe_task_definition(taskDefinition=arn)
        found: dict[str, Any] = described["taskDefinition"]["containerDefinitions"][0]
        return found

    def definitions(self) -> list[str]:
        found = self.aws.client("ecs").list_task_definitions(familyPrefix=SERVICE)
        return list(found["taskDefinitionArns"])

    def secrets(self) -> list[str]:
        listed = self.aws.client("secretsmanager").list_secrets()["SecretList"]
        return [one["Name"] for one in listed]

    def log_groups(self) -> list[str]:
        groups = self.aws.client("logs").describe_log_groups()["logGroups"]
        return [one["logGroupName"] for one in groups]

    def balancer(self) -> tuple[str, str]:
        """A load balancer that listens: its name, and the ARN of its target group."""
        balancing, ec2 = self.aws.client("elbv2"), self.aws.client("ec2")
        network = ec2.describe_subnets(SubnetIds=[self.subnet])["Subnets"][0]["VpcId"]
        zone = f"{REGION}b"
        other = ec2.create_subnet(VpcId=network, CidrBlock="10.0.2.0/24", AvailabilityZone=zone)
        subnets = [self.subnet, other["Subnet"]["SubnetId"]]
        balancer = balancing.create_load_balancer(Name="lb", Subnets=subnets)["LoadBalancers"][0]
        group = balancing.create_target_group(
            Name="tg", Protocol="HTTP", Port=80, VpcId=network, TargetType="ip"
        )["TargetGroups"][0]["TargetGroupArn"]
        balancing.create_listener(
            LoadBalancerArn=balancer["LoadBalancerArn"],
            Protocol="HTTP",
            Port=8081,
            DefaultActions=[{"Type": "forward", "TargetGroupArn": group}],
        )
        return str(balancer["DNSName"]), str(group)

    def access_points(self) -> list[dict[str, Any]]:
        return list(self.aws.client("efs").describe_access_points()["AccessPoints"])


@pytest.fixture
def cloud(answers: int, monkeypatch: pytest.MonkeyPatch) -> Iterator[Cloud]:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "test")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "test")
    monkeypatch.setattr(aws_module, "DRAIN_PAUSE", 0.01)
    monkeypatch.setattr(aws_logs, "PAUSE", 0.01)
    with aws_server() as aws:
        ec2 = aws.client("ec2")
        network = ec2.create_vpc(CidrBlock="10.0.0.0/16")["Vpc"]["VpcId"]
        subnet = ec2.create_subnet(VpcId=network, CidrBlock="10.0.1.0/24")["Subnet"]["SubnetId"]
        group = ec2.create_security_group(GroupName="g", Description="g", VpcId=network)["GroupId"]
        aws.client("ecs").create_cluster(clusterName="main")
        file_system = aws.client("efs").create_file_system(CreationToken="t")["FileSystemId"]
        aws.calls.clear()
        yield Cloud(aws, answers, subnet, group, file_system)


# --- what every provider must do ------------------------------------------------------------------


class AwsWorld(FailingWorld):
    """ECS, its containers served on loopback."""

    patience = 1.0
    secrets = {"env:TOKEN": CANARY}

    def __init__(self, cloud: Cloud, monkeypatch: pytest.MonkeyPatch) -> None:
        self.cloud = cloud
        self.monkeypatch = monkeypatch
        self.endpoint = cloud.aws.url

    def instance(self, name: str, behaviour: str = "serve") -> Instance:
        return self.cloud.instance(
            settings={"endpoint_url": self.endpoint},
            build=BuildSettings(kind="image", image="registry.test/shop"),
            registry=None,
            env={"NAME": name, "BEHAVIOUR": behaviour},
            secrets={"TOKEN": "env:TOKEN"},
            health_check=HealthCheck(successes=1, interval=0.01, timeout=0.5),
        )

    def artifact(self, tag: str = "1") -> Artifact:
        digest = f"sha256:{tag * 64}"
        return Artifact(image=Image(repository="registry.test/shop", digest=digest))

    def provider(self, instance: Instance) -> AwsProvider:
        return self.cloud.provider(instance)

    def answer(self) -> str:
        for task in self._running():
            address = task["attachments"][0]["details"][0]["value"]
            return httpx.get(f"http://{address}:{self.cloud.port}").text
        return ""

    def running(self) -> list[str]:
        arns = [task["taskDefinitionArn"] for task in self._running()]
        return [self.cloud.definition(arn)["dockerLabels"][LABEL_DEPLOYMENT] for arn in arns]

    def _running(self) -> list[dict[str, Any]]:
        ecs = self.cloud.aws.client("ecs")
        with suppress(ecs.exceptions.ServiceNotFoundException):
            arns = ecs.list_tasks(cluster="main", serviceName=SERVICE)["taskArns"]
            tasks = ecs.describe_tasks(cluster="main", tasks=arns)["tasks"] if arns else []
            return [one for one in tasks if one["lastStatus"] == "RUNNING"]
        return []

    def remains(self) -> list[str]:
        cloud = self.cloud
        found = cloud.aws.client("ecs").describe_services(cluster="main", services=[SERVICE])
        active = [one["serviceArn"] for one in found["services"] if one["status"] == "ACTIVE"]
        return [*active, *cloud.definitions(), *cloud.secrets(), *cloud.log_groups()]

    @contextmanager
    def kill_after(self, writes: int) -> Iterator[None]:
        left = writes
        call = AwsApi.__call__

        def counted(api: AwsApi, service: str, operation: str, /, **arguments: Any) -> Any:
            nonlocal left
            answer = call(api, service, operation, **arguments)
            if not operation.startswith(("describe_", "list_", "get_", "filter_")):
                left -= 1
                if left == 0:
                    raise Killed
            return answer

        with self.monkeypatch.context() as patch:
            patch.setattr(AwsApi, "__call__", counted)
            yield

    @contextmanager
    def failing(self, rate: float, seed: int) -> Iterator[list[str]]:
        with faulty(self.cloud.aws.url, rate, seed) as line:
            self.endpoint = line.url
            yield line.injected
            self.endpoint = self.cloud.aws.url

    def remove(self, revision: Revision) -> None:
        self.cloud.aws.client("ecs").deregister_task_definition(taskDefinition=revision.id)


class TestAws(ProviderSuite, FailingSuite):
    @pytest.fixture
    def world(self, cloud: Cloud, monkeypatch: pytest.MonkeyPatch) -> AwsWorld:
        monkeypatch.setattr(aws_module, "PROMOTE_PAUSE", 0.01)
        return AwsWorld(cloud, monkeypatch)


# --- a release's life -----------------------------------------------------------------------------


def test_first_release_makes_a_service_and_the_second_changes_it(cloud: Cloud) -> None:
    driver = cloud.driver()
    first = driver.deploy(cloud.release(1))
    assert first.error is None and first.previous is None and first.revision is not None
    assert (first.revision.release, first.revision.deployment) == (1, "0000-1")
    assert cloud.image() == f"registry.test/shop@{GOOD}"
    second = driver.deploy(cloud.release(2, NEXT))
    assert second.error is None and second.previous == first.revision
    assert cloud.image() == f"registry.test/shop@{NEXT}"
    assert cloud.aws.calls.count("CreateService") == 1
    breaker = cloud.service()["deploymentConfiguration"]["deploymentCircuitBreaker"]
    assert breaker == {"enable": True, "rollback": True}


def test_unchanged_release_restarts_nothing(cloud: Cloud) -> None:
    driver = cloud.driver()
    first = driver.deploy(cloud.release(1))
    cloud.aws.calls.clear()
    again = driver.deploy(cloud.release(2))
    assert again.error is None and again.revision == first.revision
    assert not {"UpdateService", "RegisterTaskDefinition", "CreateService"} & {*cloud.aws.calls}


def test_same_image_with_another_environment_is_another_release(cloud: Cloud) -> None:
    driver = cloud.driver()
    driver.deploy(cloud.release(1))
    result = driver.deploy(cloud.release(2, instance=cloud.instance(env={"LEVEL": "debug"})))
    assert result.revision is not None and result.revision.release == 2


@pytest.mark.parametrize("fate", ["exits", "cannot-pull", "hangs"])
def test_failed_release_leaves_the_previous_one_as_it_was(cloud: Cloud, fate: Any) -> None:
    driver = replace(cloud.driver(), patience=1.0)
    first = driver.deploy(cloud.release(1))
    before = cloud.service()
    cloud.aws.ecs.fates[BAD] = fate
    result = driver.deploy(cloud.release(2, BAD))
    assert isinstance(result.error, HealthCheckFailed)
    assert result.restored == first.revision
    assert cloud.image() == f"registry.test/shop@{GOOD}"
    after = cloud.service()
    for key in ("deploymentConfiguration", "networkConfiguration", "desiredCount", "tags"):
        assert after[key] == before[key]
    assert len(cloud.definitions()) == 1
    assert cloud.driver().call(None, lambda one: one.current()) == first.revision


@pytest.mark.parametrize("fate", ["exits", "cannot-pull", "hangs"])
def test_failed_first_release_leaves_nothing(cloud: Cloud, fate: Any) -> None:
    cloud.aws.ecs.fates[BAD] = fate
    instance = cloud.instance(secrets={"TOKEN": "env:TOKEN"})
    driver = replace(cloud.driver(), patience=0.5)
    result = driver.deploy(cloud.release(1, BAD, instance))
    assert isinstance(result.error, HealthCheckFailed) and result.restored is None
    assert cloud.service()["status"] in ("DRAINING", "INACTIVE")
    assert (cloud.definitions(), cloud.secrets(), cloud.log_groups()) == ([], [], [])


def test_failure_carries_the_reason_and_the_last_lines(cloud: Cloud) -> None:
    cloud.aws.ecs.fates[BAD] = "exits"
    result = cloud.driver().deploy(cloud.release(1, BAD))
    assert result.error is not None
    assert "circuit breaker" in result.error.message
    assert "app exited with code 3" in result.error.message
    assert "it is broken" in result.error.evidence


def test_release_after_a_failed_first_one_succeeds(cloud: Cloud) -> None:
    cloud.aws.ecs.fates[BAD] = "exits"
    driver = cloud.driver()
    driver.deploy(cloud.release(1, BAD))
    # The name is taken until ECS has drained the failed service.
    assert driver.deploy(cloud.release(2)).error is None


def test_current_names_the_previous_release_until_promote(cloud: Cloud) -> None:
    driver = cloud.driver()
    provider = cloud.provider()
    assert provider.current() is None
    handle = provider.start(cloud.release(1), None)
    assert provider.current() is None
    driver.wait(cloud.release(1), handle)
    first = provider.promote(handle)
    assert provider.current() == first
    handle = provider.start(cloud.release(2, NEXT), first)
    driver.wait(cloud.release(2, NEXT), handle)
    assert provider.current() == first
    assert provider.promote(handle) == provider.current() != first


def test_restore_after_promote_brings_the_previous_release_back(cloud: Cloud) -> None:
    driver = cloud.driver()
    first = driver.deploy(cloud.release(1)).revision
    second = cloud.release(2, NEXT)
    driver.deploy(second)
    assert driver.restore(second, first) == first
    assert cloud.image() == f"registry.test/shop@{GOOD}"
    assert driver.restore(second, first) == first  # again


def test_restore_brings_the_services_settings_back(cloud: Cloud) -> None:
    driver = replace(cloud.driver(), patience=0.5)
    first = driver.deploy(cloud.release(1)).revision
    cloud.aws.ecs.fates[BAD] = "hangs"
    wanted = cloud.instance(settings={"public_ip": True, "replicas": 1}, strategy="stop-first")
    assert driver.deploy(cloud.release(2, BAD, wanted)).restored == first
    service = cloud.service()
    network = service["networkConfiguration"]["awsvpcConfiguration"]
    assert network["assignPublicIp"] == "DISABLED"
    assert service["deploymentConfiguration"]["maximumPercent"] == 200


def test_restore_of_a_deployment_that_never_started_changes_nothing(cloud: Cloud) -> None:
    driver = cloud.driver()
    first = driver.deploy(cloud.release(1)).revision
    cloud.aws.calls.clear()
    assert driver.restore(cloud.release(2, NEXT), first) == first
    assert "UpdateService" not in cloud.aws.calls


def test_nothing_to_restore_if_the_task_definition_is_gone(cloud: Cloud) -> None:
    provider = cloud.provider()
    gone = Revision(id=f"arn:aws:ecs:{REGION}:123456789012:task-definition/{SERVICE}:7")
    with pytest.raises(NothingToRestore):
        provider.restore("0000-9", gone)


def test_restore_makes_a_service_again_that_somebody_deleted(cloud: Cloud) -> None:
    driver = cloud.driver()
    first = driver.deploy(cloud.release(1)).revision
    cloud.aws.client("ecs").delete_service(cluster="main", service=SERVICE, force=True)
    assert driver.restore(cloud.release(2, NEXT), first) == first
    assert cloud.image() == f"registry.test/shop@{GOOD}"


def test_older_release_is_refused(cloud: Cloud) -> None:
    cloud.driver().deploy(cloud.release(5))
    with pytest.raises(Conflict, match="release 5 is there already"):
        cloud.provider().start(cloud.release(4, NEXT), None)


def test_late_restore_does_not_undo_a_later_deployment(cloud: Cloud) -> None:
    driver = cloud.driver()
    first = driver.deploy(cloud.release(1)).revision
    driver.deploy(cloud.release(3, NEXT))
    with pytest.raises(Conflict, match="has taken over"):
        cloud.provider().restore("0000-2", first)
    with pytest.raises(Conflict, match="later deployment"):
        cloud.provider().restore("0000-2", None)
    assert cloud.image() == f"registry.test/shop@{NEXT}"


def test_service_of_somebody_else_is_taken_over_and_given_back(cloud: Cloud) -> None:
    ecs = cloud.aws.client("ecs")
    theirs = ecs.register_task_definition(
        family="theirs", containerDefinitions=[{"name": "web", "image": "x", "memory": 64}]
    )["taskDefinition"]["taskDefinitionArn"]
    ecs.create_service(cluster="main", serviceName=SERVICE, taskDefinition=theirs, desiredCount=2)
    driver = cloud.driver()
    before = driver.call(None, lambda one: one.current())
    assert before is not None and (before.id, before.release) == (theirs, 0)
    cloud.aws.ecs.fates[BAD] = "exits"
    result = driver.deploy(cloud.release(1, BAD))
    assert result.restored is not None and result.restored.id == theirs
    assert cloud.service()["taskDefinition"] == theirs
    assert cloud.service()["desiredCount"] == 2
    assert driver.deploy(cloud.release(2)).error is None


# --- what ECS gets asked, and what it says --------------------------------------------------------


def test_a_stable_service_is_not_taken_for_success(cloud: Cloud) -> None:
    driver = cloud.driver()
    driver.deploy(cloud.release(1))
    cloud.aws.ecs.fates[BAD] = "exits"
    provider = cloud.provider()
    handle = provider.start(cloud.release(2, BAD), None)
    ecs = cloud.aws.client("ecs")
    for _ in range(500):
        newest = ecs.list_service_deployments(cluster="main", service=SERVICE)
        if newest["serviceDeployments"][0]["status"] == "ROLLBACK_SUCCESSFUL":
            break
    # ECS's own waiter is content: the previous release runs again.
    waiter = ecs.get_waiter("services_stable")
    waiter.wait(cluster="main", services=[SERVICE], WaiterConfig={"Delay": 0.01, "MaxAttempts": 3})
    rollout = provider.poll(handle)
    assert rollout.phase is Phase.FAILED and "circuit breaker" in rollout.detail
    with pytest.raises(HealthCheckFailed):
        provider.promote(handle)


def test_the_waiter_of_the_trap_can_fail(cloud: Cloud) -> None:
    cloud.aws.ecs.fates[BAD] = "hangs"
    cloud.provider().start(cloud.release(1, BAD), None)
    waiter = cloud.aws.client("ecs").get_waiter("services_stable")
    with pytest.raises(WaiterError):
        waiter.wait(
            cluster="main", services=[SERVICE], WaiterConfig={"Delay": 0.01, "MaxAttempts": 3}
        )


def test_service_deployments_that_are_listed_late_are_waited_for(cloud: Cloud) -> None:
    cloud.aws.ecs.listing_delay = 0.3
    driver = cloud.driver()
    first = driver.deploy(cloud.release(1))
    assert first.error is None
    cloud.aws.ecs.fates[BAD] = "exits"
    result = driver.deploy(cloud.release(2, BAD))
    assert isinstance(result.error, HealthCheckFailed) and result.restored == first.revision


def test_hopeless_reason_is_not_waited_for(cloud: Cloud) -> None:
    cloud.aws.ecs.fates[BAD] = "cannot-pull"
    cloud.aws.ecs.start_seconds = 0.2
    provider = cloud.provider()
    handle = provider.start(cloud.release(1, BAD), None)
    while (rollout := provider.poll(handle)).phase is Phase.STARTING:
        pass
    assert "CannotPullContainerError" in rollout.detail
    newest = cloud.aws.client("ecs").list_service_deployments(cluster="main", service=SERVICE)
    assert newest["serviceDeployments"][0]["status"] == "IN_PROGRESS"


@pytest.mark.parametrize(
    "operation",
    [
        "CreateLogGroup",
        "CreateSecret",
        "POST /2015-02-01/access-points",
        "RegisterTaskDefinition",
        "CreateService",
    ],
)
def test_creation_whose_answer_was_lost_is_found_again(cloud: Cloud, operation: str) -> None:
    cloud.aws.faults.append(Fault(operation, happens=True))
    instance = cloud.instance(volume=True, secrets={"TOKEN": "env:TOKEN"})
    assert cloud.driver().deploy(cloud.release(1, instance=instance)).error is None
    assert not cloud.aws.faults
    assert len(cloud.definitions()) == len(cloud.secrets()) == len(cloud.access_points()) == 1


def test_update_whose_answer_was_lost_happens_once(cloud: Cloud) -> None:
    driver = cloud.driver()
    driver.deploy(cloud.release(1))
    cloud.aws.faults.append(Fault("UpdateService", happens=True))
    assert driver.deploy(cloud.release(2, NEXT)).error is None
    assert cloud.aws.calls.count("UpdateService") == 1


def test_two_callers_at_once_make_one_release(cloud: Cloud) -> None:
    instance = cloud.instance(volume=True, secrets={"TOKEN": "env:TOKEN"})
    release = cloud.release(1, instance=instance)
    driver = cloud.driver()
    handles: list[str] = []

    def start() -> None:
        handles.append(driver.call(release, lambda one: one.start(release, None)))

    threads = [threading.Thread(target=start) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(handles) == 3 and len({*handles}) == 1
    driver.wait(release, handles[0])
    running = cloud.aws.client("ecs").list_tasks(cluster="main", serviceName=SERVICE)["taskArns"]
    assert len(running) == 1 and len(cloud.access_points()) == 1


# --- volumes and secrets --------------------------------------------------------------------------


def test_volume_is_open_once_and_outlives_everything(cloud: Cloud) -> None:
    instance = cloud.instance(volume=True)
    driver = cloud.driver()
    driver.deploy(cloud.release(1, instance=instance))
    points = cloud.access_points()
    assert driver.deploy(cloud.release(2, NEXT, instance)).error is None
    cloud.aws.ecs.fates[BAD] = "exits"
    assert driver.deploy(cloud.release(3, BAD, instance)).restored is not None
    assert cloud.aws.ecs.overlaps == []
    configuration = cloud.service()["deploymentConfiguration"]
    assert configuration["minimumHealthyPercent"] == 0
    assert configuration["maximumPercent"] == 100
    assert cloud.service()["availabilityZoneRebalancing"] == "DISABLED"
    cloud.provider(instance).destroy(data=False)
    assert cloud.access_points() == points
    assert driver.deploy(cloud.release(4, instance=instance)).error is None
    assert cloud.access_points() == points
    described = cloud.aws.client("ecs").describe_task_definition(taskDefinition=SERVICE)
    efs = described["taskDefinition"]["volumes"][0]["efsVolumeConfiguration"]
    assert efs["authorizationConfig"]["accessPointId"] == points[0]["AccessPointId"]
    assert efs["transitEncryption"] == "ENABLED"


def test_without_a_volume_the_new_task_runs_before_the_old_one_ends(cloud: Cloud) -> None:
    driver = cloud.driver()
    driver.deploy(cloud.release(1))
    driver.deploy(cloud.release(2, NEXT))
    assert len(cloud.aws.ecs.overlaps) == 1


def test_failed_first_release_keeps_the_volume(cloud: Cloud) -> None:
    cloud.aws.ecs.fates[BAD] = "exits"
    cloud.driver().deploy(cloud.release(1, BAD, cloud.instance(volume=True)))
    assert len(cloud.access_points()) == 1


def test_secrets_are_seen_by_ecs_alone(cloud: Cloud) -> None:
    instance = cloud.instance(secrets={"TOKEN": "env:TOKEN"})
    provider = cloud.provider(
        instance, pull=lambda: PullCredentials("registry.test", "robot", SecretStr(CANARY))
    )
    handle = provider.start(cloud.release(1, instance=instance), None)
    container = cloud.definition(handle)
    assert CANARY not in json.dumps(container) and CANARY not in handle
    entry = container["secrets"][0]
    arn = entry["valueFrom"].removesuffix(":TOKEN::")
    manager = cloud.aws.client("secretsmanager")
    assert json.loads(manager.get_secret_value(SecretId=arn)["SecretString"]) == {"TOKEN": CANARY}
    pull = container["repositoryCredentials"]["credentialsParameter"]
    stored = json.loads(manager.get_secret_value(SecretId=pull)["SecretString"])
    assert stored == {"username": "robot", "password": CANARY}
    assert len(handle) < 2048


def test_rollback_brings_the_secret_values_of_its_release_back(cloud: Cloud) -> None:
    instance = cloud.instance(secrets={"TOKEN": "env:TOKEN"})
    values = {"0000-1": "old", "0000-2": "new"}
    driver = Driver(
        lambda release: cloud.provider(
            instance, secret=lambda _: SecretStr(values[release.deployment if release else ""])
        )
    )
    first = driver.deploy(cloud.release(1, instance=instance)).revision
    second = cloud.release(2, NEXT, instance)
    driver.deploy(second)
    driver.restore(second, first)
    entry = cloud.definition(cloud.service()["taskDefinition"])["secrets"][0]["valueFrom"]
    stored = cloud.aws.client("secretsmanager").get_secret_value(SecretId=entry[: -len(":TOKEN::")])
    assert json.loads(stored["SecretString"]) == {"TOKEN": "old"}
    assert len(cloud.secrets()) == 1


# --- refusals -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"settings": {"memory": 512, "cpu": 1024}}, "write a memory from 2048 to 8192"),
        ({"settings": {"cpu": 300}}, "cpu is one of 256"),
        ({"settings": {"execution_role": None}}, "execution_role"),
        ({"settings": {"subnets": []}}, "subnets"),
        ({"settings": {"cluster": "nowhere"}}, "aws ecs create-cluster --cluster-name nowhere"),
        ({"volume": True, "settings": {"file_system": None}}, "object_storage"),
        ({"volume": True, "settings": {"replicas": 2}}, "single writer"),
        ({"build": BuildSettings(platform="linux/riscv64")}, "linux/amd64 or linux/arm64"),
    ],
)
def test_preflight_refuses_with_what_to_do(cloud: Cloud, changes: Any, said: str) -> None:
    with pytest.raises((ConfigurationError, NotFound)) as caught:
        cloud.provider(cloud.instance(**changes)).preflight()
    assert said in str(caught.value)


def test_preflight_refuses_a_folder_as_volume(cloud: Cloud) -> None:
    instance = cloud.instance(volume=True).model_copy(
        update={"volumes": (Volume(mount="/data", path="/srv/data"),)}
    )
    with pytest.raises(ConfigurationError, match="no machine whose folder"):
        cloud.provider(instance).preflight()


def test_preflight_refuses_an_image_without_a_registry(cloud: Cloud) -> None:
    instance = cloud.instance().model_copy(update={"registry": None})
    with pytest.raises(ConfigurationError, match="ECS pulls images from a registry"):
        cloud.provider(instance).preflight()


def test_preflight_goes_on_where_it_may_not_look(cloud: Cloud) -> None:
    cloud.aws.faults.append(Fault("DescribeSubnets", "UnauthorizedOperation", 403))
    provider = cloud.provider()
    provider.preflight()
    assert any("ec2:DescribeSubnets" in note for note in provider.context.notes)


def test_image_that_is_in_no_registry_is_refused_before_anything_is_made(cloud: Cloud) -> None:
    release = cloud.release(1)
    local = release.model_copy(
        update={"artifact": Artifact(image=Image(repository="shop", id="sha256:1"))}
    )
    with pytest.raises(ConfigurationError, match="from a registry"):
        cloud.provider().start(local, None)
    assert cloud.log_groups() == []


# --- errors ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("code", "status", "expected"),
    [
        ("ThrottlingException", 400, Throttled),
        ("ServerException", 500, Transient),
        ("ExpiredTokenException", 400, AuthExpired),
        ("AccessDeniedException", 400, PermissionDenied),
        ("ClusterNotFoundException", 400, NotFound),
        ("LimitExceededException", 400, QuotaExceeded),
        ("UpdateInProgressException", 400, Busy),
        ("UnsupportedFeatureException", 400, ConfigurationError),
    ],
)
def test_error_is_translated_and_names_the_permission(
    cloud: Cloud, code: str, status: int, expected: type[HelixError]
) -> None:
    cloud.aws.faults.append(Fault("RegisterTaskDefinition", code, status))
    with pytest.raises(HelixError) as caught:
        cloud.provider().start(cloud.release(), None)
    assert type(caught.value) is expected
    assert "ecs:RegisterTaskDefinition" in str(caught.value)
    assert caught.value.request_id == "request-1"


def test_missing_credentials_say_how_to_log_in(
    cloud: Cloud, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_CONFIG_FILE", "/nowhere")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", "/nowhere")
    with pytest.raises(PermissionDenied, match="aws configure"):
        cloud.provider().identity()


def test_unknown_profile_is_a_configuration_error(cloud: Cloud) -> None:
    with pytest.raises(ConfigurationError, match="nobody"):
        cloud.provider(cloud.instance(settings={"profile": "nobody"})).identity()


def test_cloud_that_does_not_answer_is_transient(cloud: Cloud) -> None:
    nowhere = cloud.instance(settings={"endpoint_url": "http://127.0.0.1:9"})
    with pytest.raises(Transient):
        cloud.provider(nowhere).identity()


def test_identity_is_the_caller(cloud: Cloud) -> None:
    assert cloud.provider().identity().who.startswith("arn:aws:")


@pytest.mark.parametrize("part", [0.01, 0.1])
def test_every_deployment_ends_well_while_calls_fail(cloud: Cloud, part: float) -> None:
    cloud.aws.flaky = part
    cloud.aws.ecs.fates[BAD] = "exits"
    driver = cloud.driver()
    instance = cloud.instance(volume=True, secrets={"TOKEN": "env:TOKEN"})
    good = None
    for number, digest in enumerate((GOOD, NEXT, BAD, GOOD, BAD, NEXT), 1):
        result = driver.deploy(cloud.release(number, digest, instance))
        if digest == BAD:
            assert isinstance(result.error, HealthCheckFailed)
            assert result.restored == good
        else:
            assert result.error is None
            good = result.revision
    assert cloud.aws.ecs.overlaps == []
    assert len(cloud.access_points()) == 1


# --- what is left for people ----------------------------------------------------------------------


def test_logs_are_those_of_the_current_release(cloud: Cloud) -> None:
    driver = cloud.driver()
    driver.deploy(cloud.release(1))
    driver.deploy(cloud.release(2, NEXT))
    provider = cloud.provider()
    assert list(provider.logs()) == ["listening"]
    assert list(provider.logs(tail=0)) == []
    assert next(provider.logs(follow=True)) == "listening"


def test_logs_of_nothing(cloud: Cloud) -> None:
    with pytest.raises(NotFound, match="helix push prod"):
        list(cloud.provider().logs())


def test_prune_keeps_what_a_rollback_needs(cloud: Cloud) -> None:
    driver = cloud.driver()
    instance = cloud.instance(secrets={"TOKEN": "env:TOKEN"})
    made = [
        driver.deploy(cloud.release(number, digest, instance)).revision
        for number, digest in enumerate((GOOD, NEXT, GOOD, NEXT), 1)
    ]
    kept = [one for one in made[2:] if one]
    for _ in range(2):
        cloud.provider(instance).prune(kept)
        assert {*cloud.definitions()} == {one.id for one in kept}
        assert len(cloud.secrets()) == 2


def test_destroy_leaves_nothing_but_the_data(cloud: Cloud) -> None:
    instance = cloud.instance(volume=True, secrets={"TOKEN": "env:TOKEN"})
    cloud.driver().deploy(cloud.release(1, instance=instance))
    for _ in range(2):
        cloud.provider(instance).destroy(data=False)
        assert cloud.service()["status"] == "INACTIVE"
        assert (cloud.definitions(), cloud.secrets(), cloud.log_groups()) == ([], [], [])
    assert len(cloud.access_points()) == 1


def test_destroy_with_data_says_which_files_only_a_person_can_remove(cloud: Cloud) -> None:
    instance = cloud.instance(volume=True)
    cloud.driver().deploy(cloud.release(1, instance=instance))
    with pytest.raises(ConfigurationError, match="/helix-shop-prod/data"):
        cloud.provider(instance).destroy(data=True)
    assert cloud.access_points() == []
    cloud.provider(instance).destroy(data=True)


def test_load_balancer_is_the_address(cloud: Cloud) -> None:
    name, group = cloud.balancer()
    instance = cloud.instance(
        settings={"target_group": group}, health_check=HealthCheck(kind="none")
    )
    assert cloud.driver().deploy(cloud.release(1, instance=instance)).error is None
    provider = cloud.provider(instance)
    assert provider.public_url() == f"http://{name}:8081"
    assert cloud.service()["loadBalancers"][0]["targetGroupArn"] == group


def test_command_is_run_by_ecs_itself(cloud: Cloud) -> None:
    check = HealthCheck(kind="command", command=("helix", "ping"), successes=1)
    instance = cloud.instance(health_check=check)
    result = cloud.driver().deploy(cloud.release(1, instance=instance))
    assert result.error is None and result.revision is not None
    container = cloud.definition(result.revision.id)
    assert container["healthCheck"]["command"] == ["CMD", "helix", "ping"]
    assert container["healthCheck"]["interval"] == 5


# --- object storage -------------------------------------------------------------------------------


def in_a_bucket(cloud: Cloud, **settings: Any) -> Instance:
    """An instance that keeps its data in a bucket."""
    secrets = {"AWS_ACCESS_KEY_ID": "env:KEY", "AWS_SECRET_ACCESS_KEY": "env:SECRET"}
    return cloud.instance(
        object_storage=ObjectStorage(bucket="acme-data", region=REGION),
        secrets=secrets,
        settings=settings,
    )


def test_a_database_in_a_bucket_has_one_writer(cloud: Cloud) -> None:
    driver = cloud.driver()
    for number, digest in enumerate((GOOD, NEXT), 1):
        assert driver.deploy(cloud.release(number, digest, in_a_bucket(cloud))).error is None
    assert cloud.aws.ecs.overlaps == []
    with pytest.raises(ConfigurationError, match="same data open"):
        cloud.provider(in_a_bucket(cloud, replicas=2)).preflight()


def test_the_steps_make_the_bucket_and_only_destroy_with_data_removes_it(
    cloud: Cloud, tmp_path: Path
) -> None:
    services = Services(
        store=Store(f"file://{tmp_path}"),
        ledger=cast(Any, None),
        queue="test",
        logs_dir=tmp_path,
        scratch_dir=tmp_path,
        secret=lambda instance, reference: SecretStr(CANARY),
    )
    steps, runs = DeployActivities(services), ActivityEnvironment()
    prebuilt = {"registry": None, "build": BuildSettings(kind="image", image="registry.test/shop")}
    instance = in_a_bucket(cloud).model_copy(update=prebuilt)
    release = cloud.release(1, instance=instance)
    s3 = cloud.aws.client("s3")

    def buckets() -> list[str]:
        return [one["Name"] for one in s3.list_buckets()["Buckets"]]

    for _ in range(2):
        runs.run(steps.start_release, ReleaseInput(release=release, previous=None))
        assert buckets() == ["acme-data"]
    s3.put_object(Bucket="acme-data", Key="db/manifest", Body=b"x")
    runs.run(
        steps.restore_release,
        RestoreInput(instance=instance, deployment=release.deployment, previous=None),
    )
    runs.run(steps.destroy, DestroyInput(deployment="d", instance=instance, data=False))
    assert buckets() == ["acme-data"]
    for _ in range(2):
        runs.run(steps.destroy, DestroyInput(deployment="d", instance=instance, data=True))
        assert buckets() == []
