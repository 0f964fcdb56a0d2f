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
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from datetime import datetime
from typing import Any, ClassVar

from pydantic import BaseModel

from model.errors import (
    Busy,
    Conflict,
    HealthCheckFailed,
    HelixError,
    NotFound,
    NothingToRestore,
    Transient,
)
from model.instance import Instance
from model.names import LABEL_INSTANCE
from model.platform import Capabilities, Endpoint, Identity, Phase, Release, Revision, Rollout
from providers.aws_api import AwsApi, tag_value
from providers.aws_bucket import S3Bucket
from providers.aws_logs import LogGroup
from providers.aws_network import load_balancer_url, task_address
from providers.aws_permissions import lacking
from providers.aws_preflight import Preflight
from providers.aws_rollout import epitaph, hopeless, judge, primary_of, word_about
from providers.aws_secrets import Secrets
from providers.aws_task import (
    AwsSettings,
    Parts,
    Task,
    definition,
    image_of,
    live_shape,
    service_name,
    service_shape,
    token,
)
from providers.aws_volumes import AccessPoints
from providers.base import CloudProvider, Context, superseded
from providers.bucket import Bucket

TAG_CURRENT = "helix.current"
"""The service's tag that names the task definition which was promoted last."""
NEWEST = 10
"""How many task definitions are looked at to find one of a deployment that is under way."""
DELETE_AT_ONCE = 10
"""Task definitions that one call may delete."""
LOG_LINES = 20
DRAIN_PAUSE = 1.0
PROMOTE_SECONDS = 5.0
"""For how long `promote` waits for ECS itself before it leaves that to the next attempt."""
PROMOTE_PAUSE = 0.1


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
        own = self._settings
        self._api = AwsApi(own.region, own.profile, own.endpoint_url)
        self._logs = LogGroup(self._api, self._name)
        self._secrets = Secrets(self._api, instance, context, self._name)
        self._access_points = AccessPoints(self._api, instance, self._name, own.file_system or "")

    def close(self) -> None:
        """Give back the connections."""
        self._api.close()

    # Before anything changes ----------------------------------------------------------------------

    def identity(self) -> Identity:
        """The ARN of the user or role that AWS takes us for."""
        caller = self._api("sts", "get_caller_identity")
        return Identity(where=f"AWS {self._settings.region}", who=caller["Arn"])

    def lacking(self) -> list[str] | None:
        """See `providers.aws_permissions`."""
        return lacking(self._api, self.instance, self._settings)

    def preflight(self) -> None:
        """See `providers.aws_preflight`."""
        is_new = self._service() is None
        Preflight(self._api, self.instance, self._settings, self.context.notes, is_new).run()

    def bucket(self) -> Bucket | None:
        """The bucket in S3, unless another endpoint is named."""
        storage = self.instance.object_storage
        if storage is None or storage.endpoint_url:
            return None
        role = self._settings.task_role or ""
        return S3Bucket(self._api, self.instance, storage, self.context, role)

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
            raise superseded(running.release, release.number)
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
        self._logs.ensure()
        parts = Parts(
            log_group=self._logs.name,
            secrets=self._secrets.store(release.deployment),
            pull_secret=self._secrets.store_pull(release.deployment),
            access_points=self._access_points.ensure(self.instance.volumes),
        )
        arguments = definition(release, self._settings, parts, shape)
        self._api("ecs", "register_task_definition", **arguments)
        found = self._find(release.deployment)
        if found is None:
            raise Transient("ECS does not list the new task definition yet")
        return found

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
            tags=[{"key": LABEL_INSTANCE, "value": tag_value(self.instance.key)}],
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
            stream = self._task(task).stream
            return "\n".join(self._logs.lines(stream, None, LOG_LINES)) if stream else ""
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
        return Endpoint(url=f"http://{task_address(self._api, self._settings, running[0])}:{port}")

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
        self._forget_deployment(deployment)
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
        self._forget_deployment(deployment)
        if service is None:
            self._logs.delete()

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
            return load_balancer_url(self._api, own)
        if not own.public_ip or (service := self._service()) is None:
            return ""
        for task in self._running(service, service["taskDefinition"]):
            if task["lastStatus"] == "RUNNING":
                return (
                    f"http://{task_address(self._api, self._settings, task)}:{self.instance.port}"
                )
        return ""

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
        if not task.stream:
            raise NotFound(
                f"the task definition {task.short} is not ours, and its logs could be anywhere",
                hint="look at its logConfiguration",
            )
        yield from self._logs.lines(task.stream, since, tail, follow)

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
        self._secrets.delete_all()
        self._logs.delete()
        if data:
            self._access_points.delete(self.instance.volumes)

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

    def _forget(self, tasks: Iterator[Task]) -> None:
        """Delete task definitions, and the secrets that only they read."""
        arns = []
        for task in list(tasks):
            self._api("ecs", "deregister_task_definition", taskDefinition=task.arn)
            arns.append(task.arn)
            self._secrets.delete(task.deployment)
        for first in range(0, len(arns), DELETE_AT_ONCE):
            self._api(
                "ecs",
                "delete_task_definitions",
                taskDefinitions=arns[first : first + DELETE_AT_ONCE],
            )

    def _forget_deployment(self, deployment: str) -> None:
        """Delete what a deployment registered, and what it stored before it came so far."""
        self._forget(task for task in self._tasks(NEWEST) if task.deployment == deployment)
        self._secrets.delete(deployment)


def _tags(service: dict[str, Any]) -> dict[str, str]:
    return {one["key"]: one["value"] for one in service.get("tags") or ()}
