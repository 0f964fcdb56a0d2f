"""A stand-in for Google Cloud: real gRPC on loopback, state, and faults on demand.

    with FakeGcp() as cloud:
        cloud.endpoint                            # http://127.0.0.1:40123
        cloud.faults.next("UNAVAILABLE", lost=True)   # done, but the answer does not arrive

Requests and answers go through the SDK's own messages, so that a field which does not exist cannot
be asked for. The services keep the rules that their descriptions state (see `tests.fakes.gcp_run`).
"""

from __future__ import annotations

import random
import re
import threading
import time
import uuid
from collections.abc import Callable
from concurrent import futures
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, NoReturn

import grpc
from google.cloud import artifactregistry_v1 as ar
from google.cloud import secretmanager_v1 as sm
from google.cloud.logging_v2 import types as logging_types
from google.longrunning import operations_pb2
from google.protobuf import empty_pb2
from grpc_status import rpc_status

from tests.fakes.gcp_refused import Refused
from tests.fakes.gcp_run import CloudRun
from tests.fakes.gcp_web import Web


@dataclass
class Fault:
    """What happens to one call instead."""

    refusal: Refused
    method: str
    """Only calls of this method; any if empty."""
    lost: bool
    """The call is carried out, and only its answer is lost."""


@dataclass
class Faults:
    """What goes wrong."""

    rate: float = 0.0
    """The share of all calls that fail; half of them after they were carried out."""
    seed: int = 1
    queue: list[Fault] = field(default_factory=list)
    injected: list[str] = field(default_factory=list)
    """What went wrong at random so far."""

    def __post_init__(self) -> None:
        self._random = random.Random(self.seed)

    def next(
        self,
        code: str,
        message: str = "injected",
        *,
        times: int = 1,
        method: str = "",
        lost: bool = False,
        **about: Any,
    ) -> None:
        """Let the next calls fail."""
        self.queue += [Fault(Refused(code, message, **about), method, lost)] * times

    def take(self, method: str) -> Fault | None:
        """The fault of this call, if it has one."""
        for fault in self.queue:
            if fault.method in ("", method):
                self.queue.remove(fault)
                return fault
        if self._random.random() < self.rate:
            lost = self._random.random() < 0.5
            code = self._random.choice(("UNAVAILABLE", "INTERNAL", "ABORTED", "DEADLINE_EXCEEDED"))
            self.injected.append(f"{'lost ' if lost else ''}{code} {method}")
            return Fault(Refused(code, "injected at random"), method, lost)
        return None


@dataclass
class Change:
    """A long-running operation."""

    due: float
    finish: Callable[[], Any]
    """Carries it out. Returns what it made, or raises `Refused`."""
    operation: operations_pb2.Operation


