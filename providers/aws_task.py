"""What a release is on ECS: a task definition whose labels say all that must be known of it later.

The labels are Docker's, inside the task definition, so they need no permission of their own and
cannot be changed afterwards.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import Any
from uuid import NAMESPACE_URL, uuid5

from pydantic import BaseModel, ConfigDict

from model import names
from model.errors import ConfigurationError
from model.instance import HealthCheck, Instance
from model.platform import Release, Revision

CONTAINER = "app"
LABEL_SERVICE = "helix.service"
"""The service's settings that go with the release, as JSON: a restore brings them back too."""
LABEL_STREAM = "helix.stream"
"""The prefix of its log streams."""

FARGATE: dict[int, tuple[int, int]] = {
    256: (512, 2048),
    512: (1024, 4096),
    1024: (2048, 8192),
    2048: (4096, 16384),
    4096: (8192, 30720),
    8192: (16384, 61440),
    16384: (32768, 122880),
}
"""CPU units -> the least and the most MiB (ECS developer guide, «Task CPU and memory»)."""

ARCHITECTURES = {"amd64": "X86_64", "arm64": "ARM64"}
"""A platform's word -> ECS's."""
LONGEST_STOP = 120
"""Seconds between SIGTERM and SIGKILL that Fargate allows."""


class AwsSettings(BaseModel):
    """`[cloud.<instance>.aws]`."""

    model_config = ConfigDict(extra="ignore")

    region: str
    profile: str | None = None
    """The profile of AWS's configuration; AWS's own chain of credentials if absent."""
    cluster: str | None = None
    """The ECS cluster; `default` if absent."""
    service: str | None = None
    """The ECS service; helix-<project>-<instance> if absent."""
    cpu: int = 512
    """CPU units; 1024 are one processor."""
    memory: int = 1024
    """MiB."""
    replicas: int = 1
    """How many tasks. Left to the service's own scaling if it is not set."""
    subnets: list[str] = []
    security_groups: list[str] = []
    public_ip: bool = False
    """Give tasks a public address."""
    target_group: str | None = None
    """The ARN of a load balancer's target group of the type `ip`."""
    execution_role: str | None = None
    """The ARN of the role that pulls the image, reads the secrets and writes the logs."""
    task_role: str | None = None
    """The ARN of the role that the container has."""
    file_system: str | None = None
    """The EFS file system that holds the volumes."""
    endpoint_url: str | None = None
    """Another address of the AWS API."""


@dataclass(frozen=True)
class Task:
    """A task definition, as ECS describes it."""

    arn: str
    active: bool
    labels: dict[str, str]

    @classmethod
    def of(cls, described: dict[str, Any]) -> Task:
        """From `taskDefinition` of an answer."""
        containers = described.get("containerDefinitions") or [{}]
        return cls(
            arn=described["taskDefinitionArn"],
            active=described.get("status", "ACTIVE") == "ACTIVE",
            labels=dict(containers[0].get("dockerLabels") or {}),
        )

    @property
    def deployment(self) -> str:
        """The deployment that made it; empty if we did not."""
        return self.labels.get(names.LABEL_DEPLOYMENT, "")

    @property
    def release(self) -> int:
        """Our number for it; 0 if we did not make it."""
        return int(self.labels.get(names.LABEL_RELEASE, "0"))

    @property
    def stream(self) -> str:
        """The prefix of its log streams; empty if we did not make it."""
        return self.labels.get(LABEL_STREAM, "")

    @property
    def short(self) -> str:
        """family:revision."""
        return self.arn.rsplit("/", 1)[-1]

    def runs(self, release: Release) -> bool:
        """Whether it is what the release would be."""
        found = self.labels.get(names.LABEL_ARTIFACT), self.labels.get(names.LABEL_CONFIG)
        return bool(self.deployment and release.artifact.identity) and found == (
            release.artifact.identity,
            release.instance.config_digest,
        )

    def revision(self, service: dict[str, Any]) -> Revision:
        """What brings it back: itself, and the service's settings that go with it.

        Args:
            service: the settings, in case the task definition does not carry them.
        """
        return Revision(
            id=self.arn,
            release=self.release,
            deployment=self.deployment,
            artifact=self.labels.get(names.LABEL_ARTIFACT, ""),
            config=self.labels.get(names.LABEL_CONFIG, ""),
            detail={"service": self.labels.get(LABEL_SERVICE) or json.dumps(service)},
        )


def token(*parts: str) -> str:
    """The idempotency token of one creation: 36 characters, the same for the same parts."""
    return str(uuid5(NAMESPACE_URL, "helix:" + ":".join(parts)))


def service_name(instance: Instance, settings: AwsSettings) -> str:
    """The service's name, which is also the family of its task definitions."""
    own = settings.service or names.docker_name(instance.project, instance.name)
    return re.sub(r"[^A-Za-z0-9_-]", "-", own)[:255]


def service_shape(instance: Instance, settings: AwsSettings) -> dict[str, Any]:
    """The service's settings that go with a release; what the table leaves out is left alone.

    With `stop_first` the old task has ended before the new one starts (minimum 0 %, maximum 100 %).
    """
    least, most = (0, 100) if instance.stop_first else (100, 200)
    shape: dict[str, Any] = {
        "deploymentConfiguration": {
            "deploymentCircuitBreaker": {"enable": True, "rollback": True},
            "minimumHealthyPercent": least,
            "maximumPercent": most,
        }
    }
    if "replicas" in settings.model_fields_set or instance.stop_first:
        shape["desiredCount"] = settings.replicas
    if instance.stop_first:
        # Rebalancing starts the new task before it stops the old one.
        shape["availabilityZoneRebalancing"] = "DISABLED"
    if settings.subnets:
        shape["networkConfiguration"] = {
            "awsvpcConfiguration": {
                "subnets": settings.subnets,
                "securityGroups": settings.security_groups,
                "assignPublicIp": "ENABLED" if settings.public_ip else "DISABLED",
            }
        }
    if settings.target_group:
        shape["loadBalancers"] = [
            {
                "targetGroupArn": settings.target_group,
                "containerName": CONTAINER,
                "containerPort": instance.port,
            }
        ]
        shape["healthCheckGracePeriodSeconds"] = round(instance.health_check.start_period)
    return shape


