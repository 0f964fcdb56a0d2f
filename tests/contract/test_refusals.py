"""What each vendor's refusals become: one table a kind, one test for all.

A server that refuses everything stands where the vendor would, and answers in the vendor's own
form, the id of the request included. What comes out of the public method must be of the right
class, say what to type or to change, and carry that id as far as the person's screen.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from google.cloud import artifactregistry_v1 as artifactregistry
from pydantic import JsonValue, SecretStr

from cli.output import problem
from model import errors
from model.artifact import Artifact, Image
from model.errors import (
    AuthExpired,
    Busy,
    ConfigurationError,
    Conflict,
    HelixError,
    NotFound,
    PermissionDenied,
    PlatformUnhealthy,
    QuotaExceeded,
    Throttled,
    Transient,
)
from model.instance import BuildSettings, Instance, ObjectStorage, RegistryTarget, Target
from model.platform import Release
from providers.base import CloudProvider, Context
from providers.catalog import PROVIDERS
from registries.base import Registry, RegistryContext
from registries.catalog import REGISTRIES
from tests.fakes.aws import aws_server
from tests.fakes.azure import GROUP, IDENTITY, LOCATION, SUBSCRIPTION, FakeAzure
from tests.fakes.gcp import FakeGcp
from tests.fakes.refusing import Refusing, refusing

ID = "request-0815"
"""What the vendor calls the request."""
MUST_HAVE = {Throttled, AuthExpired, QuotaExceeded, PermissionDenied, NotFound, Conflict, Transient}
"""Every kind's table has a row for each of them, or says why not in `never`."""


@dataclass(frozen=True)
class Row:
    """One refusal."""

    cls: type[HelixError]
    status: int | str
    """Of HTTP, or gRPC's code."""
    code: str
    message: str
    hint: str
    """What must be in the hint: the permission, the quota, the command."""
    ask: str = "current"
    """The public method that meets it."""


@dataclass(frozen=True)
class Kind:
    """How a vendor says no, and what it says."""

    rows: tuple[Row, ...]
    body: Callable[[Row], Any] = lambda row: {"message": row.message}
    header: str = ""
    """The one that names the request; empty if the vendor has none."""
    never: Mapping[type[HelixError], str] = field(default_factory=dict)
    """A class that the vendor has no answer for, and why."""


def _grpc(row: Row) -> Any:
    return {"message": row.message, "reason": row.code}


def _kubernetes(row: Row) -> Any:
    about = {"kind": "Status", "apiVersion": "v1", "status": "Failure"}
    return about | {"reason": row.code, "message": row.message, "code": row.status}


