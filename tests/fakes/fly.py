"""A stand-in for Fly.io: the Machines API and the logs, over real HTTP, with state and faults.

Written from the published OpenAPI document. Where that document can be found (see `find_spec`),
every request and every answer of a test is held to it; a request that it does not allow is refused,
and an answer that it does not allow is noted in `violations`, as is whatever Fly would never do.
"""

from __future__ import annotations

import copy
import json
import os
import random
import re
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import TracebackType
from typing import Any
from urllib.parse import parse_qs, urlsplit

Json = dict[str, Any]

SPEC_VARIABLE = "HELIX_FLY_SPEC"
TOKEN = "fo1_" + "a" * 40


def find_spec() -> Path | None:
    """The vendor's OpenAPI document, which is not part of this repository; None if it is absent."""
    beside = Path(__file__).parents[2].parent / "shared" / "specs" / "fly-machines-openapi.json"
    named = os.environ.get(SPEC_VARIABLE)
    path = Path(named) if named else beside
    return path if path.is_file() else None


@dataclass
class Behaviour:
    """What an image does when a machine runs it."""

    exits: int | None = None
    """The exit code it ends with at once; Fly starts it again some times."""
    healthy: bool = True
    says: tuple[str, ...] = ("listening",)
    boot: float = 0.02
    """Seconds from launch to «started»."""

    @classmethod
    def of(cls, env: dict[str, str]) -> Behaviour:
        """What a release's environment asks for, by its BEHAVIOUR: `serve`, `exit`, `hang`, or be
        `sick`. It says its NAME when it starts."""
        how, begins = env.get("BEHAVIOUR", "serve"), f"starting {env.get('NAME', '')}"
        if how == "exit":
            return cls(exits=3, says=(begins, "it is broken"))
        return cls(healthy=how == "serve", says=(begins, "listening"))


@dataclass
class Fault:
    """What happens to the next calls that match, instead of or after they are carried out."""

    status: int
    """An HTTP status; 0 cuts the connection without an answer."""
    match: str = ""
    """A regular expression for «METHOD /path»."""
    times: int = 1
    body: Json = field(default_factory=lambda: {"error": "injected", "status": "unknown"})
    headers: dict[str, str] = field(default_factory=dict)
    done: bool = False
    """The call is carried out all the same; only its answer is lost."""


class Refused(Exception):
    """An answer other than success."""

    def __init__(self, status: int, error: str, code: str = "unknown") -> None:
        super().__init__(error)
        self.status = status
        self.body = {"error": error, "status": code}


