"""AWS on loopback: moto's server, with the part of ECS that moto leaves out.

moto answers STS, ECR, EC2, ELB, EFS, IAM, CloudWatch Logs, Secrets Manager and the task definitions
and clusters of ECS. It has no deployments: a service of moto's never rolls out. `EcsWorld` replaces
its services by ones that do, with tasks, a circuit breaker, service deployments and revisions, and
refuses what ECS refuses. boto3 checks requests against AWS's own service models, and moto writes
answers from the same models.

    with aws_server() as aws:
        aws.ecs.fates["sha256:bad"] = "exits"
        aws.faults.append(Fault("UpdateService", "ThrottlingException"))
        aws.client("ecs").list_clusters()
"""

from __future__ import annotations

import json
import random
import re
import shutil
import socket
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from io import BytesIO
from pathlib import Path
from typing import Any, Literal, cast
from urllib.parse import parse_qs
from uuid import uuid4

import boto3
from botocore.config import Config
from moto.backends import get_backend
from moto.core.base_backend import BackendDict
from moto.core.responses import ActionResult, BaseResponse
from moto.ecr.responses import ECRResponse
from moto.ecs.exceptions import (
    EcsClientException,
    InvalidParameterException,
    ServiceNotFoundException,
)
from moto.ecs.models import EC2ContainerServiceBackend
from moto.ecs.responses import EC2ContainerServiceResponse
from moto.efs.exceptions import EFSError
from moto.efs.responses import EFSResponse
from moto.iam.responses import IamResponse
from moto.logs.responses import LogsResponse
from moto.moto_server.werkzeug_app import (
    DomainDispatcherApplication,
    MotoRequestHandler,
    create_backend_app,
)
from werkzeug.serving import make_server

from tests.fakes.aws_container import Container
from tests.fakes.aws_iam import permits, simulate_principal_policy
from tests.fakes.aws_wire import ADMIN, permission_of
from tests.fakes.database import begin

ACCOUNT = "123456789012"
REGION = "eu-west-1"
PASSWORD = f"{ACCOUNT}-auth-token"
"""What moto hands out as ECR's token, for the user AWS."""
THRESHOLD = 3
"""Failed tasks that trip the circuit breaker: ECS's least."""

Fate = Literal["runs", "exits", "cannot-pull", "hangs"]


@dataclass
class Fault:
    """What goes wrong with the next calls of an operation."""

    operation: str
    """As in a permission: UpdateService; `*` for every one."""
    code: str = "ServerException"
    status: int = 400
    times: int = 1
    happens: bool = False
    """The call is carried out and its answer lost."""


@dataclass
class Rollout:
    """A service deployment."""

    arn: str
    task_definition: str
    revision: str
    created: datetime
    began: float
    status: str = "IN_PROGRESS"
    reason: str = ""
    failures: int = 0
    rolled_back: float = 0


@dataclass
class Service:
    """A service of ECS."""

    record: dict[str, Any]
    """As `describe_services` has it."""
    request: dict[str, Any]
    """What created it, to compare a replay with."""
    rollouts: list[Rollout] = field(default_factory=list)
    tasks: list[dict[str, Any]] = field(default_factory=list)
    drained: float = 0

    @property
    def primary(self) -> dict[str, Any]:
        found: dict[str, Any] = self.record["deployments"][0]
        return found