class FakeGcp:
    """All the services on one port, and a web server for the addresses they hand out."""

    def __init__(self, *, seconds: float = 0.05) -> None:
        self.seconds = seconds
        """How long each change takes."""
        self.faults = Faults()
        self.calls: list[str] = []
        """The method of each call."""
        self.repositories: dict[str, ar.Repository] = {}
        self.secrets: dict[str, sm.Secret] = {}
        self.versions: dict[str, list[tuple[sm.SecretVersion, bytes]]] = {}
        self.entries: list[logging_types.LogEntry] = []
        self.denied: set[str] = set()
        """Permissions that the caller lacks."""
        self.lock = threading.RLock()
        self.run = CloudRun(self)
        self.web = Web(self)
        self._changes: dict[str, Change] = {}

    def __enter__(self) -> FakeGcp:
        self._server = grpc.server(futures.ThreadPoolExecutor(4))
        self._server.add_generic_rpc_handlers(self._handlers())
        port = self._server.add_insecure_port("127.0.0.1:0")
        self._server.start()
        self.endpoint = f"http://127.0.0.1:{port}"
        self.web.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.stop(0).wait()
        self.web.stop()

    # Changes that take a while --------------------------------------------------------------------

    def begin(self, where: str, finish: Callable[[], Any]) -> operations_pb2.Operation:
        """Begin a change. It is carried out when it is due and somebody looks."""
        name = f"{where}/operations/{uuid.uuid4()}"
        operation = operations_pb2.Operation(name=name)
        self._changes[name] = Change(time.monotonic() + self.seconds, finish, operation)
        return operation

    def advance(self) -> None:
        """Carry out what is due."""
        for change in self._changes.values():
            if change.operation.done or change.due > time.monotonic():
                continue
            change.operation.done = True
            try:
                made = change.finish()
            except Refused as refused:
                change.operation.error.CopyFrom(refused.status)
            else:
                change.operation.response.Pack(_pb(made))

    def forget_operations(self) -> None:
        """As Google does after a while."""
        self._changes = {name: one for name, one in self._changes.items() if not one.operation.done}

    def log(self, service: str, revision: str, text: str) -> None:
        """Write an entry as a container does."""
        labels = {"service_name": service, "revision_name": revision}
        self.entries.append(
            logging_types.LogEntry(
                insert_id=f"{len(self.entries):08}",
                timestamp=datetime.now(UTC),
                text_payload=text,
                resource={"type": "cloud_run_revision", "labels": labels},
            )
        )

    # gRPC -----------------------------------------------------------------------------------------

    def _handlers(self) -> list[grpc.GenericRpcHandler]:
        lro = operations_pb2.Operation
        services: dict[str, dict[str, tuple[Callable[[Any], Any], Any, Any]]] = {
            **self.run.methods(),
            "google.longrunning.Operations": {
                "GetOperation": (self._operation, operations_pb2.GetOperationRequest, lro)
            },
            "google.devtools.artifactregistry.v1.ArtifactRegistry": {
                "GetRepository": (self._get_repository, ar.GetRepositoryRequest, ar.Repository),
                "CreateRepository": (self._create_repository, ar.CreateRepositoryRequest, lro),
            },
            "google.cloud.secretmanager.v1.SecretManagerService": {
                "CreateSecret": (self._create_secret, sm.CreateSecretRequest, sm.Secret),
                "AddSecretVersion": (
                    self._add_version, sm.AddSecretVersionRequest, sm.SecretVersion,
                ),
                "AccessSecretVersion": (
                    self._access_version,
                    sm.AccessSecretVersionRequest,
                    sm.AccessSecretVersionResponse,
                ),
                "ListSecrets": (self._list_secrets, sm.ListSecretsRequest, sm.ListSecretsResponse),
                "ListSecretVersions": (
                    self._list_versions,
                    sm.ListSecretVersionsRequest,
                    sm.ListSecretVersionsResponse,
                ),
                "DestroySecretVersion": (
                    self._destroy_version, sm.DestroySecretVersionRequest, sm.SecretVersion,
                ),
                "DeleteSecret": (self._delete_secret, sm.DeleteSecretRequest, empty_pb2.Empty),
            },
            "google.logging.v2.LoggingServiceV2": {
                "ListLogEntries": (
                    self._list_entries,
                    logging_types.ListLogEntriesRequest,
                    logging_types.ListLogEntriesResponse,
                )
            },
        }  # fmt: skip
        return [
            grpc.method_handlers_generic_handler(
                service, {name: self._method(name, *row) for name, row in methods.items()}
            )
            for service, methods in services.items()
        ]

    def _method(
        self, name: str, work: Callable[[Any], Any], request: Any, response: Any
    ) -> grpc.RpcMethodHandler:
        def call(given: Any, context: grpc.ServicerContext) -> Any:
            with self.lock:
                self.calls.append(name)
                fault = self.faults.take(name)
                if fault is not None and not fault.lost:
                    _abort(context, fault.refusal)
                self.advance()
                try:
                    answer = work(given)
                except Refused as refused:
                    _abort(context, refused)
            if fault is not None:
                _abort(context, fault.refusal)
            return answer

        read = getattr(request, "deserialize", None) or request.FromString
        write = getattr(response, "serialize", None) or response.SerializeToString
        return grpc.unary_unary_rpc_method_handler(
            call, request_deserializer=read, response_serializer=write
        )

    def _operation(self, given: Any) -> Any:
        if given.name not in self._changes:
            raise Refused("NOT_FOUND", f"no operation {given.name}")
        return self._changes[given.name].operation

    # Artifact Registry ----------------------------------------------------------------------------

    def _get_repository(self, given: ar.GetRepositoryRequest) -> ar.Repository:
        if given.name not in self.repositories:
            raise Refused("NOT_FOUND", f"Requested entity was not found: {given.name}")
        return self.repositories[given.name]

    def _create_repository(self, given: ar.CreateRepositoryRequest) -> Any:
        name = f"{given.parent}/repositories/{given.repository_id}"
        if "artifactregistry.repositories.create" in self.denied:
            raise Refused(
                "PERMISSION_DENIED",
                f"Permission 'artifactregistry.repositories.create' denied on {given.parent}",
                "IAM_PERMISSION_DENIED",
            )
        if name in self.repositories:
            raise Refused("ALREADY_EXISTS", "the repository already exists")
        made = ar.Repository(given.repository)
        made.name = name

        def finish() -> ar.Repository:
            return self.repositories.setdefault(name, made)

        return self.begin(given.parent, finish)

    # Secret Manager -------------------------------------------------------------------------------

    def _create_secret(self, given: sm.CreateSecretRequest) -> sm.Secret:
        name = f"{given.parent}/secrets/{given.secret_id}"
        if not re.fullmatch(r"[A-Za-z0-9_-]{1,255}", given.secret_id):
            raise Refused("INVALID_ARGUMENT", f"bad secret id {given.secret_id}")
        if not sm.Replication.pb(given.secret.replication).WhichOneof("replication"):
            raise Refused("INVALID_ARGUMENT", "replication is required")
        if name in self.secrets:
            raise Refused("ALREADY_EXISTS", f"Secret [{name}] already exists.")
        made = sm.Secret(given.secret)
        made.name = name
        self.secrets[name], self.versions[name] = made, []
        return made

    def _add_version(self, given: sm.AddSecretVersionRequest) -> sm.SecretVersion:
        if given.parent not in self.secrets:
            raise Refused("NOT_FOUND", f"Secret [{given.parent}] not found.")
        known = self.versions[given.parent]
        made = sm.SecretVersion(
            name=f"{given.parent}/versions/{len(known) + 1}", state=sm.SecretVersion.State.ENABLED
        )
        known.append((made, given.payload.data))
        return made

    def _access_version(
        self, given: sm.AccessSecretVersionRequest
    ) -> sm.AccessSecretVersionResponse:
        version, data = self._version(given.name)
        if version.state != sm.SecretVersion.State.ENABLED:
            raise Refused("FAILED_PRECONDITION", f"{version.name} is in DESTROYED state.")
        return sm.AccessSecretVersionResponse(
            name=version.name, payload=sm.SecretPayload(data=data)
        )

    def secret(self, name: str) -> str:
        """The value of a version, as a container has it."""
        return self._version(name)[1].decode()

    def _version(self, name: str) -> tuple[sm.SecretVersion, bytes]:
        secret, _, number = name.partition("/versions/")
        known = self.versions.get(secret, [])
        place = len(known) if number == "latest" else int(number)
        if not 1 <= place <= len(known):
            raise Refused("NOT_FOUND", f"{name} was not found")
        return known[place - 1]

    def _list_secrets(self, given: sm.ListSecretsRequest) -> sm.ListSecretsResponse:
        key, _, value = given.filter.removeprefix("labels.").partition("=")
        found = [one for one in self.secrets.values() if one.labels.get(key) == value]
        return sm.ListSecretsResponse(secrets=found)

    def _list_versions(self, given: sm.ListSecretVersionsRequest) -> sm.ListSecretVersionsResponse:
        assert given.filter == "state:ENABLED"
        known = [version for version, _ in self.versions[given.parent]]
        enabled = [one for one in known if one.state == sm.SecretVersion.State.ENABLED]
        return sm.ListSecretVersionsResponse(versions=enabled)

    def _destroy_version(self, given: sm.DestroySecretVersionRequest) -> sm.SecretVersion:
        version, _ = self._version(given.name)
        version.state = sm.SecretVersion.State.DESTROYED
        return version

    def _delete_secret(self, given: sm.DeleteSecretRequest) -> empty_pb2.Empty:
        if given.name not in self.secrets:
            raise Refused("NOT_FOUND", f"{given.name} was not found")
        del self.secrets[given.name], self.versions[given.name]
        return empty_pb2.Empty()

    # Logging --------------------------------------------------------------------------------------

    def _list_entries(
        self, given: logging_types.ListLogEntriesRequest
    ) -> logging_types.ListLogEntriesResponse:
        wanted = dict(re.findall(r'([\w.]+)="([^"]*)"', given.filter))
        since = re.search(r'timestamp>="([^"]+)"', given.filter)
        start = datetime.fromisoformat(since[1]) if since else datetime.min.replace(tzinfo=UTC)
        found = [
            one
            for one in self.entries
            if one.timestamp >= start
            and all(
                one.resource.labels[label] == wanted[f"resource.labels.{label}"]
                for label in ("service_name", "revision_name")
                if f"resource.labels.{label}" in wanted
            )
        ]
        if given.order_by == "timestamp desc":
            found.reverse()
        offset = int(given.page_token or 0)
        end = offset + (given.page_size or 50)
        return logging_types.ListLogEntriesResponse(
            entries=found[offset:end], next_page_token=str(end) if end < len(found) else ""
        )


def _pb(message: Any) -> Any:
    """The protobuf inside one of the SDK's messages."""
    return type(message).pb(message) if hasattr(type(message), "pb") else message


def _abort(context: grpc.ServicerContext, refused: Refused) -> NoReturn:
    context.abort_with_status(rpc_status.to_status(refused.status))
    raise AssertionError("not reached")
