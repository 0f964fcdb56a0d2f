"""A stand-in for Azure Resource Manager: real HTTP with TLS on loopback, state, faults on demand.

    with FakeAzure(folder) as cloud:
        cloud.address                             # https://127.0.0.1:40123
        cloud.env                                 # what a client needs in its environment
        cloud.faults.next(503, "ServiceUnavailable", lost=True)   # done, but the answer is lost

Bodies are held to the SDK's own models. Container Apps keeps the rules of `tests.fakes.azure_apps`;
beside it there are environments, their storages and quota, permissions, and managed identity, which
gives out the tokens.
"""

from __future__ import annotations

import json
import random
import re
import threading
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

import jwt
from azure.mgmt.appcontainers import models as az

from tests.fakes.azure_apps import Apps, Operation
from tests.fakes.azure_containers import Pretended, Run
from tests.fakes.azure_models import checked
from tests.fakes.azure_refused import Refused, unauthorized
from tests.fakes.azure_web import Handler, TlsServer
from tests.services.certificates import make_certificates

SUBSCRIPTION = "11111111-2222-3333-4444-555555555555"
GROUP = "shop"
LOCATION = "westeurope"
WHO = "deployer@acme.example"
IDENTITY = (
    f"/subscriptions/{SUBSCRIPTION}/resourceGroups/{GROUP}/providers/"
    "Microsoft.ManagedIdentity/userAssignedIdentities/puller"
)
KEY = "the stand-in's own key, for the tokens it gives out"
_RG = r"/subscriptions/[^/]+/resourceGroups/(?P<group>[^/]+)"
_APP = rf"(?P<app>{_RG}/providers/Microsoft\.App/containerApps/[^/]+)"
_ENV = rf"{_RG}/providers/Microsoft\.App/managedEnvironments/(?P<env>[^/]+)"
_REVISION = rf"{_APP}/revisions/(?P<revision>[^/]+)"
_OPERATION = (
    r"/subscriptions/[^/]+/providers/Microsoft\.App/locations/[^/]+/"
    r"containerappOperation(?:Statuses|Results)/(?P<operation>[^/]+)"
)
Match = dict[str, str]


@dataclass
class Answer:
    """What is sent back."""

    status: int
    body: Any = None
    headers: dict[str, str] = field(default_factory=dict)


@dataclass
class Fault:
    """What happens to one call instead."""

    refusal: Refused | None
    """None: the connection ends without an answer."""
    call: re.Pattern[str]
    lost: bool
    """The call is carried out, and only its answer is lost."""
    wait: float


@dataclass
class Faults:
    """What goes wrong."""

    rate: float = 0.0
    """The share of all calls that fail; half of them after they were carried out."""
    seed: int = 1
    queue: list[Fault] = field(default_factory=list)
    injected: list[str] = field(default_factory=list)
    """The calls that failed at random."""

    def __post_init__(self) -> None:
        self._random = random.Random(self.seed)

    def next(
        self,
        status: int = 0,
        code: str = "Injected",
        message: str = "injected",
        *,
        times: int = 1,
        call: str = "",
        lost: bool = False,
        wait: float = 0,
        **headers: str,
    ) -> None:
        """Let the next calls fail.

        Args:
            status: 0: the connection ends without an answer.
            call: only those whose «METHOD path» this pattern is found in.
            wait: seconds before the answer.
        """
        refusal = Refused(status, code, message, **headers) if status else None
        self.queue += [Fault(refusal, re.compile(call), lost, wait)] * times

    def take(self, call: str) -> Fault | None:
        """The fault of this call, if it has one."""
        for fault in self.queue:
            if fault.call.search(call):
                self.queue.remove(fault)
                return fault
        if self._random.random() < self.rate:
            lost = self._random.random() < 0.5
            self.injected.append(call)
            refusal = self._random.choice(
                (
                    None,
                    Refused(503, "ServiceUnavailable", "injected at random"),
                    Refused(429, "TooManyRequests", "injected at random", Retry_After="0"),
                    Refused(409, "ContainerAppOperationInProgress", "injected at random"),
                )
            )
            return Fault(refusal, re.compile(""), lost, 0)
        return None


