"""`helix push` to AWS, Google Cloud and Fly.io: each cloud's API is a stand-in, and the registry
behind it a real one."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.e2e.kind_suite import KindSuite, Stand, toml_values
from tests.fakes.aws import ACCOUNT, REGION, AwsServer
from tests.fakes.aws_images import aws_with_images
from tests.fakes.fly import TOKEN, FakeFly, find_spec
from tests.fakes.gcp import FakeGcp
from tests.fakes.gcp_images import gcp_with_images
from tests.services.registry import TestRegistry, token_registry

pytestmark = [pytest.mark.engine, pytest.mark.registry]


class Aws(Stand):
    """moto's server, an ECS whose services roll out, and a registry with ECR's token. ECS itself
    knows only releases that exit for bad ones; any other gets requests until our check fails."""

    env = {"AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test"}
    bad = "exits"
    volumes = True
    data_is_left = "/data"

    def __init__(self, aws: AwsServer, images: TestRegistry) -> None:
        self.aws, self.images = aws, images
        ec2 = aws.client("ec2")
        network = ec2.create_vpc(CidrBlock="10.0.0.0/16")["Vpc"]["VpcId"]
        self.subnet = ec2.create_subnet(VpcId=network, CidrBlock="10.0.1.0/24")["Subnet"][
            "SubnetId"
        ]
        aws.client("ecs").create_cluster(clusterName="main")
        self.files = aws.client("efs").create_file_system(CreationToken="t")["FileSystemId"]

    def tables(self, project: str, volume: bool) -> str:
        target: dict[str, Any] = {
            "region": REGION,
            "cluster": "main",
            "port": 8080,
            "subnets": [self.subnet],
            "execution_role": "arn:aws:iam::123456789012:role/execution",
            "endpoint_url": self.aws.url,
        }
        if volume:
            target |= {"volume": "data:/data", "file_system": self.files}
        registry = {
            "kind": "ecr",
            "repository": f"{ACCOUNT}.dkr.ecr.{REGION}.amazonaws.com/{project}",
            "endpoint_url": self.aws.url,
            "registry_host": self.images.host,
        }
        return (
            f"[cloud.dev.aws]\n{toml_values(**target)}\n"
            f"[deploy.dev.registry]\n{toml_values(**registry)}"
        )

    def serves(self, project: str) -> list[str]:
        ecs = self.aws.client("ecs")
        with suppress(ecs.exceptions.ServiceNotFoundException, httpx.HTTPError):
            arns = ecs.list_tasks(cluster="main", serviceName=f"helix-{project}-dev")["taskArns"]
            tasks = ecs.describe_tasks(cluster="main", tasks=arns)["tasks"] if arns else []
            running = [one for one in tasks if one["lastStatus"] == "RUNNING"]
            places = [one["attachments"][0]["details"][0]["value"] for one in running]
            return [httpx.get(f"http://{place}:8080", timeout=5).text for place in places]
        return []

    def remains(self, project: str) -> list[str]:
        name = f"helix-{project}-dev"
        ecs = self.aws.client("ecs")
        found = ecs.describe_services(cluster="main", services=[name])["services"]
        services = [one["serviceArn"] for one in found if one["status"] == "ACTIVE"]
        tasks = ecs.list_task_definitions(familyPrefix=name)["taskDefinitionArns"]
        groups = self.aws.client("logs").describe_log_groups()["logGroups"]
        logs = [one["logGroupName"] for one in groups if name in one["logGroupName"]]
        return [*services, *tasks, *logs]

    def data(self, project: str) -> list[str]:
        points = self.aws.client("efs").describe_access_points()["AccessPoints"]
        return [one["AccessPointId"] for one in points if project in str(one["RootDirectory"])]


class TestAws(KindSuite):
    @pytest.fixture(scope="class")
    @classmethod
    def stand(cls, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Aws]:
        with aws_with_images(tmp_path_factory.mktemp("ecr")) as (aws, images):
            yield Aws(aws, images)


class Gcp(Stand):
    """Cloud Run and Artifact Registry by gRPC, and a registry that takes Google's access tokens."""

    def __init__(self, cloud: FakeGcp, images: TestRegistry, folder: Path) -> None:
        self.cloud, self.images = cloud, images
        self.env = {"GOOGLE_APPLICATION_CREDENTIALS": str(cloud.web.account_file(folder))}

    def tables(self, project: str, volume: bool) -> str:
        target = {
            "project_id": "acme",
            "region": "europe-west1",
            "public": True,
            "endpoint": self.cloud.endpoint,
        }
        registry = {
            "kind": "gar",
            "repository": f"europe-west1-docker.pkg.dev/acme/helix/{project}",
            "endpoint": self.cloud.endpoint,
            "registry_host": self.images.host,
        }
        return (
            f"[cloud.dev.gcp]\n{toml_values(**target)}\n"
            f"[deploy.dev.registry]\n{toml_values(**registry)}"
        )

    def serves(self, project: str) -> list[str]:
        answer = httpx.get(f"{self.cloud.web.address}/run/helix-{project}-dev/", timeout=5)
        return [answer.json()["name"]] if answer.status_code == 200 else []

    def remains(self, project: str) -> list[str]:
        with self.cloud.lock:
            self.cloud.advance()
            found = [*self.cloud.run.services, *self.cloud.run.revisions, *self.cloud.secrets]
        return [one for one in found if project in one]


class TestGcp(KindSuite):
    @pytest.fixture(scope="class")
    @classmethod
    def stand(cls, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gcp]:
        folder = tmp_path_factory.mktemp("gcp")
        with gcp_with_images(folder) as (cloud, images):
            yield Gcp(cloud, images, folder)


class Fly(Stand):
    """The Machines API, and a registry that takes its token. An instance always has a volume, and
    so one machine, which is updated in place."""

    holds = False
    volumes = True

    def __init__(self, fly: FakeFly, images: TestRegistry) -> None:
        self.fly = fly
        self.env = {
            "FLY_API_TOKEN": TOKEN,
            "FLY_FLAPS_BASE_URL": fly.address,
            "FLY_API_BASE_URL": fly.address,
            "FLY_REGISTRY_HOST": images.host,
        }

    def tables(self, project: str, volume: bool) -> str:
        target = {
            "vm_size": "shared-cpu-1x",
            "region": "ams",
            "volume_initial_size": 1,
            "auth_type": "ApiKey",
        }
        return f"[cloud.dev.fly]\n{toml_values(**target)}"

    def serves(self, project: str) -> list[str]:
        app = f"helix-{project}-dev"
        found = self.fly.serving(app) if app in self.fly.apps else []
        return [one["config"]["env"]["NAME"] for one in found]

    def remains(self, project: str) -> list[str]:
        app = f"helix-{project}-dev"
        return [one["id"] for one in self.fly.machines(app)] if app in self.fly.apps else []

    def data(self, project: str) -> list[str]:
        app = self.fly.apps.get(f"helix-{project}-dev", {"volumes": {}})
        return [one["id"] for one in app["volumes"].values() if one["state"] == "created"]


class TestFly(KindSuite):
    @pytest.fixture(scope="class")
    @classmethod
    def stand(cls, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fly]:
        with (
            token_registry(tmp_path_factory.mktemp("fly")) as images,
            FakeFly(spec=find_spec()) as fly,
        ):
            assert images.tokens is not None
            images.tokens.users["x"] = TOKEN
            yield Fly(fly, images)
            assert fly.violations == []