class FakeFly:
    """Fly.io for one test. Use as a context manager; `address` is what the API variables name."""

    def __init__(self, *, spec: Path | None = None) -> None:
        self.apps: dict[str, Json] = {}
        self.taken: set[str] = set()
        """App names that other organisations have."""
        self.regions = ["ams", "fra", "iad", "nrt"]
        self.capacity = True
        self.behaviours: dict[str, Behaviour] = {}
        """Part of an image reference -> what it does."""
        self.faults: list[Fault] = []
        self.fault_rate = 0.0
        """Which part of all calls fails, in one of several ways."""
        self.random = random.Random(7)
        self.lease_second = 0.005
        """How long a second of a lease takes."""
        self.lag = 0.0
        """Seconds for which lists show what was before."""
        self.calls: list[str] = []
        self.bodies: list[tuple[str, Json]] = []
        self.violations: list[str] = []
        self.snapshots: list[str] = []
        self.token = TOKEN
        self._spec = Contract(spec) if spec else None
        self._lock = threading.RLock()
        self._count = 0
        self._history: list[tuple[float, dict[str, Json]]] = []
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(self))
        self._server.daemon_threads = True
        self.address = f"http://127.0.0.1:{self._server.server_port}"

    def __enter__(self) -> FakeFly:
        run = self._server.serve_forever
        threading.Thread(target=run, kwargs={"poll_interval": 0.02}, daemon=True).start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._server.shutdown()
        self._server.server_close()

    # What tests look at and set up ---------------------------------------------------------------

    def machines(self, app: str) -> list[Json]:
        """The machines that exist, as they are now."""
        with self._lock:
            found = [self._seen(one) for one in self.apps[app]["machines"].values()]
            return [one for one in found if one["state"] != "destroyed"]

    def serving(self, app: str) -> list[Json]:
        """The machines that get traffic: started, with services registered."""
        with self._lock:
            return [
                one
                for one in self.machines(app)
                if one["state"] == "started"
                and not self.apps[app]["machines"][one["id"]]["_cordoned"]
            ]

    def changes(self) -> list[str]:
        """The calls that change something."""
        return [call for call in self.calls if not call.startswith("GET ")]

    def adopt(self, app: str, config: Json, *, volume: str = "", region: str = "ams") -> Json:
        """An app as HelixDB's CLI left it: one machine, made by flyctl."""
        self._new_app({"name": app, "org_slug": "personal"})
        config = copy.deepcopy(config)
        config.setdefault("metadata", {"fly_process_group": "app", "fly_platform_version": "v2"})
        if volume:
            made = self._new_volume(app, {"name": volume, "region": region, "size_gb": 20})
            made["_data"].append("precious")
            config["mounts"] = [{"volume": made["id"], "path": "/data"}]
        machine = self._new_machine(app, {"config": config, "region": region})
        self._record(app)
        return machine

    def data(self, app: str, name: str) -> list[str]:
        """What was written to the volume of this name."""
        [volume] = [
            one
            for one in self.apps[app]["volumes"].values()
            if one["name"] == name and one["state"] == "created"
        ]
        data: list[str] = volume["_data"]
        return data

    # One call ------------------------------------------------------------------------------------

    def answer(
        self, method: str, path: str, query: dict[str, str], headers: Any, body: Json | None
    ) -> tuple[int, Any, dict[str, str]]:
        """Status, body and headers; status 0 cuts the connection."""
        call = f"{method} {path}"
        with self._lock:
            self.calls.append(call)
            if body is not None:
                self.bodies.append((call, body))
            fault = self._fault(call)
            if fault is not None and not fault.done:
                return fault.status, fault.body, fault.headers
            status, result = self._carry_out(method, path, query, headers, body)
            if fault is not None:
                return fault.status, fault.body, fault.headers
            return status, result, {}

    def _fault(self, call: str) -> Fault | None:
        for fault in self.faults:
            if fault.times > 0 and re.search(fault.match, call):
                fault.times -= 1
                return fault
        if self.random.random() < self.fault_rate:
            status = self.random.choice([0, 408, 429, 500, 502, 503])
            return Fault(status, done=status != 429 and self.random.random() < 0.5)
        return None

    def _carry_out(
        self, method: str, path: str, query: dict[str, str], headers: Any, body: Json | None
    ) -> tuple[int, Any]:
        sent = headers.get("authorization", "")
        if sent not in (f"Bearer {self.token}", self.token):
            return 401, {"error": "unauthorized", "status": "unknown"}
        if path.startswith("/api/v1/"):
            return 200, self._logs(path.split("/")[4], query)
        path = path.removeprefix("/v1")
        if self._spec and (wrong := self._spec.wrong_request(method, path, query, headers, body)):
            self.violations.append(wrong)
            return 422, {"error": wrong, "status": "unknown"}
        for verb, pattern, call in _ROUTES:
            if verb == method and (found := re.fullmatch(pattern, path)):
                try:
                    status, result = call(self, body or {}, query, headers, **found.groupdict())
                except Refused as refused:
                    return refused.status, refused.body
                result = _public(result)
                if self._spec:
                    self.violations += self._spec.wrong_answer(method, path, status, result)
                return status, result
        return 404, {"error": f"no route for {method} {path}"}

    # Apps ----------------------------------------------------------------------------------------

    def _app(self, app: str) -> Json:
        if app not in self.apps:
            raise Refused(404, "App not found")
        return self.apps[app]

    def get_app(self, body: Json, query: Any, headers: Any, app: str) -> tuple[int, Any]:
        return 200, self._app(app)

    def create_app(self, body: Json, query: Any, headers: Any) -> tuple[int, Any]:
        if body["name"] in self.apps or body["name"] in self.taken:
            raise Refused(422, "Name has already been taken", "name_taken")
        return 201, {"token": "", **self._new_app(body)}

    def _new_app(self, body: Json) -> Json:
        made = {
            "id": body["name"],
            "name": body["name"],
            "organization": {"slug": body["org_slug"], "name": body["org_slug"]},
            "status": "pending",
            "machines": {},
            "volumes": {},
            "secrets": {},
            "secrets_version": 0,
            "ips": [],
        }
        self.apps[body["name"]] = made
        return made

    def delete_app(self, body: Json, query: Any, headers: Any, app: str) -> tuple[int, Any]:
        self._app(app)
        del self.apps[app]
        return 202, None

    # Machines ------------------------------------------------------------------------------------

    def list_machines(self, body: Json, query: Any, headers: Any, app: str) -> tuple[int, Any]:
        self._app(app)
        machines = self._lagging(app)
        return 200, [self._seen(one) for one in machines if self._seen(one)["state"] != "destroyed"]

    def get_machine(
        self, body: Json, query: Any, headers: Any, app: str, machine: str
    ) -> tuple[int, Any]:
        self._app(app)
        for one in self._lagging(app):
            if one["id"] == machine:
                return 200, self._seen(one)
        raise Refused(404, "machine not found")

    def create_machine(self, body: Json, query: Any, headers: Any, app: str) -> tuple[int, Any]:
        found = self._app(app)
        if not self.capacity:
            raise Refused(422, "no room for it there", "insufficient_capacity")
        names = [one["name"] for one in found["machines"].values() if not one["_destroyed"]]
        if body.get("name") in names:
            raise Refused(422, f"unique machine name violation: {body['name']} has already been "
                          "taken")  # fmt: skip
        self._check_secrets(found, body)
        made = self._new_machine(app, body)
        self._record(app)
        return 200, self._seen(made)

    def _new_machine(self, app: str, body: Json) -> Json:
        self._count += 1
        machine_id = f"d{self._count:013d}"
        machine: Json = {
            "id": machine_id,
            "name": body.get("name") or f"quiet-{self._count}",
            "region": body.get("region") or "ams",
            "created_at": _now(),
            "private_ip": "fdaa:0:1::2",
            "host_status": "ok",
            "_versions": [],
            "_destroyed": False,
            "_stopped": False,
            "_cordoned": bool(body.get("skip_service_registration")),
            "_events": [],
            "_lease": None,
        }
        for mount in body["config"].get("mounts", []):
            volume = self.apps[app]["volumes"].get(mount["volume"])
            if volume is None or volume["attached_machine_id"]:
                raise Refused(422, f"volume {mount['volume']} is not free")
            if volume["region"] != machine["region"]:
                raise Refused(422, "the volume is in another region")
            volume["attached_machine_id"] = machine_id
        self.apps[app]["machines"][machine_id] = machine
        self._launch(app, machine, body["config"], "launch")
        return machine

    def _launch(self, app: str, machine: Json, config: Json, why: str) -> None:
        self._count += 1
        version = f"01V{self._count:023d}"
        machine["_versions"].append({"version": version, "user_config": copy.deepcopy(config)})
        machine["instance_id"] = version
        machine["config"] = copy.deepcopy(config)
        machine["_stopped"] = False
        machine["_at"] = time.monotonic()
        machine["_events"].append(_event(why))
        for mount in config.get("mounts", []):
            self.apps[app]["volumes"][mount["volume"]]["_data"].append(version)
        behaviour = self._behaviour(machine)
        if behaviour.exits is not None:
            machine["_events"] += [_event("exit", exit_code=behaviour.exits) for _ in range(3)]

    def update_machine(
        self, body: Json, query: Any, headers: Any, app: str, machine: str
    ) -> tuple[int, Any]:
        one = self._changeable(app, machine, headers)
        if body.get("current_version") not in (None, one["instance_id"]):
            raise Refused(412, "the machine has another version")
        self._check_secrets(self._app(app), body)
        before = [mount["volume"] for mount in one["config"].get("mounts", [])]
        after = [mount["volume"] for mount in body["config"].get("mounts", [])]
        if before != after:
            raise Refused(422, "mounts of a machine cannot be changed")
        one["_events"].append(_event("exit", exit_code=0, requested_stop=True))
        one["_cordoned"] = bool(body.get("skip_service_registration"))
        self._launch(app, one, body["config"], "update")
        self._record(app)
        return 200, self._seen(one)

    def delete_machine(
        self, body: Json, query: Any, headers: Any, app: str, machine: str
    ) -> tuple[int, Any]:
        one = self._changeable(app, machine, headers)
        if query.get("force") != "true" and self._seen(one)["state"] == "started":
            raise Refused(412, "the machine runs")
        one["_destroyed"] = True
        for volume in self.apps[app]["volumes"].values():
            if volume["attached_machine_id"] == machine:
                volume["attached_machine_id"] = ""
        self._record(app)
        return 200, {"ok": True}

    def act(
        self, body: Json, query: Any, headers: Any, app: str, machine: str, verb: str
    ) -> tuple[int, Any]:
        one = self._changeable(app, machine, headers)
        if verb == "stop":
            one["_stopped"] = True
            one["_events"].append(_event("exit", exit_code=0, requested_stop=True))
        elif verb == "start":
            one["_stopped"] = False
            one["_at"] = time.monotonic()
            one["_events"].append(_event("start"))
        else:
            one["_cordoned"] = verb == "cordon"
            if verb == "uncordon" and self._state(one) == "started" and self._sick(one):
                self.violations.append(f"traffic for {machine}, whose check does not pass")
        self._record(app)
        return 200, None

    def set_metadata(
        self, body: Json, query: Any, headers: Any, app: str, machine: str, key: str
    ) -> tuple[int, Any]:
        one = self._changeable(app, machine, headers)
        one["config"].setdefault("metadata", {})[key] = body["value"]
        self._record(app)
        return 204, None

    def versions(
        self, body: Json, query: Any, headers: Any, app: str, machine: str
    ) -> tuple[int, Any]:
        return 200, list(reversed(self._machine(app, machine)["_versions"]))

    def execute(
        self, body: Json, query: Any, headers: Any, app: str, machine: str
    ) -> tuple[int, Any]:
        one = self._machine(app, machine)
        good = self._behaviour(one).healthy
        said = "ok" if good else "no"
        return 200, {"exit_code": 0 if good else 1, "stdout": said, "stderr": ""}

    def lease(
        self, body: Json, query: Any, headers: Any, app: str, machine: str
    ) -> tuple[int, Any]:
        one = self._changeable(app, machine, headers)
        self._count += 1
        one["_lease"] = (f"nonce{self._count}", time.time() + body["ttl"] * self.lease_second)
        lease = {"nonce": one["_lease"][0], "expires_at": int(one["_lease"][1])}
        return 201, {**lease, "description": body.get("description", ""), "owner": "us"}

    def release(
        self, body: Json, query: Any, headers: Any, app: str, machine: str
    ) -> tuple[int, Any]:
        self._changeable(app, machine, headers)["_lease"] = None
        return 200, None

    def _machine(self, app: str, machine: str) -> Json:
        found: Json | None = self._app(app)["machines"].get(machine)
        if found is None or found["_destroyed"]:
            raise Refused(404, "machine not found")
        return found

    def _changeable(self, app: str, machine: str, headers: Any) -> Json:
        found = self._machine(app, machine)
        if found["_lease"] is not None:
            nonce, until = found["_lease"]
            if until > time.time() and headers.get("fly-machine-lease-nonce") != nonce:
                raise Refused(409, "the machine's lease is held by someone else")
        return found

    def _check_secrets(self, app: Json, body: Json) -> None:
        if body.get("min_secrets_version", 0) > app["secrets_version"]:
            raise Refused(422, "no such version of the secrets")

    def _behaviour(self, machine: Json) -> Behaviour:
        image, env = machine["config"]["image"], machine["config"].get("env") or {}
        found = (what for part, what in self.behaviours.items() if part in image)
        return next(found, None) or (Behaviour.of(env) if "BEHAVIOUR" in env else Behaviour())

    def _state(self, machine: Json) -> str:
        behaviour = self._behaviour(machine)
        if machine["_destroyed"]:
            return "destroyed"
        if machine["_stopped"]:
            return "stopped"
        if time.monotonic() - machine["_at"] < behaviour.boot:
            return "starting"
        return "stopped" if behaviour.exits is not None else "started"

    def _sick(self, machine: Json) -> bool:
        return bool(machine["config"].get("checks")) and not self._behaviour(machine).healthy

    def _seen(self, machine: Json) -> Json:
        """A machine as the API shows it."""
        healthy = self._behaviour(machine).healthy
        status = "passing" if healthy else "critical"
        checks = [
            {"name": name, "status": status, "output": "200 OK" if healthy else "503 no"}
            for name in machine["config"].get("checks") or {}
        ]
        return {**machine, "state": self._state(machine), "checks": checks,
                "events": machine["_events"]}  # fmt: skip

    def _record(self, app: str) -> None:
        """Keep what readers see while they lag behind."""
        if self.lag:
            now = copy.deepcopy({name: one["machines"] for name, one in self.apps.items()})
            self._history.append((time.monotonic(), now))

    def _lagging(self, app: str) -> list[Json]:
        if not self.lag:
            return list(self.apps[app]["machines"].values())
        seen: Json = {}
        for at, machines in self._history:
            if at <= time.monotonic() - self.lag:
                seen = machines.get(app, {})
        return list(seen.values())

    # Volumes, secrets, addresses, the rest -------------------------------------------------------

    def list_volumes(self, body: Json, query: Any, headers: Any, app: str) -> tuple[int, Any]:
        return 200, list(self._app(app)["volumes"].values())

    def create_volume(self, body: Json, query: Any, headers: Any, app: str) -> tuple[int, Any]:
        self._app(app)
        return 200, self._new_volume(app, body)

    def _new_volume(self, app: str, body: Json) -> Json:
        self._count += 1
        volume = {
            "id": f"vol_{self._count}",
            "name": body["name"],
            "region": body["region"],
            "size_gb": body["size_gb"],
            "encrypted": True,
            "state": "created",
            "host_status": "ok",
            "attached_machine_id": "",
            "_data": [],
        }
        self.apps[app]["volumes"][volume["id"]] = volume
        return volume

    def extend(
        self, body: Json, query: Any, headers: Any, app: str, volume: str
    ) -> tuple[int, Any]:
        found = self._app(app)["volumes"][volume]
        found["size_gb"] = body["size_gb"]
        return 200, {"needs_restart": True, "volume": found}

    def snapshot(
        self, body: Json, query: Any, headers: Any, app: str, volume: str
    ) -> tuple[int, Any]:
        self.snapshots.append(volume)
        return 200, None

    def delete_volume(
        self, body: Json, query: Any, headers: Any, app: str, volume: str
    ) -> tuple[int, Any]:
        found = self._app(app)["volumes"].get(volume)
        if found is None or found["state"] != "created":
            raise Refused(404, "volume not found")
        if found["attached_machine_id"]:
            raise Refused(412, "the volume is attached")
        found["state"] = "pending_destroy"
        return 200, found

    def set_secrets(self, body: Json, query: Any, headers: Any, app: str) -> tuple[int, Any]:
        found = self._app(app)
        found["secrets"] |= body["values"]
        found["secrets_version"] += 1
        shown = [{"name": name, "digest": "d"} for name in found["secrets"]]
        return 200, {"version": found["secrets_version"], "secrets": shown}

    def list_addresses(self, body: Json, query: Any, headers: Any, app: str) -> tuple[int, Any]:
        return 200, {"ips": [{"ip": ip, "shared": True} for ip in self._app(app)["ips"]]}

    def assign_address(self, body: Json, query: Any, headers: Any, app: str) -> tuple[int, Any]:
        address = {"shared_v4": "66.241.0.1", "v6": "2a09:8280:1::1"}[body["type"]]
        self._app(app)["ips"].append(address)
        return 200, {"ip": address, "shared": body["type"] == "shared_v4"}

    def release_address(
        self, body: Json, query: Any, headers: Any, app: str, address: str
    ) -> tuple[int, Any]:
        self._app(app)["ips"].remove(address)
        return 204, None

    def current_token(self, body: Json, query: Any, headers: Any) -> tuple[int, Any]:
        return 200, {"tokens": [{"user": "ada@example.com", "org_slug": "personal"}]}

    def list_regions(self, body: Json, query: Any, headers: Any) -> tuple[int, Any]:
        rows = [{"code": code, "deprecated": False} for code in self.regions]
        return 200, {"nearest": self.regions[0], "regions": rows}

    def _logs(self, app: str, query: dict[str, str]) -> Json:
        machine = self.apps[app]["machines"][query["instance"]]
        said = [line for each in machine["_versions"] for line in self._said(each)]
        first = int(query.get("next_token") or 0)
        page = said[first : first + 2]
        lines = [{"attributes": {"timestamp": _now(), "message": line}} for line in page]
        return {"data": lines, "meta": {"next_token": str(first + len(page))}}

    def _said(self, version: Json) -> tuple[str, ...]:
        return self._behaviour({"config": version["user_config"]}).says