PROVIDER_ROWS: dict[str, Kind] = {
    "aws": Kind(
        header="x-amzn-RequestId",
        body=lambda row: {"__type": row.code, "message": row.message},
        rows=(
            Row(Throttled, 400, "ThrottlingException", "Rate exceeded", "tried again"),
            Row(AuthExpired, 400, "ExpiredTokenException", "it is expired", "aws sso login"),
            Row(QuotaExceeded, 400, "LimitExceededException", "services per cluster", "Quotas"),
            Row(PermissionDenied, 400, "AccessDeniedException", "not authorized",
                "ecs:DescribeServices"),
            Row(NotFound, 400, "ClusterNotFoundException", "Cluster not found.", "cluster",
                ask="start"),
            Row(Conflict, 400, "ResourceExistsException", "it exists", "remove it"),
            Row(Busy, 400, "UpdateInProgressException", "an update is running", "tried again"),
            Row(ConfigurationError, 400, "InvalidParameterException", "bad subnet",
                "docs/providers/aws.md"),
            Row(Transient, 500, "ServerException", "Service Unavailable", "health.aws.amazon.com"),
        ),
    ),
    "azure": Kind(
        header="x-ms-correlation-request-id",
        body=lambda row: {"error": {"code": row.code, "message": row.message}},
        rows=(
            Row(Throttled, 429, "TooManyRequests", "too many", "tried again"),
            Row(AuthExpired, 401, "ExpiredAuthenticationToken", "the token expired", "az login"),
            Row(QuotaExceeded, 400, "QuotaExceeded", "cores of the region", "Usage + quotas"),
            Row(PermissionDenied, 403, "AuthorizationFailed",
                "does not have authorization to perform action 'Microsoft.App/containerApps/read'",
                "Microsoft.App/containerApps/read"),
            Row(NotFound, 404, "ResourceGroupNotFound", "no such group", "az group create",
                ask="logs"),
            Row(Conflict, 409, "ContainerAppAlreadyExists", "it exists", "rename"),
            Row(Busy, 409, "ContainerAppOperationInProgress", "in progress", "tried again"),
            Row(ConfigurationError, 400, "InvalidResource", "bad value", "docs/providers/azure.md"),
            Row(Transient, 500, "InternalServerError", "broken", "azure.status.microsoft"),
        ),
    ),
    "gcp": Kind(
        header="RequestInfo",
        body=_grpc,
        rows=(
            Row(Throttled, "RESOURCE_EXHAUSTED", "RATE_LIMIT_EXCEEDED", "too many", "tried again"),
            Row(AuthExpired, "UNAUTHENTICATED", "ACCESS_TOKEN_EXPIRED", "expired",
                "gcloud auth application-default login"),
            Row(QuotaExceeded, "RESOURCE_EXHAUSTED", "RESOURCE_QUOTA_EXCEEDED",
                "total allowable CPU per project per region", "«Quotas»"),
            Row(PermissionDenied, "PERMISSION_DENIED", "IAM_PERMISSION_DENIED",
                "Permission 'run.services.get' denied", "run.services.get"),
            Row(NotFound, "NOT_FOUND", "", "no such project", "project_id", ask="start"),
            Row(Conflict, "ALREADY_EXISTS", "", "it exists", "rename"),
            Row(Busy, "ABORTED", "", "version mismatch", "tried again"),
            Row(ConfigurationError, "INVALID_ARGUMENT", "", "bad", "docs/providers/gcp.md"),
            Row(Transient, "UNAVAILABLE", "", "try later", "status.cloud.google.com"),
            Row(PlatformUnhealthy, "DATA_LOSS", "", "lost", "status.cloud.google.com"),
        ),
    ),
    "fly": Kind(
        header="fly-request-id",
        body=lambda row: {"error": row.message, "status": row.code},
        rows=(
            Row(Throttled, 429, "", "rate limit exceeded", "tried again"),
            Row(AuthExpired, 401, "", "token has expired", "fly tokens create deploy"),
            Row(QuotaExceeded, 422, "", "organization limit of machines reached", "higher limit"),
            Row(PermissionDenied, 403, "", "unauthorized", "fly tokens create deploy"),
            Row(NotFound, 404, "", "app not found", "helix push", ask="start"),
            Row(Conflict, 422, "", "name has already been taken", "already"),
            Row(Busy, 409, "", "lease is held", "lease"),
            Row(ConfigurationError, 400, "", "bad region", "[cloud.<instance>.fly]"),
            Row(Transient, 503, "", "unavailable", "status.flyio.net"),
        ),
    ),
    "helix": Kind(
        header="x-request-id",
        body=lambda row: row.message,
        rows=(
            Row(Throttled, 429, "", "too many", "tried again"),
            Row(AuthExpired, 401, "", "key expired", "helix auth login"),
            Row(QuotaExceeded, 402, "", "plan limit", "billing"),
            Row(PermissionDenied, 403, "", "no access", "workspace's owner"),
            Row(NotFound, 404, "", "no such cluster", "cluster_id", ask="logs"),
            Row(Busy, 409, "", "a deployment is running", "another deployment"),
            Row(ConfigurationError, 413, "", "too large", "20 MiB"),
            Row(Transient, 503, "", "unavailable", "tried again"),
        ),
        never={Conflict: "it knows no names: 409 is a deployment that goes on"},
    ),
    "kubernetes": Kind(
        header="audit-id",
        body=_kubernetes,
        rows=(
            Row(Throttled, 429, "TooManyRequests", "too many", "tried again"),
            Row(AuthExpired, 401, "Unauthorized", "Unauthorized", "kubectl auth whoami"),
            Row(QuotaExceeded, 403, "Forbidden", "exceeded quota: shop", "ResourceQuota"),
            Row(PermissionDenied, 403, "Forbidden",
                'services is forbidden: User "ada" cannot list resource "services" in API group ""'
                ' in the namespace "shop"', "allow ada to list services in the namespace shop"),
            Row(NotFound, 404, "NotFound", "the server could not find it", "namespace",
                ask="start"),
            Row(Conflict, 409, "AlreadyExists", "it exists", "rename"),
            Row(Busy, 409, "Conflict", "the object has been modified", "tried again"),
            Row(ConfigurationError, 422, "Invalid", "spec.x: Invalid value",
                "docs/providers/kubernetes.md"),
            Row(Transient, 500, "InternalError", "etcd is down", "kubectl get --raw"),
        ),
    ),
    "docker": Kind(
        rows=(
            Row(PermissionDenied, 403, "", "authorization denied by plugin", "authorization"),
            Row(QuotaExceeded, 500, "", "non-overlapping IPv4 address pool among the defaults",
                "docker network prune"),
            Row(NotFound, 404, "", "no such thing", "helix doctor"),
            Row(Conflict, 409, "", "port is already allocated", "free the port"),
            Row(ConfigurationError, 400, "", "invalid mount config", "volumes"),
            Row(PlatformUnhealthy, 500, "", "write: no space left on device", "docker system df"),
            Row(Transient, 500, "", "context deadline exceeded", "helix doctor"),
        ),
        never={
            Throttled: "an engine does not ask for fewer calls",
            AuthExpired: "it knows certificates and sockets, whose end is the connection's own",
        },
    ),
    "swarm": Kind(
        rows=(
            Row(PermissionDenied, 403, "", "authorization denied by plugin", "authorization"),
            Row(NotFound, 404, "", "network x not found", "docker network create",
                ask="start"),
            Row(Conflict, 409, "", "port '80' is already in use by service 'x'", "publish"),
            Row(Busy, 500, "", "rpc error: code = Unknown desc = update out of sequence", "again"),
            Row(ConfigurationError, 503, "", "This node is not a swarm manager.", "docker node ls"),
            Row(PlatformUnhealthy, 500, "", "The swarm does not have a leader", "docker node ls"),
            Row(Transient, 500, "", "rpc error: code = Unavailable", "docker node ls"),
        ),
        never={
            Throttled: "an engine does not ask for fewer calls",
            AuthExpired: "it knows certificates and sockets, whose end is the connection's own",
            QuotaExceeded: "a task says so, and not the API: see the swarm's own tests",
        },
    ),
}  # fmt: skip