def live_shape(service: dict[str, Any]) -> dict[str, Any]:
    """The same settings of a service that we did not make, as ECS describes them."""
    keys = ("deploymentConfiguration", "desiredCount", "networkConfiguration", "loadBalancers")
    return {key: service[key] for key in keys if service.get(key)}


@dataclass(frozen=True)
class Parts:
    """What a task definition refers to, by ARN or id; made before it."""

    log_group: str
    secrets: dict[str, str]
    """Environment name -> where ECS finds the value."""
    pull_secret: str = ""
    """Where ECS finds the registry's user name and password; empty if it needs none."""
    access_points: dict[str, str] | None = None
    """Volume's mount -> EFS access point."""


def definition(
    release: Release, settings: AwsSettings, parts: Parts, shape: dict[str, Any]
) -> dict[str, Any]:
    """The arguments of `register_task_definition`."""
    instance = release.instance
    service = service_name(instance, settings)
    container: dict[str, Any] = {
        "name": CONTAINER,
        "image": image_of(release),
        "essential": True,
        "portMappings": [
            {"containerPort": port, "protocol": "tcp"}
            for port in sorted({instance.port, instance.health_check.port or instance.port})
        ],
        "environment": [{"name": key, "value": value} for key, value in instance.env.items()],
        "secrets": [{"name": key, "valueFrom": arn} for key, arn in parts.secrets.items()],
        "stopTimeout": min(LONGEST_STOP, max(2, round(instance.stop_grace))),
        "dockerLabels": {
            names.LABEL_INSTANCE: instance.key,
            names.LABEL_ROLE: "app",
            names.LABEL_DEPLOYMENT: release.deployment,
            names.LABEL_RELEASE: str(release.number),
            names.LABEL_ARTIFACT: release.artifact.identity,
            names.LABEL_CONFIG: instance.config_digest,
            LABEL_SERVICE: json.dumps(shape),
            LABEL_STREAM: release.deployment,
        },
        "logConfiguration": {
            "logDriver": "awslogs",
            "options": {
                "awslogs-group": parts.log_group,
                "awslogs-region": settings.region,
                "awslogs-stream-prefix": release.deployment,
            },
        },
        "mountPoints": [
            {"sourceVolume": f"volume-{number}", "containerPath": volume.mount}
            for number, volume in enumerate(instance.volumes)
        ],
    }
    if instance.command:
        container["command"] = list(instance.command)
    if parts.pull_secret:
        container["repositoryCredentials"] = {"credentialsParameter": parts.pull_secret}
    if instance.health_check.kind == "command":
        container["healthCheck"] = _health_check(instance.health_check)
    arguments: dict[str, Any] = {
        "family": service,
        "networkMode": "awsvpc",
        "requiresCompatibilities": ["FARGATE"],
        "cpu": str(settings.cpu),
        "memory": str(settings.memory),
        "runtimePlatform": {
            "operatingSystemFamily": "LINUX",
            "cpuArchitecture": architecture(instance),
        },
        "containerDefinitions": [container],
        "volumes": [
            _volume(f"volume-{number}", settings, (parts.access_points or {})[volume.mount])
            for number, volume in enumerate(instance.volumes)
        ],
    }
    if settings.execution_role:
        arguments["executionRoleArn"] = settings.execution_role
    if settings.task_role:
        arguments["taskRoleArn"] = settings.task_role
    return arguments


def image_of(release: Release) -> str:
    """The image by digest.

    Raises:
        ConfigurationError: it is in no registry.
    """
    image = release.artifact.image
    if image is None or not image.digest:
        raise ConfigurationError(
            "ECS pulls images from a registry, and this release has none there",
            hint=f'add [deploy.{release.instance.name}.registry] with kind = "ecr"',
        )
    return image.reference


def architecture(instance: Instance) -> str:
    """ECS's word for the image's processor.

    Raises:
        ConfigurationError: Fargate does not have it.
    """
    wanted = (instance.build.platform or "linux/amd64").split("/")[1:2]
    found = ARCHITECTURES.get(wanted[0] if wanted else "")
    if found is None:
        raise ConfigurationError(
            f"Fargate does not run images for {instance.build.platform}",
            hint="set platform of the build to linux/amd64 or linux/arm64",
        )
    return found


def _health_check(check: HealthCheck) -> dict[str, Any]:
    """ECS runs the command inside the container, within the bounds that ECS sets."""
    return {
        "command": ["CMD", *check.command],
        "interval": min(300, max(5, round(check.interval))),
        "timeout": min(60, max(2, round(check.timeout))),
        "retries": 3,
        "startPeriod": min(300, max(0, round(check.start_period))),
    }


def _volume(name: str, settings: AwsSettings, access_point: str) -> dict[str, Any]:
    return {
        "name": name,
        "efsVolumeConfiguration": {
            "fileSystemId": settings.file_system,
            "transitEncryption": "ENABLED",
            "authorizationConfig": {
                "accessPointId": access_point,
                "iam": "ENABLED" if settings.task_role else "DISABLED",
            },
        },
    }