_APP = r"/apps/(?P<app>[^/]+)"
_MACHINE = rf"{_APP}/machines/(?P<machine>[^/]+)"
_VOLUME = rf"{_APP}/volumes/(?P<volume>[^/]+)"
_ROUTES: tuple[tuple[str, str, Callable[..., tuple[int, Any]]], ...] = (
    ("GET", _APP, FakeFly.get_app),
    ("POST", "/apps", FakeFly.create_app),
    ("DELETE", _APP, FakeFly.delete_app),
    ("GET", rf"{_APP}/machines", FakeFly.list_machines),
    ("POST", rf"{_APP}/machines", FakeFly.create_machine),
    ("GET", _MACHINE, FakeFly.get_machine),
    ("POST", _MACHINE, FakeFly.update_machine),
    ("DELETE", _MACHINE, FakeFly.delete_machine),
    ("POST", rf"{_MACHINE}/(?P<verb>start|stop|cordon|uncordon)", FakeFly.act),
    ("POST", rf"{_MACHINE}/metadata/(?P<key>[^/]+)", FakeFly.set_metadata),
    ("GET", rf"{_MACHINE}/versions", FakeFly.versions),
    ("POST", rf"{_MACHINE}/exec", FakeFly.execute),
    ("POST", rf"{_MACHINE}/lease", FakeFly.lease),
    ("DELETE", rf"{_MACHINE}/lease", FakeFly.release),
    ("GET", rf"{_APP}/volumes", FakeFly.list_volumes),
    ("POST", rf"{_APP}/volumes", FakeFly.create_volume),
    ("PUT", rf"{_VOLUME}/extend", FakeFly.extend),
    ("POST", rf"{_VOLUME}/snapshots", FakeFly.snapshot),
    ("DELETE", _VOLUME, FakeFly.delete_volume),
    ("POST", rf"{_APP}/secrets", FakeFly.set_secrets),
    ("GET", rf"{_APP}/ip_assignments", FakeFly.list_addresses),
    ("POST", rf"{_APP}/ip_assignments", FakeFly.assign_address),
    ("DELETE", rf"{_APP}/ip_assignments/(?P<address>.+)", FakeFly.release_address),
    ("GET", "/tokens/current", FakeFly.current_token),
    ("GET", "/platform/regions", FakeFly.list_regions),
)