EMPTY = f"sha256:{hashlib.sha256(b'{}').hexdigest()}"
"""The manifest that there is."""


def _registry(header: str, denied: str) -> Kind:
    """What the distribution API says, whoever's registry it is."""
    rows = {
        "throttled": Row(Throttled, 429, "TOOMANYREQUESTS", "rate limit", "wait", ask="find"),
        "quota": Row(QuotaExceeded, 403, "QUOTA_EXCEEDED", "disk quota of acme", "free", ask="tag"),
        "denied": Row(
            PermissionDenied, 403, "DENIED", "requested access is denied", denied,
            ask="authenticate",
        ),
        "missing": Row(NotFound, 404, "MANIFEST_UNKNOWN", "unknown", "push", ask="tag"),
        "conflict": Row(Conflict, 409, "TAG_INVALID", "immutable", "another tag", ask="tag"),
        "refused": Row(ConfigurationError, 405, "UNSUPPORTED", "no", "does not offer", ask="tag"),
        "expired": Row(
            AuthExpired, 401, "UNAUTHORIZED", "authentication required", "log in again",
            ask="find, again",
        ),
        "broken": Row(Transient, 503, "UNAVAILABLE", "later", "tried again", ask="find"),
    }  # fmt: skip
    return Kind(
        header=header,
        body=lambda row: {"errors": [{"code": row.code, "message": row.message}]},
        rows=tuple(rows.values()),
    )


