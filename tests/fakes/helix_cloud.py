"""A stand-in for Helix Cloud, over real HTTP, with state and faults.

Reconstructed from HelixDB's open-source command-line tools: what they send, which fields of an
answer they read, and which statuses they tell apart. How the real server behaves beyond that, such
as when it shows new sources, is not known.

No query is run: a gateway answers as two settings of what is live say, `name` and `behaviour`.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
import threading
import time
import tomllib
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any
from urllib.parse import parse_qs, urlsplit

Json = dict[str, Any]

KEY = "hlx_user_key-canary"
CLUSTER_KEY = "hlx_cluster_key-canary"
"""What a first deployment's stream reveals: nobody may write it down."""
HANG = 0.3
"""Seconds for which queries that hang keep whoever asks."""
MOST_BYTES = 20 * 1024 * 1024


@dataclass
class Fault:
    """What happens to the next calls that match."""

    status: int = 503
    """An HTTP status; 0 cuts the connection without an answer."""
    match: str = ""
    """A regular expression for «METHOD /path»."""
    times: int = 1
    done: bool = False
    """The call is carried out all the same; only its answer is lost."""
    cut: int = -1
    """Of a stream, end it after so many events."""
    delay: float = 0
    """Seconds before anything happens."""


@dataclass
class Cluster:
    """One database, and what was deployed to it."""

    sources: dict[str, str] = field(default_factory=dict)
    helix_toml: str | None = None
    env: dict[str, str] = field(default_factory=dict)
    queries: str = ""
    deployments: int = 0
    logs: list[tuple[float, str]] = field(default_factory=list)
    ready: bool = True

    @property
    def live(self) -> Json:
        """The settings of the instance, in the helix.toml that came with what is live."""
        document = tomllib.loads(self.helix_toml or "")
        found: dict[str, Json] = document.get("enterprise") or document.get("cloud") or {}
        for table in found.values():
            return table.get("helix", table)
        return {}


class HelixCloud:
    """Helix Cloud for one test. Use as a context manager."""

    def __init__(self) -> None:
        self.clusters = {"c1": Cluster(), "e1": Cluster()}
        """By id; those that begin with «e» are enterprise clusters."""
        self.faults: list[Fault] = []
        self.valid_for = -1
        """How many calls the key is good for; -1: all."""
        self.calls: list[str] = []
        self.bodies: list[Json] = []
        self.lock = threading.RLock()
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(self))
        self._server.daemon_threads = True
        self.address = f"http://127.0.0.1:{self._server.server_port}"

    def __enter__(self) -> HelixCloud:
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

    def posts(self) -> int:
        """How often something was deployed, successfully or not."""
        return sum(one.startswith("POST") for one in self.calls)

    def fault(self, call: str) -> Fault | None:
        """What shall go wrong with this call."""
        with self.lock:
            self.calls.append(call)
            for one in self.faults:
                if one.times > 0 and re.search(one.match, call):
                    one.times -= 1
                    return one
            return None

    def knows(self, key: str) -> bool:
        """Whether a key is good, still."""
        with self.lock:
            if key != KEY or self.valid_for == 0:
                return False
            self.valid_for -= self.valid_for > 0
            return True

    def deploy(self, cluster: Cluster, enterprise: bool, body: Json) -> list[Any]:
        """Deploy; the events of a standard cluster, or one answer.

        Raises:
            Refused: what is sent makes no sense.
        """
        with self.lock:
            self.bodies.append(body)
            if enterprise:
                return [self._deploy_enterprise(cluster, body)]
            events: list[Any] = ["validating_queries"]
            files = {**body["queries"], **({"schema.hx": body["schema"]} if body["schema"] else {})}
            wrong = next((name for name, text in files.items() if "WRONG" in text), None)
            if wrong:
                error = {"error": f"{wrong}: unexpected token WRONG"}
                return [*events, {"query_validation_error": error}]
            first = not cluster.deployments
            self._store(cluster, files, body)
            cluster.env = dict(body["env_vars"])
            events += [{"building": {"estimated_percentage": 40}}, {"log": {"message": "linking"}}]
            events += ["deploying"]
            url = f"{self.address}/gateway"
            if first:
                return [*events, {"deployed": {"url": url, "auth_key": CLUSTER_KEY}}]
            return [*events, {"redeployed": {"url": url}}]

    def _deploy_enterprise(self, cluster: Cluster, body: Json) -> Json:
        queries = base64.b64decode(body["queries_json_b64"])
        if len(queries) != body["queries_json_size_bytes"] or not queries:
            raise Refused(400, "queries_json_size_bytes does not fit queries_json_b64")
        if not body["source_files"]:
            raise Refused(400, "source_files is empty")
        if b"WRONG" in queries:
            raise Refused(422, "queries.json: unknown step WRONG")
        self._store(cluster, body["source_files"], body)
        cluster.queries = queries.decode()
        return {"s3_key": f"bundles/{hashlib.sha256(queries).hexdigest()}"}

    def _store(self, cluster: Cluster, files: Json, body: Json) -> None:
        cluster.sources = {str(name): str(text) for name, text in files.items()}
        cluster.helix_toml = body["helix_toml"]
        cluster.deployments += 1
        cluster.logs.append((time.time(), f"loaded {len(files)} files"))
        cluster.logs.append((time.time(), f"starting {cluster.live.get('name', '')}".strip()))