class Contract:
    """The published OpenAPI document, held against requests and answers."""

    SERVER = "https://api.machines.dev"

    def __init__(self, path: Path) -> None:
        self._document, self._openapi = _load(path)

    def wrong_request(
        self, method: str, path: str, query: dict[str, str], headers: Any, body: Json | None
    ) -> str:
        """What the document does not allow about a request; empty if nothing."""
        from openapi_core.exceptions import OpenAPIError

        request = self._request(method, path, query, headers, body)
        try:
            self._openapi.validate_request(request)
        except OpenAPIError as error:
            return f"{method} {path}: {error} {error.__cause__ or ''}"
        operation = self._operation(method, path)
        content = operation.get("requestBody", {}).get("content", {}).get("application/json", {})
        unknown = [*self._unknown(content.get("schema", {}), body, "")]
        return f"{method} {path}: no such field: {', '.join(unknown)}" if unknown else ""

    def wrong_answer(self, method: str, path: str, status: int, body: Any) -> list[str]:
        """What the document does not allow about an answer."""
        from openapi_core.exceptions import OpenAPIError
        from openapi_core.testing import MockResponse

        documented = self._operation(method, path)["responses"].get(str(status))
        if documented is None:
            return [f"answer to {method} {path}: {status} is not documented"]
        if not documented.get("content"):
            return []  # its body, if any, means nothing
        request = self._request(method, path, {}, {"fly-machine-lease-nonce": "x"}, {})
        data = b"" if body is None else json.dumps(body).encode()
        kind = "application/json"
        try:
            self._openapi.validate_response(
                request, MockResponse(data, status_code=status, content_type=kind)
            )
        except OpenAPIError as error:
            return [f"answer to {method} {path}: {error} {error.__cause__ or ''}"]
        return []

    def _operation(self, method: str, path: str) -> Json:
        """The document's part on one call. A fixed path goes before one with a variable."""
        paths = sorted(self._document["paths"].items(), key=lambda item: item[0].count("{"))
        return next(
            operations[method.lower()]
            for pattern, operations in paths
            if re.fullmatch(re.sub(r"\{[^}]+\}", "[^/]+", pattern), path)
            and method.lower() in operations
        )

    def _request(
        self, method: str, path: str, query: dict[str, str], headers: Any, body: Json | None
    ) -> Any:
        from openapi_core.testing import MockRequest

        data = None if body is None else json.dumps(body).encode()
        given = {key: value for key, value in headers.items() if key.lower().startswith("fly-")}
        return MockRequest(
            self.SERVER, method.lower(), f"/v1{path}", args=query, headers=given, data=data,
            content_type="application/json",
        )  # fmt: skip

    def _unknown(self, schema: Json, value: Any, where: str) -> list[str]:
        """Fields of a request that the document does not know: most often a slip of ours."""
        schema = self._resolve(schema)
        if isinstance(value, list):
            items = schema.get("items", {})
            return [one for each in value for one in self._unknown(items, each, f"{where}[]")]
        if not isinstance(value, dict):
            return []
        known = schema.get("properties", {})
        rest = schema.get("additionalProperties")
        found = []
        for key, inner in value.items():
            if key in known:
                found += self._unknown(known[key], inner, f"{where}.{key}")
            elif isinstance(rest, dict):
                found += self._unknown(rest, inner, f"{where}.{key}")
            elif not rest:
                found.append(f"{where}.{key}")
        return found

    def _resolve(self, schema: Json) -> Json:
        if "$ref" in schema:
            name = schema["$ref"].rsplit("/", 1)[1]
            return self._resolve(self._document["components"]["schemas"][name])
        if "allOf" in schema:
            merged: Json = {"properties": {}}
            for part in schema["allOf"]:
                merged["properties"] |= self._resolve(part).get("properties", {})
            return merged
        return schema


