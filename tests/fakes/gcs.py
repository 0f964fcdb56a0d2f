"""Cloud Storage on loopback: its JSON API, as far as buckets and the removal of objects go, and of
its XML API, which is S3's, what a database does with objects.

The real clients speak to it (`STORAGE_EMULATOR_HOST`, boto3), and read every answer.

    with fake_gcs() as gcs:
        gcs.url, gcs.buckets["data"].objects
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any
from urllib.parse import SplitResult, parse_qs, unquote, urlsplit

from botocore.auth import S3SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials


@dataclass
class FakeBucket:
    """A bucket: its resource as the API has it, and (name, generation) of its objects."""

    resource: dict[str, Any]
    objects: list[tuple[str, int]] = field(default_factory=list)
    contents: dict[str, bytes] = field(default_factory=dict)
    """What those have that were put by the XML API."""


@dataclass
class FakeGcs:
    """The state of the storage."""

    url: str = ""
    buckets: dict[str, FakeBucket] = field(default_factory=dict)
    foreign: set[str] = field(default_factory=set)
    """Names that another project has."""
    hmac: dict[str, str] = field(default_factory=dict)
    """The keys that open the XML API: id -> secret."""
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

    def object(
        self, method: str, path: str, query: dict[str, list[str]], body: bytes
    ) -> tuple[int, bytes]:
        """One call of the XML API, by whoever has a key."""
        name, _, key = unquote(path).strip("/").partition("/")
        bucket = self.buckets.get(name)
        if bucket is None:
            return 404, b"<Error><Code>NoSuchBucket</Code></Error>"
        match method, key:
            case "PUT", key if key:
                bucket.objects.append((key, len(bucket.objects) + 1))
                bucket.contents[key] = body
                return 200, b""
            case "GET", "":
                prefix = query.get("prefix", [""])[0]
                found = sorted(one for one in bucket.contents if one.startswith(prefix))
                keys = "".join(f"<Contents><Key>{one}</Key></Contents>" for one in found)
                return 200, f"<ListBucketResult>{keys}</ListBucketResult>".encode()
            case "GET", key if key in bucket.contents:
                return 200, bucket.contents[key]
        return 404, b"<Error><Code>NoSuchKey</Code></Error>"

    def knows(self, method: str, url: str, headers: Mapping[str, str]) -> bool:
        """Whether a request is signed with an HMAC key (AWS's signature, version 4)."""
        found = re.fullmatch(
            r"AWS4-HMAC-SHA256 Credential=(?P<id>[^/]+)/\d+/(?P<region>[^/]+)/s3/aws4_request, "
            r"SignedHeaders=(?P<headers>[^,]+), Signature=(?P<signature>\w+)",
            headers.get("authorization", ""),
        )
        if found is None or found["id"] not in self.hmac:
            return False
        signed = {name: headers[name] for name in found["headers"].split(";")}
        request = AWSRequest(method, url, headers=signed)
        request.context["timestamp"] = headers["x-amz-date"]
        auth = S3SigV4Auth(Credentials(found["id"], self.hmac[found["id"]]), "s3", found["region"])
        text = auth.string_to_sign(request, auth.canonical_request(request))
        return auth.signature(text, request) == found["signature"]

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
            if not url.path.startswith("/storage/v1/"):
                return self._object(url)
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

        do_GET = do_POST = do_PATCH = do_PUT = do_DELETE = _serve

        def _object(self, url: SplitResult) -> None:
            body = self.rfile.read(int(self.headers.get("content-length") or 0))
            headers = {name.lower(): value for name, value in self.headers.items()}
            if gcs.knows(self.command, f"{gcs.url}{self.path}", headers):
                status, content = gcs.object(self.command, url.path, parse_qs(url.query), body)
            else:
                status, content = 403, b"<Error><Code>SignatureDoesNotMatch</Code></Error>"
            self.send_response(status)
            self.send_header("content-length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

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