REGISTRY_ROWS: dict[str, Kind] = {
    "oci": _registry("x-request-id", "docker login"),
    "ghcr": _registry("x-github-request-id", "write:packages"),
    "docker_hub": _registry("docker-request-id", "Read & Write"),
    "ecr": _registry("x-amzn-requestid", "ecr:PutImage"),
    "gar": _registry("x-request-id", "roles/artifactregistry.writer"),
    "acr": _registry("x-ms-correlation-request-id", "AcrPush"),
    "fly": _registry("fly-request-id", "fly tokens create deploy"),
}


def _xml(row: Row) -> str:
    return f"<Error><Code>{row.code}</Code><Message>{row.message}</Message></Error>"


def _google(row: Row) -> Any:
    return {"error": {"code": row.status, "message": row.message, "errors": []}}


BUCKET_ROWS: dict[str, Kind] = {
    "aws": Kind(
        header="x-amz-request-id",
        body=_xml,
        rows=(
            Row(Throttled, 503, "SlowDown", "Please reduce your request rate.", "tried again"),
            Row(AuthExpired, 400, "ExpiredToken", "it is expired", "aws sso login"),
            Row(QuotaExceeded, 400, "TooManyBuckets", "more buckets than allowed", "Quotas"),
            Row(PermissionDenied, 403, "AccessDenied", "Access Denied", "s3:CreateBucket"),
            Row(Transient, 500, "InternalError", "an internal error", "health.aws.amazon.com"),
        ),
    ),
    "gcp": Kind(
        header="x-guploader-uploadid",
        body=_google,
        rows=(
            Row(Throttled, 429, "", "too many requests", "tried again"),
            Row(PermissionDenied, 403, "", "does not have storage.buckets.create access",
                "storage.buckets.create"),
            Row(ConfigurationError, 400, "", "Invalid bucket name", "docs/providers/gcp.md"),
            Row(Transient, 503, "", "Backend Error", "status.cloud.google.com"),
        ),
    ),
}  # fmt: skip


# --- where the vendor would be --------------------------------------------------------------------


def _secret(reference: str) -> SecretStr:
    return SecretStr("canary-secret")


@dataclass
class Seat:
    """A kind, opened where everything is refused."""

    open: Callable[[], Any]
    """A new provider or registry."""
    says: Callable[[Row], None]
    """What is answered from now on."""


def _served(server: Refusing, kind: Kind) -> Callable[[Row], None]:
    def says(row: Row) -> None:
        assert isinstance(row.status, int)
        body = kind.body(row)
        text = body if isinstance(body, str) else json.dumps(body)
        server.only = "PUT" if row.ask == "tag" and row.cls is not NotFound else ""
        server.status, server.body = row.status, text.encode()
        server.headers = {"content-type": "application/json"}
        server.lets_in = int(row.ask == "find, again")
        if kind.header:
            server.headers[kind.header] = ID

    return says


def _provider(kind: str, **settings: JsonValue) -> Callable[[], CloudProvider]:
    instance = Instance(
        project="shop",
        name="prod",
        target=Target(kind=kind, settings=settings),
        build=BuildSettings(kind="image", image="nginx"),
    )
    return lambda: PROVIDERS.load(kind)(instance, Context(secret=_secret))


@contextmanager
def bucket_seat(name: str, kind: Kind, patch: pytest.MonkeyPatch) -> Iterator[Seat]:
    """The object storage of a kind's own cloud, in which no bucket may be made."""
    with refusing() as server:
        address = f"http://{server.host}"
        for variable in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
            patch.setenv(variable, "canary")
        patch.setenv("STORAGE_EMULATOR_HOST", address)
        settings: dict[str, JsonValue] = {"region": "eu-west-1", "endpoint_url": address}
        if name == "gcp":
            settings = {"project_id": "acme", "region": "europe-west1", "endpoint": address}
        open_provider = _provider(name, **settings)

        def opened() -> CloudProvider:
            found = open_provider()
            storage = ObjectStorage(bucket="acme-data", region="eu-west-1")
            found.instance = found.instance.model_copy(update={"object_storage": storage})
            return found

        yield Seat(opened, _served(server, kind))