class FakeAzure:
    """All of it.

    Args:
        folder: where the certificates go.
        run: starts the containers.
        seconds: how long each change takes at least.
        tick: seconds between two looks at the containers.
    """

    def __init__(
        self, folder: Path, *, run: Run = Pretended, seconds: float = 0.02, tick: float = 0.01
    ) -> None:
        self.run = run
        self.seconds = seconds
        self.tick = tick
        self.expires = 20.0
        """Seconds after which Azure no longer waits for a revision."""
        self.forgiving = False
        """A revision whose container crashes is provisioned all the same."""
        self.fail_next: Refused | None = None
        """How the next change of an app ends."""
        self.faults = Faults()
        self.calls: list[str] = []
        """Method and last part of the path of each call."""
        self.bodies: list[str] = []
        self.violations: list[str] = []
        """When two containers had a volume at once."""
        self.used: set[str] = set()
        """The permissions that the calls so far took."""
        self.denied: set[str] = set()
        """Permissions that the caller lacks."""
        self.registered = True
        """Whether the subscription uses Microsoft.App."""
        self.groups = {GROUP}
        self.environments: dict[str, dict[str, Any]] = {
            "helix-shop": {
                "location": "West Europe",
                "properties": {"provisioningState": "Succeeded"},
            }
        }
        self.storages: dict[str, dict[str, Any]] = {
            "files": {
                "nfsAzureFile": {
                    "server": "acme.file.core.windows.net",
                    "shareName": "/acme/data",
                    "accessMode": "ReadWrite",
                }
            },
            "smb": {
                "azureFile": {
                    "accountName": "acme",
                    "shareName": "data",
                    "accessMode": "ReadWrite",
                }
            },
        }
        self.cores = (1.0, 100.0)
        """In use, and the limit."""
        self.tokens: list[str] = []
        """All that were given out."""
        self.token_life = 3600
        self.lock = threading.RLock()
        self.certificates = make_certificates(folder)
        self.apps = Apps(self)
        self._streams: list[str] = []

    def __enter__(self) -> FakeAzure:
        self._server = TlsServer(self.certificates, type("Handler", (_Handler,), {"cloud": self}))
        self.address = f"https://{self._server.host}"
        self._over = threading.Event()
        self._clock = threading.Thread(target=self._tick, daemon=True)
        self._clock.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._clock.join()
        self._server.stop()
        with self.lock:
            for app in self.apps.all.values():
                app.end()

    @property
    def env(self) -> dict[str, str]:
        """The environment of a machine with a managed identity, that trusts our certificates."""
        return {
            "AZURE_TOKEN_CREDENTIALS": "ManagedIdentityCredential",
            "IDENTITY_ENDPOINT": f"{self.address}/msi/token",
            "IDENTITY_HEADER": "4711",
            "REQUESTS_CA_BUNDLE": str(self.certificates.ca),
            "SSL_CERT_FILE": str(self.certificates.ca),
        }

    def _tick(self) -> None:
        """Time goes by on a platform also when nobody looks."""
        while not self._over.wait(self.tick):
            with self.lock:
                self.apps.settle()

    # Calls ----------------------------------------------------------------------------------------

    def handle(self, method: str, target: str, body: Any, headers: Any) -> Answer | None:
        """One call. None: the connection ends without an answer."""
        url = urlsplit(target)
        path = unquote(url.path)
        if path == "/msi/token":
            return self._token(parse_qs(url.query))
        with self.lock:
            self.calls.append(f"{method} {path.rsplit('/', 1)[-1]}")
            self.bodies.append(json.dumps(body))
            fault = self.faults.take(f"{method} {path}")
        if fault is not None and fault.wait:
            time.sleep(fault.wait)
        if fault is not None and not fault.lost:
            return _refusal(fault.refusal) if fault.refusal else None
        try:
            with self.lock:
                self._check_token(headers.get("authorization", ""))
                answer = self._route(method, path, body)
        except Refused as refused:
            answer = _refusal(refused)
        if fault is not None:
            return _refusal(fault.refusal) if fault.refusal else None
        return answer

    def _token(self, query: dict[str, list[str]]) -> Answer:
        end = int(time.time()) + self.token_life
        claims = {"aud": query["resource"][0], "upn": WHO, "exp": end, "jti": uuid.uuid4().hex}
        token = jwt.encode(claims, KEY, "HS256")
        self.tokens.append(token)
        return Answer(
            200,
            {
                "access_token": token,
                "expires_on": str(end),
                "resource": query["resource"][0],
                "token_type": "Bearer",
            },
        )

    def _check_token(self, authorization: str) -> None:
        token = authorization.removeprefix("Bearer ")
        if token in self._streams:
            return
        try:
            jwt.decode(token, KEY, ["HS256"], options={"verify_aud": False})
        except jwt.ExpiredSignatureError:
            raise Refused(
                401, "ExpiredAuthenticationToken", "The access token expiry UTC time is earlier."
            ) from None
        except jwt.InvalidTokenError:
            raise Refused(401, "InvalidAuthenticationToken", "The token is invalid.") from None

    def _route(self, method: str, path: str, body: Any) -> Answer:
        for wanted, pattern, action, work in self._routes:
            found = re.fullmatch(pattern, path, re.IGNORECASE)
            if found is None or wanted != method:
                continue
            about = {key: value or "" for key, value in found.groupdict().items()}
            if action:
                self.used.add(action)
            if action in self.denied:
                raise unauthorized(action, path)
            if not self.registered and "Microsoft.App" in action:
                raise Refused(
                    409,
                    "MissingSubscriptionRegistration",
                    "The subscription is not registered to use namespace 'Microsoft.App'.",
                )
            if about.get("group", GROUP) not in self.groups:
                raise Refused(
                    404,
                    "ResourceGroupNotFound",
                    f"Resource group '{about['group']}' could not be found.",
                )
            return work(about, body)
        raise Refused(404, "NotFound", f"{method} {path}")

    @property
    def _routes(self) -> tuple[tuple[str, str, str, Callable[[Match, Any], Answer]], ...]:
        apps, revisions = "Microsoft.App/containerApps", "Microsoft.App/containerApps/revisions"
        envs, apply = "Microsoft.App/managedEnvironments", self.apps
        return (
            ("GET", _OPERATION, "", self._operation),
            ("GET", _APP, f"{apps}/read", lambda on, _: Answer(200, apply.find(on["app"]).body())),
            ("PUT", _APP, f"{apps}/write", self._put),
            ("PATCH", _APP, f"{apps}/write", self._patch),
            ("DELETE", _APP, f"{apps}/delete", self._delete),
            ("POST", rf"{_APP}/listSecrets", f"{apps}/listSecrets/action", self._list_secrets),
            ("POST", rf"{_APP}/getAuthToken", f"{apps}/getAuthToken/action", self._stream_token),
            ("GET", rf"{_APP}/revisions", f"{revisions}/read", self._list_revisions),
            (
                "GET",
                _REVISION,
                f"{revisions}/read",
                lambda on, _: Answer(200, apply.revision(on["app"], on["revision"]).body()),
            ),
            ("GET", rf"{_REVISION}/replicas", f"{revisions}/replicas/read", self._list_replicas),
            ("POST", rf"{_REVISION}/activate", f"{revisions}/activate/action", self._activate),
            (
                "POST",
                rf"{_REVISION}/deactivate",
                f"{revisions}/deactivate/action",
                self._deactivate,
            ),
            ("GET", _ENV, f"{envs}/read", self._environment),
            ("GET", rf"{_ENV}/storages/(?P<name>[^/]+)", f"{envs}/storages/read", self._storage),
            ("GET", rf"{_ENV}/usages", f"{envs}/usages/read", self._usages),
            (
                "GET",
                rf"{_RG}/providers/Microsoft\.Authorization/permissions",
                "Microsoft.Authorization/permissions/read",
                self._permissions,
            ),
        )

    # Container Apps -------------------------------------------------------------------------------

    def _put(self, on: Match, body: Any) -> Answer:
        app, operation, made = self.apps.put(on["app"], body)
        return Answer(201 if made else 200, app.body(), self._under_way(operation))

    def _patch(self, on: Match, body: Any) -> Answer:
        _, operation = self.apps.patch(on["app"], body)
        return Answer(202, None, self._under_way(operation))

    def _delete(self, on: Match, _: Any) -> Answer:
        if on["app"].lower() not in self.apps.all:
            return Answer(204)
        return Answer(202, None, self._under_way(self.apps.delete(on["app"])))

    def _under_way(self, operation: Operation) -> dict[str, str]:
        where = f"{self.address}/subscriptions/{SUBSCRIPTION}/providers/Microsoft.App/locations"
        tail = f"{operation.id}?api-version=2026-07-01&t=1&c=MII-secret&s=signed&h=hash"
        return {
            "Azure-AsyncOperation": f"{where}/{LOCATION}/containerappOperationStatuses/{tail}",
            "Location": f"{where}/{LOCATION}/containerappOperationResults/{tail}",
            "Retry-After": "0",
        }

    def _operation(self, on: Match, _: Any) -> Answer:
        operation = self.apps.operations[on["operation"]]
        body: dict[str, Any] = {"name": operation.id, "status": operation.status}
        if operation.error is not None:
            body |= operation.error.body
        return Answer(200, body)

    def _list_secrets(self, on: Match, _: Any) -> Answer:
        found = list(self.apps.find(on["app"]).secrets.values())
        return Answer(200, checked(az.SecretsCollection, {"value": found}))

    def _stream_token(self, on: Match, _: Any) -> Answer:
        self._streams.append(uuid.uuid4().hex)
        body = {"location": LOCATION, "properties": {"token": self._streams[-1]}}
        return Answer(200, checked(az.ContainerAppAuthToken, body))

    def _list_revisions(self, on: Match, _: Any) -> Answer:
        found = self.apps.find(on["app"]).revisions.values()
        return Answer(200, {"value": [one.body() for one in found]})

    def _list_replicas(self, on: Match, _: Any) -> Answer:
        return Answer(200, {"value": self.apps.revision(on["app"], on["revision"]).replicas()})

    def _activate(self, on: Match, _: Any) -> Answer:
        self.apps.activate(on["app"], on["revision"])
        return Answer(200, "Activate succeeded")

    def _deactivate(self, on: Match, _: Any) -> Answer:
        self.apps.deactivate(on["app"], on["revision"])
        return Answer(200, "Deactivate succeeded")

    def _environment(self, on: Match, _: Any) -> Answer:
        found = self.environments.get(on["env"])
        if found is None:
            raise Refused(404, "ResourceNotFound", f"The environment {on['env']} was not found.")
        return Answer(200, checked(az.ManagedEnvironment, {**found, "name": on["env"]}))

    def _storage(self, on: Match, _: Any) -> Answer:
        found = self.storages.get(on["name"])
        if found is None:
            raise Refused(404, "ManagedEnvironmentStorageNotFound", f"no storage {on['name']}")
        body = {"name": on["name"], "properties": found}
        return Answer(200, checked(az.ManagedEnvironmentStorage, body))

    def _usages(self, _: Match, __: Any) -> Answer:
        used, limit = self.cores
        one = {
            "unit": "Count",
            "currentValue": used,
            "limit": limit,
            "name": {"value": "ManagedEnvironmentConsumptionCores"},
        }
        return Answer(200, {"value": [checked(az.Usage, one)]})

    def _permissions(self, _: Match, __: Any) -> Answer:
        rule = {"actions": ["*/read", "Microsoft.App/*", "Microsoft.ManagedIdentity/*"]}
        return Answer(200, {"value": [{**rule, "notActions": sorted(self.denied)}]})