class EcsWorld:
    """The services of one region."""

    def __init__(self) -> None:
        self.fates: dict[str, Fate] = {}
        """A part of the image's reference -> what becomes of its tasks; the rest runs."""
        self.start_seconds = 0.05
        """From a task's creation until it runs or fails."""
        self.drain_seconds = 0.05
        self.listing_delay = 0.0
        """Until a new service deployment is listed."""
        self.task_address = "127.0.0.1"
        """Where tasks are reached whose environment does not say what they answer."""
        self.services: dict[str, Service] = {}
        self.overlaps: list[tuple[str, str]] = []
        """Task definitions whose tasks ran at the same time."""
        self.lock = threading.RLock()
        self._containers: dict[str, dict[str, Any]] = {}
        """Task definition -> its container, which tasks keep even if it is deleted."""
        self._roles: dict[str, str] = {}
        """Task definition -> the ARN of its task role."""
        self.url = ""
        """Where S3 is reached."""
        self._running: dict[str, Container] = {}
        """Task -> what serves for it."""
        self._tokens: dict[str, str] = {}

    # The calls ------------------------------------------------------------------------------------

    def create_service(self, backend: EC2ContainerServiceBackend, given: dict[str, Any]) -> Any:
        name, token = given["serviceName"], given.get("clientToken", "")
        cluster = backend._get_cluster(given.get("cluster", "default"))
        found = self.services.get(name)
        if found is not None and found.record["status"] == "DRAINING":
            raise InvalidParameterException("Unable to Start a service that is still Draining.")
        if found is not None and found.record["status"] == "ACTIVE":
            if self._tokens.get(token) != name or found.request != given:
                raise InvalidParameterException("Creation of service was not idempotent.")
            return {"service": found.record}
        arn = f"arn:aws:ecs:{REGION}:{ACCOUNT}:service/{cluster.name}/{name}"
        record = {
            "serviceArn": arn,
            "serviceName": name,
            "clusterArn": cluster.arn,
            "status": "ACTIVE",
            "launchType": given.get("launchType", "EC2"),
            "tags": list(given.get("tags") or ()),
            "deployments": [],
            "createdAt": _now(),
        }
        service = Service(record, given)
        self._change(backend, service, {"desiredCount": 0, **given})
        self.services[name] = service
        self._tokens[token] = name
        return {"service": record}

    def update_service(self, backend: EC2ContainerServiceBackend, given: dict[str, Any]) -> Any:
        service = self._get(backend, given)
        before = service.record.get("taskDefinition")
        self._change(backend, service, given, before)
        return {"service": service.record}

    def _change(
        self,
        backend: EC2ContainerServiceBackend,
        service: Service,
        given: dict[str, Any],
        before: str | None = None,
    ) -> None:
        """Take over the settings, and begin a rollout if the task definition is another."""
        task = given.get("taskDefinition", before)
        definition = backend.describe_task_definition(task)
        if definition.status != "ACTIVE":
            raise EcsClientException("TaskDefinition is inactive")
        self._containers[definition.arn] = definition.container_definitions[0]
        self._roles[definition.arn] = getattr(definition, "task_role_arn", "")
        keys = (
            "desiredCount", "networkConfiguration", "loadBalancers", "deploymentConfiguration",
            "availabilityZoneRebalancing", "healthCheckGracePeriodSeconds",
        )  # fmt: skip
        service.record |= {key: given[key] for key in keys if given.get(key) is not None}
        if definition.arn != before or given.get("forceNewDeployment"):
            self._roll(service, definition.arn)

    def delete_service(self, backend: EC2ContainerServiceBackend, given: dict[str, Any]) -> Any:
        service = self._get(backend, given)
        if service.record["desiredCount"] > 0 and not given.get("force"):
            raise InvalidParameterException(
                "The service cannot be stopped while it is scaled above 0."
            )
        service.record["status"] = "DRAINING"
        service.drained = time.monotonic() + self.drain_seconds
        return {"service": service.record}

    def describe_services(self, backend: EC2ContainerServiceBackend, given: dict[str, Any]) -> Any:
        backend._get_cluster(given.get("cluster", "default"))
        found, failures = [], []
        for each in given["services"]:
            name = each.rsplit("/", 1)[-1]
            if name in self.services:
                record = dict(self.services[name].record)
                if "TAGS" not in given.get("include", ()):
                    del record["tags"]
                found.append(record)
            else:
                failures.append({"arn": each, "reason": "MISSING"})
        return {"services": found, "failures": failures}

    def list_service_deployments(
        self, backend: EC2ContainerServiceBackend, given: dict[str, Any]
    ) -> Any:
        service = self._get(backend, given)
        listed = time.monotonic() - self.listing_delay
        return {
            "serviceDeployments": [
                {
                    "serviceDeploymentArn": one.arn,
                    "serviceArn": service.record["serviceArn"],
                    "clusterArn": service.record["clusterArn"],
                    "createdAt": one.created,
                    "targetServiceRevisionArn": one.revision,
                    "status": one.status,
                    "statusReason": one.reason,
                }
                for one in reversed(service.rollouts)
                if one.began <= listed
            ]
        }

    def describe_service_deployments(
        self, backend: EC2ContainerServiceBackend, given: dict[str, Any]
    ) -> Any:
        wanted = set(given["serviceDeploymentArns"])
        return {
            "serviceDeployments": [
                {
                    "serviceDeploymentArn": one.arn,
                    "status": one.status,
                    "statusReason": one.reason,
                    "targetServiceRevision": {"arn": one.revision},
                    "deploymentCircuitBreaker": {
                        "status": "TRIGGERED" if one.failures >= THRESHOLD else "MONITORING",
                        "failureCount": one.failures,
                        "threshold": THRESHOLD,
                    },
                }
                for service in self.services.values()
                for one in service.rollouts
                if one.arn in wanted
            ]
        }

    def describe_service_revisions(
        self, backend: EC2ContainerServiceBackend, given: dict[str, Any]
    ) -> Any:
        if len(given["serviceRevisionArns"]) > 20:
            raise InvalidParameterException("at most 20 service revisions")
        return {
            "serviceRevisions": [
                {"serviceRevisionArn": one.revision, "taskDefinition": one.task_definition}
                for service in self.services.values()
                for one in service.rollouts
                if one.revision in given["serviceRevisionArns"]
            ]
        }

    def list_tasks(self, backend: EC2ContainerServiceBackend, given: dict[str, Any]) -> Any:
        status = given.get("desiredStatus", "RUNNING")
        service = self._get(backend, {**given, "service": given["serviceName"]})
        return {
            "taskArns": [one["taskArn"] for one in service.tasks if one["desiredStatus"] == status]
        }

    def describe_tasks(self, backend: EC2ContainerServiceBackend, given: dict[str, Any]) -> Any:
        every = [one for service in self.services.values() for one in service.tasks]
        return {"tasks": [one for one in every if one["taskArn"] in given["tasks"]]}

    def tag_resource(self, given: dict[str, Any]) -> Any:
        service = self.services[given["resourceArn"].rsplit("/", 1)[-1]]
        tags = {one["key"]: one["value"] for one in service.record["tags"]}
        tags |= {one["key"]: one["value"] for one in given["tags"]}
        service.record["tags"] = [{"key": key, "value": value} for key, value in tags.items()]
        return {}

    def _get(self, backend: EC2ContainerServiceBackend, given: dict[str, Any]) -> Service:
        backend._get_cluster(given.get("cluster", "default").rsplit("/", 1)[-1])
        service = self.services.get(given["service"].rsplit("/", 1)[-1])
        if service is None:
            raise ServiceNotFoundException
        return service

    # Time passes ----------------------------------------------------------------------------------

    def tick(self) -> None:
        """Bring every service up to this moment."""
        for service in self.services.values():
            if service.record["status"] == "DRAINING":
                self._stop(service, "the service was deleted")
                if time.monotonic() >= service.drained:
                    service.record["status"] = "INACTIVE"
            if service.record["status"] != "ACTIVE":
                continue
            for rollout in service.rollouts:
                if rollout.status == "IN_PROGRESS":
                    self._advance(service, rollout)
                elif rollout.status == "ROLLBACK_IN_PROGRESS":
                    self._advance_rollback(service, rollout)

    def _roll(self, service: Service, task: str) -> None:
        for one in service.rollouts:
            if one.status.endswith("IN_PROGRESS"):
                one.status, one.reason = "STOPPED", "Superseded by a newer service deployment."
        name, mark = service.record["serviceArn"], uuid4().hex[:21]
        service.rollouts.append(
            Rollout(
                arn=f"{name.replace(':service/', ':service-deployment/')}/{mark}",
                task_definition=task,
                revision=f"{name.replace(':service/', ':service-revision/')}/{mark}",
                created=_now(),
                began=time.monotonic(),
            )
        )
        self._make_primary(service, task)
        if service.record.get("deploymentConfiguration", {}).get("minimumHealthyPercent") == 0:
            self._stop(service, "Scaling activity initiated by deployment")

    def _make_primary(self, service: Service, task: str) -> None:
        service.record["taskDefinition"] = task
        now = _now()
        service.record["deployments"] = [
            {
                "id": f"ecs-svc/{uuid4().int % 10**19}",
                "status": "PRIMARY",
                "taskDefinition": task,
                "desiredCount": service.record["desiredCount"],
                "runningCount": 0,
                "pendingCount": service.record["desiredCount"],
                "failedTasks": 0,
                "rolloutState": "IN_PROGRESS",
                "createdAt": now,
                "updatedAt": now,
            },
            *(
                {**one, "status": "ACTIVE"}
                for one in service.record["deployments"]
                if one["rolloutState"] == "COMPLETED" and one["taskDefinition"] != task
            ),
        ]

    def _advance(self, service: Service, rollout: Rollout) -> None:
        age = time.monotonic() - rollout.began
        fate, reason = self._fate(rollout.task_definition)
        if fate == "runs" and age >= self.start_seconds:
            self._complete(service, rollout.task_definition)
            rollout.status = "SUCCESSFUL"
        elif fate in ("exits", "cannot-pull"):
            while rollout.failures < min(THRESHOLD, int(age / self.start_seconds)):
                rollout.failures += 1
                service.primary["failedTasks"] = rollout.failures
                self._fail(service, rollout.task_definition, fate, reason)
            if rollout.failures >= THRESHOLD:
                self._break(service, rollout)

    def _break(self, service: Service, rollout: Rollout) -> None:
        """The circuit breaker."""
        rollout.reason = "ECS deployment circuit breaker: tasks failed to start."
        good = [one for one in service.rollouts if one.status == "SUCCESSFUL"]
        breaker = service.record["deploymentConfiguration"].get("deploymentCircuitBreaker", {})
        if not (breaker.get("enable") and breaker.get("rollback") and good):
            rollout.status = "STOPPED"
            service.primary.update(rolloutState="FAILED", rolloutStateReason=rollout.reason)
            return
        rollout.status = "ROLLBACK_IN_PROGRESS"
        rollout.rolled_back = time.monotonic()
        self._make_primary(service, good[-1].task_definition)

    def _advance_rollback(self, service: Service, rollout: Rollout) -> None:
        if time.monotonic() - rollout.rolled_back >= self.start_seconds:
            self._complete(service, service.record["taskDefinition"])
            rollout.status = "ROLLBACK_SUCCESSFUL"

    def _complete(self, service: Service, task: str) -> None:
        count = service.record["desiredCount"]
        running = [one for one in service.tasks if one["lastStatus"] == "RUNNING"]
        self.overlaps += [
            (one["taskDefinitionArn"], task) for one in running if one["taskDefinitionArn"] != task
        ]
        ours = [one for one in running if one["taskDefinitionArn"] == task]
        for _ in range(count - len(ours)):
            started = self._task(service, task)
            started.update(lastStatus="RUNNING", healthStatus="HEALTHY")
            self._log(started, "listening")
            self._serve(started)
        self._stop(service, "Scaling activity initiated by deployment", but=task)
        service.record["deployments"] = [service.primary]
        service.primary.update(rolloutState="COMPLETED", runningCount=count, pendingCount=0)
        service.record.update(runningCount=count, pendingCount=0)

    def _fail(self, service: Service, task: str, fate: Fate, reason: str) -> None:
        failed = self._task(service, task)
        failed.update(desiredStatus="STOPPED", lastStatus="STOPPED", stoppedAt=_now())
        if fate == "cannot-pull":
            failed.update(stopCode="TaskFailedToStart", stoppedReason=reason)
            return
        failed.update(
            stopCode="EssentialContainerExited", stoppedReason="Essential container in task exited"
        )
        failed["containers"][0]["exitCode"] = 3
        self._log(failed, "it is broken")

    def _task(self, service: Service, task: str) -> dict[str, Any]:
        mark = uuid4().hex
        made = {
            "taskArn": f"arn:aws:ecs:{REGION}:{ACCOUNT}:task/{mark}",
            "taskDefinitionArn": task,
            "desiredStatus": "RUNNING",
            "lastStatus": "PENDING",
            "createdAt": _now(),
            "containers": [{"name": "app"}],
            "attachments": [
                {
                    "type": "ElasticNetworkInterface",
                    "details": [{"name": "privateIPv4Address", "value": self.task_address}],
                }
            ],
        }
        service.tasks.append(made)
        return made

    def _stop(self, service: Service, reason: str, but: str = "") -> None:
        for one in service.tasks:
            if one["desiredStatus"] == "RUNNING" and one["taskDefinitionArn"] != but:
                one.update(
                    desiredStatus="STOPPED",
                    lastStatus="STOPPED",
                    stoppedReason=reason,
                    stoppedAt=_now(),
                )
                if one["taskArn"] in self._running:
                    self._running.pop(one["taskArn"]).stop()

    def _fate(self, task: str) -> tuple[Fate, str]:
        """What becomes of its tasks, and the reason if they cannot start."""
        container = self._containers[task]
        for secret in container.get("secrets", ()):
            if _secret(secret["valueFrom"]) is None:
                return "cannot-pull", (
                    "ResourceInitializationError: unable to pull secrets or registry auth: "
                    "ResourceNotFoundException: Secrets Manager can't find the specified secret."
                )
        if _environment(container).get("BEHAVIOUR") == "exit":
            return "exits", ""
        for part, fate in self.fates.items():
            if part in container["image"]:
                return fate, (
                    f"CannotPullContainerError: pull image manifest has been retried 1 time(s): "
                    f"failed to resolve ref {container['image']}: not found"
                )
        return "runs", ""

    def _serve(self, task: dict[str, Any]) -> None:
        """Let the container answer as its environment says: see `Container`."""
        container = self._containers[task["taskDefinitionArn"]]
        environment = _environment(container)
        if name := environment.get("NAME"):
            port = container["portMappings"][0]["containerPort"]
            data = None
            if "S3_BUCKET" in environment:
                own = self._credentials(task["taskDefinitionArn"], environment)
                data = begin({**environment, **own}, {"": self.url})
            serves = Container(name, environment["BEHAVIOUR"], port, data)
            self._running[task["taskArn"]] = serves
            task["attachments"][0]["details"][0]["value"] = serves.address
            self._log(task, f"starting {name}")

    def _credentials(self, definition: str, environment: dict[str, str]) -> dict[str, str]:
        """What the SDK in a container finds: keys of its own, else those of the task's role."""
        given = self._containers[definition].get("secrets", ())
        if secrets := {one["name"]: _secret(one["valueFrom"]) or "" for one in given}:
            return secrets
        resource = f"arn:aws:s3:::{environment['S3_BUCKET']}/{environment['DB_PATH']}x"
        iam = get_backend("iam")[ACCOUNT]["aws"]
        for action in ("s3:PutObject", "s3:GetObject"):
            if not permits(iam, self._roles[definition], action, resource):
                raise PermissionError(f"{self._roles[definition]} lacks {action} on {resource}")
        return {"AWS_ACCESS_KEY_ID": "role", "AWS_SECRET_ACCESS_KEY": "role"}

    def close(self) -> None:
        """Stop every container."""
        while self._running:
            self._running.popitem()[1].stop()

    def _log(self, task: dict[str, Any], line: str) -> None:
        """A line of the container's, where its log driver would put it."""
        container = self._containers[task["taskDefinitionArn"]]
        options = container.get("logConfiguration", {}).get("options", {})
        if not options:
            return
        mark = task["taskArn"].rsplit("/", 1)[-1]
        stream = f"{options['awslogs-stream-prefix']}/{container['name']}/{mark}"
        logs = _backend("logs")
        if stream not in logs.groups[options["awslogs-group"]].streams:
            logs.create_log_stream(options["awslogs-group"], stream)
        event = {"timestamp": int(time.time() * 1000), "message": line}
        logs.put_log_events(options["awslogs-group"], stream, [event])