def _registry_at(kind: str, repository: str, **settings: JsonValue) -> Callable[[], Registry]:
    target = RegistryTarget(kind=kind, repository=repository, settings=settings)
    return lambda: REGISTRIES.load(kind)(target, RegistryContext(secret=_secret))


GAR = "projects/acme/locations/europe-west1/repositories/helix"
KUBECONFIG = """
apiVersion: v1
kind: Config
clusters: [{name: c, cluster: {server: "%s"}}]
users: [{name: u, user: {token: canary}}]
contexts: [{name: x, context: {cluster: c, user: u, namespace: shop}}]
current-context: x
"""
ENGINE = b'{"ApiVersion": "1.41", "Version": "20.10"}'


@contextmanager
def provider_seat(name: str, kind: Kind, folder: Path, patch: pytest.MonkeyPatch) -> Iterator[Seat]:
    """A kind that runs releases."""
    if name == "gcp":
        with FakeGcp() as cloud:

            def says(row: Row) -> None:
                cloud.faults.queue.clear()
                cloud.faults.next(str(row.status), row.message, times=50, reason=row.code, id=ID)

            settings = {"project_id": "acme", "region": "europe-west1", "endpoint": cloud.endpoint}
            yield Seat(_provider("gcp", **settings), says)
        return
    if name == "azure":
        with FakeAzure(folder) as azure, refusing(azure.certificates) as server:
            for variable, value in azure.env.items():
                patch.setenv(variable, value)
            yield Seat(
                _provider(
                    "azure",
                    subscription_id=SUBSCRIPTION,
                    resource_group=GROUP,
                    location=LOCATION,
                    identity=IDENTITY,
                    endpoint=f"https://{server.host}",
                ),
                _served(server, kind),
            )
        return
    with refusing() as server:
        address = f"http://{server.host}"
        server.admits = {"/version": ENGINE, "/_ping": b"OK"}
        for variable in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "FLY_API_TOKEN"):
            patch.setenv(variable, "canary")
        for variable in ("FLY_FLAPS_BASE_URL", "FLY_API_BASE_URL"):
            patch.setenv(variable, address)
        kubeconfig = folder / "kubeconfig"
        kubeconfig.write_text(KUBECONFIG % address)
        settings_of: dict[str, dict[str, JsonValue]] = {
            "aws": {"region": "eu-west-1", "cluster": "main", "endpoint_url": address},
            "fly": {"vm_size": "shared-cpu-4x", "auth_type": "ApiKey", "volume_initial_size": 1},
            "helix": {"cluster_id": "c1", "endpoint": address, "token": "env:KEY"},
            "kubernetes": {"kubeconfig": str(kubeconfig), "namespace": "shop"},
            "docker": {"host": f"tcp://{server.host}"},
            "swarm": {"host": f"tcp://{server.host}"},
        }
        yield Seat(_provider(name, **settings_of[name]), _served(server, kind))


@contextmanager
def registry_seat(name: str, kind: Kind, folder: Path, patch: pytest.MonkeyPatch) -> Iterator[Seat]:
    """A kind of registry, its images where everything is refused."""
    patch.setenv("DOCKER_CONFIG", str(folder))
    patch.setenv("FLY_API_TOKEN", "canary")
    with refusing() as server:
        patch.setenv("FLY_FLAPS_BASE_URL", f"http://{server.host}")
        account: dict[str, JsonValue] = {
            "username": "ada",
            "password": "env:PASSWORD",
            "registry_host": server.host,
        }
        repositories = {
            "oci": f"{server.host}/shop",
            "ghcr": "ghcr.io/acme/shop",
            "docker_hub": "acme/shop",
            "gar": "europe-west1-docker.pkg.dev/acme/helix/shop",
            "acr": "acmeshop.azurecr.io/shop",
            "fly": "registry.fly.io/shop",
            "ecr": "123456789012.dkr.ecr.eu-west-1.amazonaws.com/shop",
        }
        says = _served(server, kind)
        if name == "ecr":
            with aws_server() as aws:
                for variable in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
                    patch.setenv(variable, "test")
                more: dict[str, JsonValue] = {"endpoint_url": aws.url, "registry_host": server.host}
                yield Seat(_registry_at(name, repositories[name], **more), says)
            return
        if name == "gar":
            with FakeGcp() as cloud:
                file = cloud.web.account_file(folder)
                patch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(file))
                cloud.repositories[GAR] = artifactregistry.Repository(name=GAR)
                more = {"endpoint": cloud.endpoint, "registry_host": server.host}
                yield Seat(_registry_at(name, repositories[name], **more), says)
            return
        yield Seat(_registry_at(name, repositories[name], **account), says)


