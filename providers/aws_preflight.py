"""What can be known to fail on ECS before anything is changed."""

from __future__ import annotations

from typing import Any

from model.errors import ConfigurationError, NotFound, PermissionDenied
from model.instance import Instance
from providers.aws_api import AwsApi
from providers.aws_network import target_groups
from providers.aws_task import FARGATE, AwsSettings, architecture

INSTEAD = (
    'or keep the data in object storage: remove the volume and add object_storage = "<bucket>"; '
    "see docs/providers/aws.md"
)


class Preflight:
    """The checks of one instance. Reads only.

    Args:
        notes: where warnings for the person go.
        is_new: whether the service has yet to be made.
    """

    def __init__(
        self,
        api: AwsApi,
        instance: Instance,
        settings: AwsSettings,
        notes: list[str],
        is_new: bool,
    ) -> None:
        self._api = api
        self.instance = instance
        self._settings = settings
        self._notes = notes
        self._is_new = is_new

    def run(self) -> None:
        """Look at the table, the cluster, the network, the load balancer and the file system.

        Raises:
            ConfigurationError, NotFound: with what to set or to make.
        """
        self._check_table()
        self._check_volumes()
        self._check_cluster()
        own = self._settings
        self._look("ec2", "describe_subnets", SubnetIds=own.subnets)
        self._look("ec2", "describe_security_groups", GroupIds=own.security_groups)
        self._check_target_group()
        if self.instance.stop_first:
            self._notes.append("ECS stops the old task first, which interrupts service")

    def _check_table(self) -> None:
        own, instance = self._settings, self.instance
        table = f"[cloud.{instance.name}.aws]"
        architecture(instance)
        least, most = FARGATE.get(own.cpu, (0, 0))
        if not least <= own.memory <= most:
            hint = f"with cpu = {own.cpu} write a memory from {least} to {most}"
            raise ConfigurationError(
                f"Fargate has no task with {own.cpu} CPU units and {own.memory} MiB",
                hint=hint if least else f"cpu is one of {', '.join(map(str, FARGATE))}",
            )
        if not own.execution_role:
            raise ConfigurationError(
                "ECS needs a role to pull the image, read secrets and write logs",
                hint=f"set execution_role in {table} to its ARN; see docs/providers/aws.md",
            )
        if not own.subnets and self._is_new:
            raise ConfigurationError(
                "a new service needs to know its subnets",
                hint=f'set subnets = ["subnet-…"] in {table}',
            )
        if not instance.registry and instance.build.kind != "image":
            raise ConfigurationError(
                "ECS pulls images from a registry, and none is named",
                hint=f'add [deploy.{instance.name}.registry] with kind = "ecr" and a repository',
            )

    def _check_volumes(self) -> None:
        own, volumes = self._settings, self.instance.volumes
        if own.replicas > 1 and self.instance.single_writer:
            raise ConfigurationError(
                f"{own.replicas} tasks would have the same data open at once",
                hint="set replicas = 1: HelixDB has a single writer",
            )
        if not volumes:
            return
        if not own.file_system:
            raise ConfigurationError(
                "a volume on Fargate needs an EFS file system, and none is named",
                hint=f"set file_system in [cloud.{self.instance.name}.aws], {INSTEAD}",
            )
        if any(volume.path for volume in volumes):
            raise ConfigurationError(
                "Fargate has no machine whose folder a volume could be",
                hint=f"give the volume a name instead of a path, {INSTEAD}",
            )
        targets = self._look("efs", "describe_mount_targets", FileSystemId=own.file_system)
        reached = {one["SubnetId"] for one in targets.get("MountTargets", ())}
        if missing := set(own.subnets) - reached if targets else set():
            self._notes.append(
                f"the file system {own.file_system} has no mount target in "
                f"{', '.join(sorted(missing))}: tasks there need one in their availability zone"
            )

    def _check_cluster(self) -> None:
        cluster = self._settings.cluster or "default"
        clusters = self._api("ecs", "describe_clusters", clusters=[cluster])["clusters"]
        if not any(one["status"] == "ACTIVE" for one in clusters):
            raise NotFound(
                f"there is no ECS cluster «{cluster}» in {self._settings.region}",
                hint=f"create it: aws ecs create-cluster --cluster-name {cluster}",
            )

    def _check_target_group(self) -> None:
        for group in target_groups(self._api, self._settings):
            if group.get("TargetType") != "ip":
                raise ConfigurationError(
                    f"the target group has the type {group.get('TargetType')}",
                    hint="tasks of Fargate are reached by address: make one of the type «ip»",
                )

    def _look(self, service: str, operation: str, /, **arguments: Any) -> dict[str, Any]:
        """Look at something that may be looked at; whether we may is not essential."""
        if not any(arguments.values()):
            return {}
        try:
            return self._api(service, operation, **arguments)
        except PermissionDenied as error:
            self._notes.append(f"not checked: {error.message}")
            return {}