@dataclass
class AwsServer:
    """AWS on loopback, as `aws_server` yields it."""

    url: str
    ecs: EcsWorld
    faults: list[Fault] = field(default_factory=list)
    flaky: float = 0
    """The part of all calls that fails at random, a third of them after they happened."""
    calls: list[str] = field(default_factory=list)
    """The operations that were called, in order."""
    permissions: set[str] = field(default_factory=set)
    """What was needed for all calls but those of `client`."""
    random: random.Random = field(default_factory=lambda: random.Random(5))

    def client(self, service: str, region: str = REGION) -> Any:
        """A client of boto3's."""
        return boto3.client(
            service,
            region_name=region,
            endpoint_url=self.url,
            aws_access_key_id="test",
            aws_secret_access_key="test",
            config=Config(
                retries={"total_max_attempts": 1, "mode": "standard"}, user_agent_extra=ADMIN
            ),
        )

    def fault(self, operation: str) -> Fault | None:
        """What goes wrong with this call, if anything does."""
        self.calls.append(operation)
        for one in self.faults:
            if one.operation in ("*", operation):
                one.times -= 1
                if one.times <= 0:
                    self.faults.remove(one)
                return one
        if self.random.random() < self.flaky:
            return self.random.choice(
                [
                    Fault(operation, "ThrottlingException"),
                    Fault(operation, "InternalFailure", status=500),
                    Fault(operation, happens=True),
                ]
            )
        return None