RELEASE = Release(
    number=1,
    deployment="0198c0de-0000-7000-8000-000000000001",
    instance=Instance(project="shop", name="prod", target=Target(kind="docker")),
    artifact=Artifact(image=Image(repository="nginx", digest=f"sha256:{'1' * 64}")),
)

# --- the test -------------------------------------------------------------------------------------


def _ask(opened: Any, ask: str) -> None:
    match ask:
        case "logs":
            list(opened.logs())
        case "bucket":
            opened.bucket().create()
        case "start":
            opened.start(RELEASE, None)
        case "find, again":
            assert opened.find("latest") is None, "the credentials are good"
            opened.find("latest")
        case "find":
            opened.find("latest")
        case "tag":
            opened.tag(EMPTY, "latest")
        case method:
            getattr(opened, method)()


def hold(
    seat: Seat, kind: Kind, row: Row, capsys: pytest.CaptureFixture[str], ask: str = ""
) -> None:
    """One refusal, from the public method to the person's screen."""
    seat.says(row)
    opened = seat.open()
    try:
        with pytest.raises(HelixError) as caught:
            _ask(opened, ask or row.ask)
    finally:
        opened.close()
    error = caught.value
    assert type(error) is row.cls, repr(error)
    assert row.hint.lower() in error.hint.lower(), f"{error.hint!r} of {error.message!r}"
    assert error.request_id == (ID if kind.header else "")
    problem(error, 1, machine=False)
    shown = capsys.readouterr().err
    assert error.hint in shown and error.request_id in shown and error.message in shown
    assert "canary" not in shown


def _cases(table: Mapping[str, Kind]) -> list[Any]:
    return [
        pytest.param(name, row, id="-".join((name, row.cls.code, str(row.status), row.code)))
        for name, kind in table.items()
        for row in kind.rows
    ]


@pytest.mark.parametrize(("name", "row"), _cases(PROVIDER_ROWS))
def test_a_providers_refusal_says_what_to_do_and_which_request(
    name: str,
    row: Row,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    with provider_seat(name, PROVIDER_ROWS[name], tmp_path, monkeypatch) as seat:
        hold(seat, PROVIDER_ROWS[name], row, capsys)


@pytest.mark.parametrize(("name", "row"), _cases(REGISTRY_ROWS))
def test_a_registrys_refusal_says_what_to_do_and_which_request(
    name: str,
    row: Row,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    with registry_seat(name, REGISTRY_ROWS[name], tmp_path, monkeypatch) as seat:
        hold(seat, REGISTRY_ROWS[name], row, capsys)


@pytest.mark.parametrize(("name", "row"), _cases(BUCKET_ROWS))
def test_a_buckets_refusal_says_what_to_do_and_which_request(
    name: str, row: Row, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with bucket_seat(name, BUCKET_ROWS[name], monkeypatch) as seat:
        hold(seat, BUCKET_ROWS[name], row, capsys, ask="bucket")


def test_no_kind_and_no_class_is_forgotten() -> None:
    stores = {"ghcr", "docker_hub", "ecr", "gar", "acr", "oci"}
    same = {"local": "docker", "enterprise": "helix"}
    assert {same.get(one, one) for one in PROVIDERS.builtin} - stores == set(PROVIDER_ROWS)
    assert set(REGISTRIES.builtin) == set(REGISTRY_ROWS)
    for name, kind in {**PROVIDER_ROWS, **REGISTRY_ROWS}.items():
        found = {row.cls for row in kind.rows} | set(kind.never)
        assert found >= MUST_HAVE, f"{name}: {MUST_HAVE - found}"
        assert all(row.cls in errors.error_classes() for row in kind.rows)