class Refused(Exception):
    """An answer other than success."""

    def __init__(self, status: int, said: str) -> None:
        super().__init__(said)
        self.status = status
        self.said = said


def _handler(cloud: HelixCloud) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, format: str, *args: Any) -> None:
            return

        def do_GET(self) -> None:
            self._serve("GET")

        def do_POST(self) -> None:
            self._serve("POST")

        def _serve(self, method: str) -> None:
            size = int(self.headers.get("content-length") or 0)
            data = self.rfile.read(size)
            url = urlsplit(self.path)
            fault = cloud.fault(f"{method} {url.path}")
            if fault is not None:
                time.sleep(fault.delay)
                if fault.cut < 0 and fault.status and not fault.done:
                    return self._answer(fault.status, "injected")
                if not fault.status and not fault.done and fault.cut < 0:
                    return self._hang_up()
            try:
                found = self._route(method, url.path, parse_qs(url.query), data)
            except Refused as error:
                return self._answer(error.status, error.said)
            if fault is not None and fault.done:
                return self._answer(fault.status, "injected") if fault.status else self._hang_up()
            if isinstance(found, list) and method == "POST":
                return self._stream(found, fault.cut if fault else -1)
            return self._answer(200, json.dumps(found))

        def _route(self, method: str, path: str, query: Any, data: bytes) -> Any:
            if path.startswith("/gateway/"):
                return _served(cloud.clusters[path.split("/")[2]])
            if not cloud.knows(self.headers.get("x-api-key", "")):
                raise Refused(401, "invalid api key")
            if path == "/api/cli/workspaces":
                return [{"id": "w1", "name": "acme", "url_slug": "acme", "workspace_type": "team"}]
            found = re.fullmatch(r"/api/cli/(enterprise-)?clusters/(\w+)/([\w/]+)", path)
            cluster = cloud.clusters.get(found[2]) if found else None
            if found is None or cluster is None or found[2].startswith("e") != bool(found[1]):
                raise Refused(404, "no such cluster")
            match method, found[3]:
                case "GET", "project":
                    return {"project_id": "p1", "workspace_id": "w1"}
                case "GET", "sync":
                    if not cluster.deployments:
                        raise Refused(404, "nothing was deployed")
                    return _snapshot(cluster)
                case "GET", "indexes" if found[1]:
                    writer = {"pod": "db-0", "healthy": cluster.ready, "accepting_writes": True}
                    return {"mode": "ha", "phase": "running", "writer_backend": writer}
                case "GET", "logs/range":
                    begin, end = (float(query[name][0]) for name in ("start_time", "end_time"))
                    lines = [text for when, text in cluster.logs if begin <= when <= end]
                    return {"logs": [{"message": text} for text in lines]}
                case "POST", "deploy":
                    if len(data) > MOST_BYTES:
                        raise Refused(413, "too large")
                    events = cloud.deploy(cluster, bool(found[1]), json.loads(data))
                    return events[0] if found[1] else events
            raise Refused(404, "no such call")

        def _answer(self, status: int, text: str) -> None:
            body = text.encode()
            self.send_response(status)
            self.send_header("content-type", "application/json" if status == 200 else "text/plain")
            self.send_header("content-length", str(len(body)))
            self.send_header("x-request-id", "req-7")
            self.end_headers()
            self.wfile.write(body)

        def _hang_up(self) -> None:
            self.close_connection = True
            self.connection.close()

        def _stream(self, events: list[Any], cut: int) -> None:
            self.send_response(200)
            self.send_header("content-type", "text/event-stream")
            self.send_header("connection", "close")
            self.end_headers()
            self.close_connection = True
            for event in events[:cut] if cut >= 0 else events:
                self.wfile.write(f"data: {json.dumps(event)}\n\n".encode())
                self.wfile.flush()

    return Handler


def _served(cluster: Cluster) -> Json:
    """What the gateway answers."""
    behaviour = cluster.live.get("behaviour")
    if behaviour == "hang":
        time.sleep(HANG)
    if behaviour == "sick" or not cluster.deployments:
        raise Refused(500, "the queries fail")
    return {"ready": True, "name": cluster.live.get("name", "")}


def _snapshot(cluster: Cluster) -> Json:
    return {
        "source_files": cluster.sources,
        "file_metadata": {
            name: {"sha256": hashlib.sha256(text.encode()).hexdigest(), "last_modified_ms": 0}
            for name, text in cluster.sources.items()
        },
        "helix_toml": cluster.helix_toml,
    }