@contextmanager
def aws_server(images: Path | None = None) -> Iterator[AwsServer]:
    """Start it; everything in it is gone at the end.

    Args:
        images: the data folder of the real registry that stands in for ECR's, so that a tag that is
            deleted by ECR's own call is gone there, too.
    """
    world = EcsWorld()
    aws = AwsServer(url="", ecs=world)
    moto = DomainDispatcherApplication(create_backend_app)
    with _extended(world, images):
        server = make_server(
            "127.0.0.1",
            0,
            _with_faults(moto, aws),
            threaded=True,
            request_handler=_Handler,
        )
        thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
        thread.start()
        aws.url = world.url = f"http://127.0.0.1:{server.server_port}"
        try:
            yield aws
        finally:
            server.shutdown()
            thread.join()
            server.server_close()
            world.close()
            for backend in (
                "ecs",
                "ecr",
                "efs",
                "ec2",
                "elbv2",
                "logs",
                "secretsmanager",
                "iam",
                "s3",
            ):
                _backends(backend).reset()


class _Handler(MotoRequestHandler):
    protocol_version = "HTTP/1.1"

    def log(self, type: str, message: str, *args: Any) -> None:
        """Not in a test's output."""


def _with_faults(app: Any, aws: AwsServer) -> Callable[..., Iterable[bytes]]:
    def serve(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        body = environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
        environ["wsgi.input"] = BytesIO(body)
        operation = _operation(environ, body)
        aws.permissions |= {permission_of(environ, operation)} - {""}
        fault = aws.fault(operation)
        if fault is None:
            return app(environ, start_response)  # type: ignore[no-any-return]
        if fault.happens:
            list(app(environ, lambda *_: None))
            environ["werkzeug.socket"].shutdown(socket.SHUT_RDWR)
            raise ConnectionResetError
        return _refusal(fault, environ, start_response)

    return serve


def _operation(environ: dict[str, Any], body: bytes) -> str:
    """The operation's name, wherever the service's protocol puts it."""
    if target := environ.get("HTTP_X_AMZ_TARGET"):
        return str(target).rsplit(".", 1)[-1]
    if b"Action=" in body:
        return parse_qs(body.decode())["Action"][0]
    return f"{environ['REQUEST_METHOD']} {environ['PATH_INFO']}"


def _refusal(fault: Fault, environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
    message = f"{fault.code} was injected"
    if environ.get("CONTENT_TYPE", "").startswith("application/x-www-form-urlencoded"):
        kind = "text/xml"
        text = (
            f"<ErrorResponse><Error><Code>{fault.code}</Code><Message>{message}</Message></Error>"
            "<RequestId>request-1</RequestId></ErrorResponse>"
        )
    else:
        kind = "application/x-amz-json-1.1"
        text = json.dumps({"__type": fault.code, "message": message})
    headers = [
        ("Content-Type", kind),
        ("Content-Length", str(len(text))),
        ("x-amzn-RequestId", "request-1"),
        ("x-amzn-ErrorType", fault.code),
    ]
    start_response(f"{fault.status} Refused", headers)
    return [text.encode()]


@contextmanager
def _extended(world: EcsWorld, images: Path | None) -> Iterator[None]:
    """Put the world's calls, and what else moto gets wrong, in place of moto's."""
    names = (
        "create_service", "update_service", "delete_service", "describe_services",
        "list_service_deployments", "describe_service_deployments", "describe_service_revisions",
        "list_tasks", "describe_tasks",
    )  # fmt: skip
    changes: dict[tuple[type[BaseResponse], str], Any] = {
        (EC2ContainerServiceResponse, name): _call(world, name) for name in names
    }
    tag = EC2ContainerServiceResponse.tag_resource

    def tag_resource(self: EC2ContainerServiceResponse) -> Any:
        with world.lock:
            given = self._get_params()
            ours = ":service/" in given["resourceArn"]
            return ActionResult(world.tag_resource(given)) if ours else tag(self)

    authorize = ECRResponse.get_authorization_token

    def get_authorization_token(self: ECRResponse) -> Any:
        found: Any = authorize(self).result
        found["authorizationData"][0]["expiresAt"] = _now() + timedelta(hours=12)
        return ActionResult(found)

    find_events = LogsResponse.filter_log_events

    def filter_log_events(self: LogsResponse) -> Any:
        prefix = self._get_param("logStreamNamePrefix")
        group = self.logs_backend.groups.get(self._get_param("logGroupName"))
        if prefix and group:
            names = [name for name in group.streams if name.startswith(prefix)]
            self.body = json.dumps({**json.loads(self.body), "logStreamNames": names or ["none"]})
        return find_events(self)

    delete = ECRResponse.batch_delete_image

    def batch_delete_image(self: ECRResponse) -> Any:
        if images is None:
            return delete(self)
        folder = images / "docker/registry/v2/repositories" / self._get_param("repositoryName")
        for one in self._get_param("imageIds"):
            shutil.rmtree(folder / "_manifests/tags" / one["imageTag"], ignore_errors=True)
        return ActionResult({"imageIds": self._get_param("imageIds"), "failures": []})

    create = EFSResponse.create_access_point

    def create_access_point(self: EFSResponse) -> Any:
        points = self.efs_backend.access_points.values()
        if any(one.client_token == self._get_param("ClientToken") for one in points):
            raise _AccessPointExists("AccessPointAlreadyExists", "it is there already")
        return create(self)

    changes |= {
        (EC2ContainerServiceResponse, "tag_resource"): tag_resource,
        (ECRResponse, "get_authorization_token"): get_authorization_token,
        (ECRResponse, "batch_delete_image"): batch_delete_image,
        (LogsResponse, "filter_log_events"): filter_log_events,
        (EFSResponse, "create_access_point"): create_access_point,
        (IamResponse, "simulate_principal_policy"): simulate_principal_policy,
    }
    before = {(cls, name): cls.__dict__.get(name) for cls, name in changes}
    for (cls, name), change in changes.items():
        setattr(cls, name, change)
    try:
        yield
    finally:
        for (cls, name), was in before.items():
            if was is None:
                delattr(cls, name)
            else:
                setattr(cls, name, was)


class _AccessPointExists(EFSError):
    code = 409


def _call(world: EcsWorld, name: str) -> Callable[[EC2ContainerServiceResponse], ActionResult]:
    def respond(self: EC2ContainerServiceResponse) -> ActionResult:
        with world.lock:
            world.tick()
            answer = getattr(world, name)(self.ecs_backend, self._get_params())
            return ActionResult(answer)

    return respond


def _environment(container: dict[str, Any]) -> dict[str, str]:
    return {one["name"]: one["value"] for one in container.get("environment", ())}


def _secret(value_from: str) -> str | None:
    """What a reference to a key of a secret leads to; None if nowhere."""
    found = re.fullmatch(r"(arn:aws:secretsmanager:[^:]+:[^:]+:secret:[^:]+):([^:]*)::", value_from)
    if found is None:
        return None
    for secret in _backend("secretsmanager").secrets.values():
        if secret.arn == found[1]:
            text = secret.versions[secret.default_version_id]["secret_string"]
            return cast("str | None", json.loads(text).get(found[2]))
    return None


def _backends(service: str) -> BackendDict[Any]:
    return get_backend(service)  # type: ignore[arg-type]


def _backend(service: str) -> Any:
    return _backends(service)[ACCOUNT][REGION]


def _now() -> datetime:
    return datetime.now(UTC)
