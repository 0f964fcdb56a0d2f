"""Cloud Storage's JSON API on loopback, as far as buckets and the removal of objects go.

The real client speaks to it (`STORAGE_EMULATOR_HOST`), and reads every answer.

    with fake_gcs() as gcs:
        gcs.url, gcs.buckets["data"].objects
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit


@dataclass
class FakeBucket:
    """A bucket: its resource as the API has it, and (name, generation) of its objects."""

    resource: dict[str, Any]
    objects: list[tuple[str, int]] = field(default_factory=list)


@dataclass
class FakeGcs:
    """The state of the storage."""

    url: str = ""
    buckets: dict[str, FakeBucket] = field(default_factory=dict)
    foreign: set[str] = field(default_factory=set)
    """Names that another project has."""
    lost: set[str] = field(default_factory=set)
    """Methods whose next call is carried out and answered by 503."""
    calls: list[str] = field(default_factory=list)

    def handle(
        self, method: str, path: list[str], query: dict[str, list[str]], body: dict[str, Any]
    ) -> tuple[int, Any]:
        """One call: `path` is what comes after /storage/v1."""
        name = path[1] if len(path) > 1 else ""
        if name in self.foreign or body.get("name") in self.foreign:
            return (409, "The requested bucket name is not available.") if not name else (
                403, "does not have storage.buckets.get access"
            )  # fmt: skip
        if not name:
            return self._create(body)
        bucket = self.buckets.get(name)
        if bucket is None:
            return 404, "The specified bucket does not exist."
        match method, path[2:]:
            case "GET", []:
                return 200, bucket.resource
            case "PATCH", []:
                bucket.resource |= body
                return 200, bucket.resource
            case "DELETE", []:
                if bucket.objects:
                    return 409, "The bucket you tried to delete is not empty."
                del self.buckets[name]
                return 204, None
            case "GET", ["o"]:
                most = int(query.get("maxResults", ["1000"])[0])
                found = [
                    {"kind": "storage#object", "name": one, "generation": str(generation),
                     "bucket": name}
                    for one, generation in bucket.objects[:most]
                ]  # fmt: skip
                return 200, {"kind": "storage#objects", "items": found}
            case "DELETE", ["o", key]:
                generation = int(query.get("generation", ["0"])[0])
                if (unquote(key), generation) not in bucket.objects:
                    return 404, "No such object"
                bucket.objects.remove((unquote(key), generation))
                return 204, None
        return 501, f"{method} {path} is not played here"

    def _create(self, body: dict[str, Any]) -> tuple[int, Any]:
        if body["name"] in self.buckets:
            return 409, "Your previous request to create the named bucket succeeded."
        self.buckets[body["name"]] = FakeBucket({"kind": "storage#bucket", **body})
        return 200, self.buckets[body["name"]].resource


@contextmanager
def fake_gcs() -> Iterator[FakeGcs]:
    """Start it; everything in it is gone at the end."""
    gcs = FakeGcs()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def _serve(self) -> None:
            url = urlsplit(self.path)
            path = url.path.split("/storage/v1/", 1)[-1].strip("/").split("/")
            raw = self.rfile.read(int(self.headers.get("content-length") or 0))
            body = json.loads(raw) if raw else {}
            gcs.calls.append(f"{self.command} {'/'.join(path)}")
            status, answer = gcs.handle(self.command, path, parse_qs(url.query), body)
            if self.command in gcs.lost:
                gcs.lost.remove(self.command)
                status, answer = 503, "Backend Error"
            if status >= 400:
                answer = {"error": {"code": status, "message": answer, "errors": []}}
            content = b"" if answer is None else json.dumps(answer).encode()
            self.send_response(status)
            self.send_header("content-type", "application/json")
            self.send_header("content-length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        do_GET = do_POST = do_PATCH = do_DELETE = _serve

        def log_message(self, *_: object) -> None: ...

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    gcs.url = f"http://127.0.0.1:{server.server_port}"
    try:
        yield gcs
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