def _refusal(refused: Refused) -> Answer:
    return Answer(refused.status, refused.body, refused.headers)


class _Handler(Handler):
    cloud: FakeAzure

    def _any(self) -> None:
        length = int(self.headers.get("content-length") or 0)
        body = json.loads(self.rfile.read(length)) if length else None
        if "/logstream" in self.path:
            self._stream()
            return
        answer = self.cloud.handle(self.command, self.path, body, self.headers)
        if answer is None:
            self.close_connection = True
            self.connection.close()
            return
        content = b"" if answer.body is None else json.dumps(answer.body).encode()
        self.send_response(answer.status)
        request = str(uuid.uuid4())
        self.send_header("x-ms-request-id", request)
        self.send_header("x-ms-correlation-request-id", request)
        for name, value in answer.headers.items():
            self.send_header(name, value)
        if content:
            self.send_header("content-type", "application/json; charset=utf-8")
        self.send_header("content-length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    do_GET = do_PUT = do_PATCH = do_POST = do_DELETE = _any

    def _stream(self) -> None:
        """A container's lines, as JSON; with `follow` until it ends."""
        cloud, url = self.cloud, urlsplit(self.path)
        query = {key: one[0] for key, one in parse_qs(url.query).items()}
        found = re.fullmatch(rf"{_RG}/containerApps/([^/]+)/revisions/([^/]+)/.*", url.path)
        assert found is not None
        token = self.headers.get("authorization", "").removeprefix("Bearer ")
        self.close_connection = True
        if token not in cloud._streams:
            self.send_response(401)
            self.end_headers()
            return
        path = f"/subscriptions/{SUBSCRIPTION}/resourceGroups/{found[1]}/providers/"
        with cloud.lock:
            revision = cloud.apps.revision(
                f"{path}Microsoft.App/containerApps/{found[2]}", found[3]
            )
            running = revision.running
        self.send_response(200)
        self.send_header("connection", "close")
        self.end_headers()
        sent = max(0, len(running.lines()) - int(query["tailLines"])) if running else 0
        while running is not None:
            for line in running.lines()[sent:]:
                stamp = line.at.strftime("%Y-%m-%dT%H:%M:%S.%f123+00:00")
                said = {"TimeStamp": stamp, "Log": f"F {line.text}"}
                self.wfile.write(json.dumps(said).encode() + b"\n")
                sent += 1
            self.wfile.flush()
            if query["follow"] != "true" or revision.running is not running:
                return
            time.sleep(0.02)
