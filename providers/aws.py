"""Runs releases on Amazon ECS, on Fargate: one service, and a task definition a release.

What serves is told by a tag of the service, `helix.current`, which `promote` sets to the ARN of its
task definition. ECS has no traffic to hold back: the load balancer gets the new tasks while the old
ones end, so a release that ECS calls successful is already reached. If it then turns out unhealthy,
`restore` points the service at the previous task definition, which is kept for that.

A volume is an access point of an EFS file system that the table names. It outlives every release,
and with it the old task has ended before the new one starts. Volumes of EBS are not offered: ECS
gives each task of a service a new one.

Secrets go to Secrets Manager, one entry a release, so that a restore brings back their values too.
"""

from __future__ import annotations

import json
import re
import time
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import suppress
from datetime import datetime
from typing import Any, ClassVar

from pydantic import BaseModel

from model.errors import (
    Busy,
    ConfigurationError,
    Conflict,
    HealthCheckFailed,
    HelixError,
    NotFound,
    NothingToRestore,
    PermissionDenied,
    Transient,
)
from model.instance import Instance, Volume
from model.names import LABEL_INSTANCE
from model.platform import Capabilities, Endpoint, Identity, Phase, Release, Revision, Rollout
from providers.aws_api import AwsApi
from providers.aws_rollout import epitaph, hopeless, judge, primary_of, word_about
from providers.aws_task import (
    FARGATE,
    AwsSettings,
    Parts,
    Task,
    architecture,
    definition,
    image_of,
    live_shape,
    secret_name,
    service_name,
    service_shape,
    token,
)
from providers.base import CloudProvider, Context

TAG_CURRENT = "helix.current"
"""The service's tag that names the task definition which was promoted last."""
NEWEST = 10
"""How many task definitions are looked at to find one of a deployment that is under way."""
DELETE_AT_ONCE = 10
"""Task definitions that one call may delete."""
LOG_LINES = 20
LOG_PAUSE = 2.0
"""Seconds between two looks for new lines."""
DRAIN_PAUSE = 1.0
PROMOTE_SECONDS = 5.0
"""For how long `promote` waits for ECS itself before it leaves that to the next attempt."""
PROMOTE_PAUSE = 0.1
OWNER = 65532
"""The user whom EFS takes every file of a volume to belong to: HelixDB's own."""
INSTEAD = (
    "or keep the data in object storage: remove the volume and set S3_BUCKET, S3_REGION and "
    "DB_PATH in env; see docs/providers/aws.md"
)