@cache
def _load(path: Path) -> tuple[Json, Any]:
    from openapi_core import Config, OpenAPI

    document = json.loads(path.read_text())
    # The document has one operation id twice, which the validator of documents refuses.
    return document, OpenAPI.from_dict(document, config=Config(spec_validator_cls=None))


def _public(value: Any) -> Any:
    """Without what is ours alone."""
    if isinstance(value, dict):
        ours = {"machines", "volumes", "secrets_version"}
        return {
            key: _public(one)
            for key, one in value.items()
            if not key.startswith("_") and key not in ours
        }
    return [_public(one) for one in value] if isinstance(value, list) else value


def _event(kind: str, **exit_event: Any) -> Json:
    request = {"exit_event": exit_event} if exit_event else {}
    at = time.time_ns() // 1000
    return {"id": f"e{at}", "type": kind, "status": kind, "source": "flyd", "timestamp": at,
            "request": request}  # fmt: skip


def _now() -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime()) + f".{time.time_ns() % 10**9:09d}Z"


def _handler(fly: FakeFly) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True

        def _any(self) -> None:
            length = int(self.headers.get("content-length") or 0)
            data = self.rfile.read(length)
            url = urlsplit(self.path)
            query = {key: values[0] for key, values in parse_qs(url.query).items()}
            headers = {key.lower(): value for key, value in self.headers.items()}
            body = json.loads(data) if data else None
            status, result, extra = fly.answer(self.command, url.path, query, headers, body)
            if status == 0:
                self.close_connection = True
                self.connection.close()
                return
            out = b"" if result is None else json.dumps(result).encode()
            self.send_response(status)
            self.send_header("content-type", "application/json")
            self.send_header("fly-request-id", "01REQUEST-ams")
            self.send_header("content-length", str(len(out)))
            for key, value in extra.items():
                self.send_header(key, value)
            self.end_headers()
            self.wfile.write(out)

        do_GET = do_POST = do_PUT = do_DELETE = do_PATCH = _any

        def log_message(self, format: str, *args: Any) -> None:
            pass

    return Handler