class AwsProvider(CloudProvider):
    """One ECS service on Fargate, made by the first release or found and taken over."""

    kind: ClassVar[str] = "aws"
    capabilities: ClassVar[Capabilities] = Capabilities(start_first=True, volumes=True)
    Settings: ClassVar[type[BaseModel]] = AwsSettings

    def __init__(self, instance: Instance, context: Context) -> None:
        super().__init__(instance, context)
        self._settings = AwsSettings.model_validate(instance.target.settings)
        self._name = service_name(instance, self._settings)
        self._cluster = self._settings.cluster or "default"
        self._log_group = f"/helix/{self._name}"
        self._api = AwsApi(
            self._settings.region, self._settings.profile, self._settings.endpoint_url
        )

    def close(self) -> None:
        """Give back the connections."""
        self._api.close()

    # Before anything changes ----------------------------------------------------------------------

    def identity(self) -> Identity:
        """The ARN of the user or role that AWS takes us for."""
        caller = self._api("sts", "get_caller_identity")
        return Identity(where=f"AWS {self._settings.region}", who=caller["Arn"])

    def preflight(self) -> None:
        """Look at the table, the cluster, the network, the load balancer and the file system."""
        self._check_table()
        self._check_volumes()
        self._check_cluster()
        own = self._settings
        self._look("ec2", "describe_subnets", SubnetIds=own.subnets)
        self._look("ec2", "describe_security_groups", GroupIds=own.security_groups)
        self._check_target_group()
        if self.instance.stop_first:
            self.context.notes.append("ECS stops the old task first, which interrupts service")

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
        if not own.subnets and self._service() is None:
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
        if own.replicas > 1:
            raise ConfigurationError(
                f"{own.replicas} tasks would have the same volume open at once",
                hint="set replicas = 1: HelixDB has a single writer",
            )
        targets = self._look("efs", "describe_mount_targets", FileSystemId=own.file_system)
        reached = {one["SubnetId"] for one in targets.get("MountTargets", ())}
        if missing := set(own.subnets) - reached if targets else set():
            self.context.notes.append(
                f"the file system {own.file_system} has no mount target in "
                f"{', '.join(sorted(missing))}: tasks there need one in their availability zone"
            )

    def _check_cluster(self) -> None:
        clusters = self._api("ecs", "describe_clusters", clusters=[self._cluster])["clusters"]
        if not any(one["status"] == "ACTIVE" for one in clusters):
            raise NotFound(
                f"there is no ECS cluster «{self._cluster}» in {self._settings.region}",
                hint=f"create it: aws ecs create-cluster --cluster-name {self._cluster}",
            )

    def _check_target_group(self) -> None:
        for group in self._target_groups():
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
            self.context.notes.append(f"not checked: {error.message}")
            return {}

    # What runs ------------------------------------------------------------------------------------

    def current(self) -> Revision | None:
        """The task definition that was promoted last, or that somebody else gave the service."""
        service = self._service()
        if service is None:
            return None
        running = self._task(service["taskDefinition"])
        promoted = _tags(service).get(TAG_CURRENT)
        if running.deployment and running.arn != promoted:
            # A deployment is under way, or died half way.
            if promoted is None:
                return None
            before = self._task(promoted)
            running = before if before.active else running
        return running.revision(live_shape(service))

    def _service(self) -> dict[str, Any] | None:
        """The service, if it is there and is not being removed."""
        try:
            answer = self._api(
                "ecs",
                "describe_services",
                cluster=self._cluster,
                services=[self._name],
                include=["TAGS"],
            )
        except NotFound:  # the cluster
            return None
        found: list[dict[str, Any]] = answer["services"]
        return next((one for one in found if one["status"] == "ACTIVE"), None)

    def _task(self, arn: str) -> Task:
        described = self._api("ecs", "describe_task_definition", taskDefinition=arn)
        return Task.of(described["taskDefinition"])

    def _tasks(self, newest: int = 0) -> Iterator[Task]:
        """Our active task definitions, the newest first; all, or so many."""
        arns = self._api.pages(
            "ecs", "list_task_definitions", "taskDefinitionArns", familyPrefix=self._name
        )
        ordered = sorted(arns, key=lambda arn: int(arn.rsplit(":", 1)[-1]), reverse=True)
        for arn in ordered[: newest or None]:
            task = self._task(arn)
            if task.labels.get(LABEL_INSTANCE) == self.instance.key:
                yield task

    # Start ----------------------------------------------------------------------------------------

    def start(self, release: Release, previous: Revision | None) -> str:
        """Register the task definition and give it to the service. The handle is its ARN."""
        service = self._service()
        running = self._task(service["taskDefinition"]) if service else None
        if running and running.release > release.number:
            raise Conflict(
                f"release {running.release} is there already, and this is {release.number}",
                hint="a later deployment has taken over; see: helix status",
            )
        if service and running and running.runs(release) and self._settled(service, running):
            return running.arn
        shape = service_shape(self.instance, self._settings)
        task = self._find(release.deployment) or self._register(release, shape)
        if service is None:
            self._create_service(task.arn, shape, release.deployment)
        elif running and running.arn != task.arn:
            if not running.deployment and TAG_CURRENT not in _tags(service):
                self._mark(service, running.arn)  # not ours: what to come back to
            self._update_service(task.arn, shape)
        return task.arn

    def _settled(self, service: dict[str, Any], task: Task) -> bool:
        """Whether ECS is done with the task definition, and content."""
        word = word_about(self._api, service, task.arn)
        return judge(service, word, task.arn).phase is Phase.RUNNING

    def _find(self, deployment: str) -> Task | None:
        """The deployment's task definition; the oldest, if two callers made one each."""
        found = [task for task in self._tasks(NEWEST) if task.deployment == deployment]
        return found[-1] if found else None

    def _register(self, release: Release, shape: dict[str, Any]) -> Task:
        image_of(release)  # refuse before anything is made
        with suppress(Conflict):
            self._api("logs", "create_log_group", logGroupName=self._log_group)
        parts = Parts(
            log_group=self._log_group,
            secrets=self._store_secrets(release.deployment),
            pull_secret=self._store_pull_secret(release.deployment),
            access_points={each.mount: self._access_point(each) for each in self.instance.volumes},
        )
        arguments = definition(release, self._settings, parts, shape)
        self._api("ecs", "register_task_definition", **arguments)
        found = self._find(release.deployment)
        if found is None:
            raise Transient("ECS does not list the new task definition yet")
        return found

    def _store_secrets(self, deployment: str) -> dict[str, str]:
        """Put the values into Secrets Manager. Returns where ECS finds each."""
        references = self.instance.secrets
        if not references:
            return {}
        values = {
            name: self.context.secret(reference).get_secret_value()
            for name, reference in references.items()
        }
        arn = self._store(deployment, "env", values)
        return {name: f"{arn}:{name}::" for name in values}

    def _store_pull_secret(self, deployment: str) -> str:
        """Put the registry's credentials there. ECR needs none: the execution role may pull."""
        found = self.context.pull()
        if found is None or found.username == "AWS":
            return ""
        values = {"username": found.username, "password": found.password.get_secret_value()}
        return self._store(deployment, "pull", values)

    def _store(self, deployment: str, what: str, values: dict[str, str]) -> str:
        name = secret_name(self._name, deployment, what)
        try:
            made = self._api(
                "secretsmanager",
                "create_secret",
                Name=name,
                ClientRequestToken=token(deployment, what),
                SecretString=json.dumps(values),
                Tags=[{"Key": LABEL_INSTANCE, "Value": _tag_value(self.instance.key)}],
            )
        except Conflict:  # an earlier attempt's
            made = self._api("secretsmanager", "describe_secret", SecretId=name)
        return str(made["ARN"])

    def _access_point(self, volume: Volume) -> str:
        """The volume's access point, found by its token or created: a folder of the file system."""
        mark = token(self.instance.key, volume.name or volume.mount)
        found = self._find_access_point(mark)
        if found is None:
            with suppress(Conflict):  # another caller was faster
                self._api(
                    "efs",
                    "create_access_point",
                    ClientToken=mark,
                    FileSystemId=self._settings.file_system,
                    PosixUser={"Uid": OWNER, "Gid": OWNER},
                    RootDirectory={
                        "Path": self._folder(volume),
                        "CreationInfo": {
                            "OwnerUid": OWNER,
                            "OwnerGid": OWNER,
                            "Permissions": "0750",
                        },
                    },
                    Tags=[
                        {"Key": "Name", "Value": self._name},
                        {"Key": LABEL_INSTANCE, "Value": _tag_value(self.instance.key)},
                    ],
                )
            found = self._find_access_point(mark)
        if found is None:
            raise Transient("EFS does not list the new access point yet")
        return found

    def _find_access_point(self, mark: str) -> str | None:
        points = self._api.pages(
            "efs", "describe_access_points", "AccessPoints", FileSystemId=self._settings.file_system
        )
        return next((one["AccessPointId"] for one in points if one["ClientToken"] == mark), None)

    def _folder(self, volume: Volume) -> str:
        """Where the volume's files are in the file system."""
        name = re.sub(r"[^A-Za-z0-9_.-]", "-", (volume.name or volume.mount).strip("/"))
        return f"/helix-{self._name.removeprefix('helix-')}/{name}"

    def _create_service(self, task: str, shape: dict[str, Any], deployment: str) -> None:
        self._api(
            "ecs",
            "create_service",
            cluster=self._cluster,
            serviceName=self._name,
            taskDefinition=task,
            clientToken=token(deployment, self._name, task),
            launchType="FARGATE",
            propagateTags="SERVICE",
            tags=[{"key": LABEL_INSTANCE, "value": _tag_value(self.instance.key)}],
            **{"desiredCount": self._settings.replicas, **shape},
        )

    def _update_service(self, task: str, shape: dict[str, Any]) -> None:
        self._api(
            "ecs",
            "update_service",
            cluster=self._cluster,
            service=self._name,
            taskDefinition=task,
            **shape,
        )

    def _mark(self, service: dict[str, Any], task: str) -> None:
        """Note on the service which task definition is current."""
        if _tags(service).get(TAG_CURRENT) != task:
            tags = [{"key": TAG_CURRENT, "value": task}]
            self._api("ecs", "tag_resource", resourceArn=service["serviceArn"], tags=tags)

    # While it runs --------------------------------------------------------------------------------

    def poll(self, handle: str) -> Rollout:
        """See `providers.aws_rollout`. A task that stopped for a reason that no other task can
        escape ends the wait before ECS's circuit breaker does."""
        service = self._service()
        if service is None:
            return Rollout(phase=Phase.FAILED, detail="the service is gone")
        found = judge(service, word_about(self._api, service, handle), handle)
        if found.phase is Phase.RUNNING:
            return found
        stopped = self._stopped(service, handle) if self._should_look(service, found) else ""
        if found.phase is Phase.STARTING and not hopeless(stopped):
            return found
        detail = f"{found.detail}: {stopped}" if found.phase is Phase.FAILED else stopped
        return Rollout(
            phase=Phase.FAILED, detail=detail.rstrip(": "), logs=self._last_lines(handle)
        )

    @staticmethod
    def _should_look(service: dict[str, Any], found: Rollout) -> bool:
        return found.phase is Phase.FAILED or bool(primary_of(service).get("failedTasks"))

    def _stopped(self, service: dict[str, Any], task: str) -> str:
        """Why the last task of this task definition stopped; empty if none did."""
        ended = [one for one in self._running(service, task, "STOPPED") if epitaph(one)]
        ended.sort(key=lambda one: one.get("stoppedAt") or one["createdAt"])
        return epitaph(ended[-1]) if ended else ""

    def _running(
        self, service: dict[str, Any], task: str, status: str = "RUNNING"
    ) -> list[dict[str, Any]]:
        """The tasks of a task definition."""
        arns = self._api(
            "ecs",
            "list_tasks",
            cluster=self._cluster,
            serviceName=service["serviceName"],
            desiredStatus=status,
        )["taskArns"]
        if not arns:
            return []
        described = self._api("ecs", "describe_tasks", cluster=self._cluster, tasks=arns)
        return [one for one in described["tasks"] if one["taskDefinitionArn"] == task]

    def _last_lines(self, task: str) -> str:
        """The end of its log; nothing if it cannot be had, as it is only evidence."""
        try:
            return "\n".join(self._lines(self._task(task), None, LOG_LINES))
        except HelixError:
            return ""

    def endpoint(self, handle: str) -> Endpoint | None:
        """The load balancer, behind which only this release is once ECS calls it successful; else
        the address of a task: its public one, or its own, which reaches from inside the network."""
        if self._settings.target_group:
            return Endpoint(url=self.public_url())
        service = self._service()
        tasks = self._running(service, handle) if service else []
        running = [one for one in tasks if one["lastStatus"] == "RUNNING"]
        if not running:
            raise Transient("ECS lists no running task of the release yet")
        port = self.instance.health_check.port or self.instance.port
        return Endpoint(url=f"http://{self._address(running[0])}:{port}")

    def _address(self, task: dict[str, Any]) -> str:
        details = {
            one["name"]: one["value"]
            for attachment in task.get("attachments") or ()
            for one in attachment.get("details") or ()
        }
        if self._settings.public_ip and (interface := details.get("networkInterfaceId")):
            described = self._api(
                "ec2", "describe_network_interfaces", NetworkInterfaceIds=[interface]
            )
            found = described["NetworkInterfaces"][0].get("Association", {}).get("PublicIp")
            if found:
                return str(found)
        if "privateIPv4Address" not in details:
            raise Transient("the task has no address yet")
        return str(details["privateIPv4Address"])

    def run_check(self, handle: str, command: Sequence[str], timeout: float) -> tuple[int, str]:
        """ECS itself runs the command inside the container, again and again, as the task definition
        says; this asks what came of it."""
        service = self._service()
        tasks = self._running(service, handle) if service else []
        states = [one.get("healthStatus", "UNKNOWN") for one in tasks]
        healthy = bool(states) and all(state == "HEALTHY" for state in states)
        return (0 if healthy else 1), ", ".join(states) or "no task runs"

    # Promote and restore --------------------------------------------------------------------------

    def promote(self, handle: str) -> Revision:
        """See that ECS still says yes, and note on the service that this is current.

        Raises:
            HealthCheckFailed: ECS gave the release up meanwhile.
            Busy: ECS is not done with it.
        """
        end = time.monotonic() + PROMOTE_SECONDS
        while (found := self.poll(handle)).phase is Phase.STARTING and time.monotonic() < end:
            self.context.report(found.detail)
            time.sleep(PROMOTE_PAUSE)
        service = self._service()
        if service is None or found.phase is Phase.FAILED:
            raise HealthCheckFailed(
                f"the release cannot take the traffic: {found.detail}", evidence=found.logs
            )
        if found.phase is not Phase.RUNNING:
            raise Busy(f"ECS is not done: {found.detail}")
        self._mark(service, handle)
        return self._task(handle).revision(live_shape(service))

    def restore(self, deployment: str, previous: Revision | None) -> str | None:
        """Give the service the previous task definition and the settings that went with it. If
        ECS's circuit breaker was faster, nothing is left to do but to see that it worked, which
        `poll` does."""
        service = self._service()
        if previous is None:
            self._clear(service, deployment)
            return None
        before = self._still_there(previous)
        shape = json.loads(previous.detail.get("service") or "{}")
        if service is None:
            shape = {**service_shape(self.instance, self._settings), **shape}
            self._create_service(before.arn, shape, f"{deployment}:restore")
        else:
            self._fence(service, deployment, previous)
            if service["taskDefinition"] != before.arn:
                self._update_service(before.arn, shape)
            self._mark(service, before.arn)
        self._forget(task for task in self._tasks(NEWEST) if task.deployment == deployment)
        return before.arn

    def _clear(self, service: dict[str, Any] | None, deployment: str) -> None:
        """Leave nothing of a first deployment but its volumes."""
        if service is not None:
            if TAG_CURRENT in _tags(service):
                raise Conflict(
                    f"the service «{self._name}» has a release of a later deployment",
                    hint="nothing is to be done here; see: helix status",
                )
            if self._task(service["taskDefinition"]).deployment == deployment:
                self._delete_service()
                service = None
        self._forget(task for task in self._tasks(NEWEST) if task.deployment == deployment)
        for what in ("env", "pull"):
            self._delete_secret(secret_name(self._name, deployment, what))
        if service is None:
            self._delete_log_group()

    def _delete_log_group(self) -> None:
        with suppress(NotFound):
            self._api("logs", "delete_log_group", logGroupName=self._log_group)

    def _still_there(self, previous: Revision) -> Task:
        with suppress(NotFound):
            task = self._task(previous.id)
            if task.active:
                return task
        raise NothingToRestore(
            f"the task definition {previous.id} of the previous release is gone",
            hint="push a release that works",
        )

    def _fence(self, service: dict[str, Any], deployment: str, previous: Revision) -> None:
        promoted = _tags(service).get(TAG_CURRENT)
        if promoted in (None, previous.id):
            return
        with suppress(NotFound):
            if self._task(promoted).deployment not in ("", deployment):
                raise Conflict(
                    f"the task definition {promoted} has taken over since",
                    hint="nothing is to be done here; see: helix status",
                )

    # For people -----------------------------------------------------------------------------------

    def public_url(self) -> str:
        """The load balancer's address, else a task's public one; empty if there is neither."""
        own = self._settings
        if own.target_group:
            return self._load_balancer_url()
        if not own.public_ip or (service := self._service()) is None:
            return ""
        for task in self._running(service, service["taskDefinition"]):
            if task["lastStatus"] == "RUNNING":
                return f"http://{self._address(task)}:{self.instance.port}"
        return ""

    def _load_balancer_url(self) -> str:
        balancers = [arn for group in self._target_groups() for arn in group["LoadBalancerArns"]]
        if not balancers:
            raise ConfigurationError(
                "no load balancer sends anything to the target group",
                hint="add a listener that forwards to it",
            )
        listeners = self._api("elbv2", "describe_listeners", LoadBalancerArn=balancers[0])
        described = self._api("elbv2", "describe_load_balancers", LoadBalancerArns=balancers[:1])
        host = described["LoadBalancers"][0]["DNSName"]
        for listener in listeners["Listeners"]:
            scheme = "https" if listener["Protocol"] in ("HTTPS", "TLS") else "http"
            return f"{scheme}://{host}:{listener['Port']}"
        return f"http://{host}"

    def _target_groups(self) -> list[dict[str, Any]]:
        arn = self._settings.target_group
        if not arn:
            return []
        answer = self._api("elbv2", "describe_target_groups", TargetGroupArns=[arn])
        found: list[dict[str, Any]] = answer["TargetGroups"]
        return found

    def logs(
        self, *, since: datetime | None = None, tail: int | None = None, follow: bool = False
    ) -> Iterator[str]:
        """Lines of the current release from CloudWatch Logs.

        Raises:
            NotFound: nothing was deployed, or not by us.
        """
        service = self._service()
        if service is None:
            raise NotFound(
                f"nothing was deployed to {self.instance.key}",
                hint=f"run: helix push {self.instance.name}",
            )
        task = self._task(service["taskDefinition"])
        yield from self._lines(task, since, tail, follow)

    def _lines(
        self, task: Task, since: datetime | None, tail: int | None, follow: bool = False
    ) -> Iterator[str]:
        if not task.stream:
            raise NotFound(
                f"the task definition {task.short} is not ours, and its logs could be anywhere",
                hint="look at its logConfiguration",
            )
        start = int(since.timestamp() * 1000) if since else 0
        events = self._events(task.stream, start)
        found = deque(events, maxlen=tail)
        yield from (one["message"].rstrip("\n") for one in found)
        seen = {one["eventId"] for one in found}
        while follow:
            time.sleep(LOG_PAUSE)
            # The last second is asked for again: lines may come out of order.
            start = max((one["timestamp"] for one in found), default=start + 1000) - 1000
            found = deque(self._events(task.stream, max(0, start)))
            for one in found:
                if one["eventId"] not in seen:
                    seen.add(one["eventId"])
                    yield one["message"].rstrip("\n")

    def _events(self, stream: str, start: int) -> Iterator[dict[str, Any]]:
        arguments: dict[str, Any] = {"startTime": start} if start else {}
        with suppress(NotFound):
            yield from self._api.pages(
                "logs",
                "filter_log_events",
                "events",
                logGroupName=self._log_group,
                logStreamNamePrefix=f"{stream}/",
                **arguments,
            )

    # Tidy up --------------------------------------------------------------------------------------

    def prune(self, keep: Sequence[Revision]) -> None:
        """Delete the older task definitions and the secrets that went with them."""
        service = self._service()
        if service is None:
            return
        tags = _tags(service)
        kept = {one.id for one in keep} | {service["taskDefinition"], tags.get(TAG_CURRENT, "")}
        current = self._task(service["taskDefinition"])
        self._forget(
            task
            for task in self._tasks()
            if task.arn not in kept and task.release < current.release
        )

    def destroy(self, *, data: bool) -> None:
        """Remove service, task definitions, secrets and logs. With `data` the access points go too,
        and the files stay in the file system, which is not ours.

        Raises:
            ConfigurationError: `data`, and there are files that only a person can remove.
        """
        if self._service() is not None:
            self._delete_service()
        self._wait_until_drained()
        self._forget(self._tasks())
        for one in list(
            self._api.pages(
                "secretsmanager",
                "list_secrets",
                "SecretList",
                Filters=[{"Key": "name", "Values": [f"helix/{self._name}/"]}],
            )
        ):
            self._delete_secret(one["Name"])
        self._delete_log_group()
        if data:
            self._destroy_data()

    def _delete_service(self) -> None:
        with suppress(NotFound):
            self._api(
                "ecs", "delete_service", cluster=self._cluster, service=self._name, force=True
            )

    def _wait_until_drained(self) -> None:
        """Until the last task has ended, so that nothing has a volume open."""
        while True:
            try:
                answer = self._api(
                    "ecs", "describe_services", cluster=self._cluster, services=[self._name]
                )
            except NotFound:
                return
            if not any(one["status"] == "DRAINING" for one in answer["services"]):
                return
            self.context.report("waiting for the last task to end")
            time.sleep(DRAIN_PAUSE)

    def _destroy_data(self) -> None:
        left = []
        for volume in self.instance.volumes:
            mark = token(self.instance.key, volume.name or volume.mount)
            with suppress(NotFound):
                if (found := self._find_access_point(mark)) is not None:
                    left.append(self._folder(volume))
                    self._api("efs", "delete_access_point", AccessPointId=found)
        if left:
            raise ConfigurationError(
                f"the files of {', '.join(left)} stay in the file system "
                f"{self._settings.file_system}: AWS has no call that removes files",
                hint="mount it and remove them, or delete the file system",
            )

    def _forget(self, tasks: Iterator[Task]) -> None:
        """Delete task definitions, and the secrets that only they read."""
        arns = []
        for task in list(tasks):
            self._api("ecs", "deregister_task_definition", taskDefinition=task.arn)
            arns.append(task.arn)
            for what in ("env", "pull"):
                self._delete_secret(secret_name(self._name, task.deployment, what))
        for first in range(0, len(arns), DELETE_AT_ONCE):
            self._api(
                "ecs",
                "delete_task_definitions",
                taskDefinitions=arns[first : first + DELETE_AT_ONCE],
            )

    def _delete_secret(self, name: str) -> None:
        with suppress(NotFound):
            self._api(
                "secretsmanager", "delete_secret", SecretId=name, ForceDeleteWithoutRecovery=True
            )


def _tags(service: dict[str, Any]) -> dict[str, str]:
    return {one["key"]: one["value"] for one in service.get("tags") or ()}


def _tag_value(text: str) -> str:
    """The text with what AWS's tags allow."""
    return re.sub(r"[^A-Za-z0-9 _.:/=+@-]", "_", text)[:256]
