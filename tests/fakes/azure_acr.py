"""What Azure Container Registry has before a real registry: TLS, Entra's exchange, its own calls.

`/oauth2/exchange` takes Entra's token for a refresh token, `/oauth2/token` takes that for a token
of the registry; `/acr/v1/<name>/_tags/<tag>` removes a tag alone, which no other registry offers in
that way. All else goes on to Debian's docker-registry.
"""

from __future__ import annotations

import base64
import json
import shutil
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import httpx
import jwt

from tests.fakes.azure import KEY
from tests.fakes.azure_web import Handler, TlsServer
from tests.fakes.token_server import ISSUER, TokenServer
from tests.services.certificates import Certificates
from tests.services.registry import TestRegistry, open_registry

USER = "00000000-0000-0000-0000-000000000000"


@dataclass
class FakeAcr:
    """The registry; may be changed while it runs."""

    tokens: TokenServer
    login_server: str = "acmeshop.azurecr.io"
    images: TestRegistry | None = None
    host: str = ""
    strangers: bool = False
    """Entra's tokens are of a tenant that the registry does not know."""
    life: int = 10800
    refresh_tokens: list[str] = field(default_factory=list)
    """All that were given out."""
    calls: list[str] = field(default_factory=list)

    def exchange(self, form: dict[str, str]) -> tuple[int, dict[str, Any]]:
        """Entra's token for one of the registry."""
        try:
            said = jwt.decode(
                form["access_token"], KEY, ["HS256"], audience="https://containerregistry.azure.net"
            )
        except jwt.InvalidTokenError:
            return _no(401, "UNAUTHORIZED", "authentication required")
        if self.strangers or form["service"] != self.login_server:
            return _no(401, "UNAUTHORIZED", "the token is of another tenant")
        return 200, {"refresh_token": self.issue(said["upn"])}

    def issue(self, who: str) -> str:
        """A refresh token."""
        claims = {"sub": who, "exp": int(time.time()) + self.life, "jti": uuid.uuid4().hex}
        self.refresh_tokens.append(jwt.encode(claims, KEY, "HS256"))
        return self.refresh_tokens[-1]

    def token(
        self, user: str, password: str, service: str, scopes: list[str]
    ) -> tuple[int, dict[str, Any]]:
        """A refresh token, or a token of the registry's own, for one that opens a repository."""
        if password not in self.refresh_tokens and not self.tokens.knows(user, password):
            return _no(401, "UNAUTHORIZED", "authentication required")
        return 200, {"access_token": self.tokens.issue(user, service, scopes)}

    def remove_tag(self, name: str, tag: str, authorization: str) -> tuple[int, dict[str, Any]]:
        """ACR's own call."""
        token = authorization.removeprefix("Bearer ")
        if not token:
            return 401, {}
        said = jwt.decode(token, options={"verify_signature": False})
        granted = [one for entry in said["access"] for one in entry["actions"]]
        if "delete" not in granted:
            return _no(403, "DENIED", "requested access to the resource is denied")
        assert self.images is not None
        kept = self.images.folder / "data/docker/registry/v2/repositories" / name
        folder = kept / "_manifests/tags" / tag
        if not folder.exists():
            return _no(404, "TAG_UNKNOWN", f"the tag {tag} is unknown")
        shutil.rmtree(folder)
        return 202, {}


def _no(status: int, code: str, message: str) -> tuple[int, dict[str, Any]]:
    return status, {"errors": [{"code": code, "message": message}]}


class _Handler(Handler):
    acr: FakeAcr

    def _any(self) -> None:
        body = self._body()
        acr, url = self.acr, urlsplit(self.path)
        acr.calls.append(f"{self.command} {url.path}")
        oauth = body.decode() if url.path.startswith("/oauth2/") else ""
        form = {key: one[0] for key, one in parse_qs(oauth).items()}
        query = parse_qs(url.query)
        authorization = self.headers.get("authorization", "")
        if url.path == "/oauth2/exchange":
            self._answer(*acr.exchange(form))
        elif url.path == "/oauth2/token" and self.command == "POST":
            scopes = form.get("scope", "").split()
            user, password = form.get("username", USER), form.get("password", "")
            password = form.get("refresh_token", password)
            self._answer(*acr.token(user, password, form.get("service", ""), scopes))
        elif url.path == "/oauth2/token":
            pair = base64.b64decode(authorization.removeprefix("Basic ")).decode()
            user, _, password = pair.partition(":")
            scopes = [one for entry in query.get("scope", ()) for one in entry.split()]
            self._answer(*acr.token(user, password, query["service"][0], scopes))
        elif url.path.startswith("/acr/v1/"):
            name, _, tag = url.path.removeprefix("/acr/v1/").partition("/_tags/")
            status, content = acr.remove_tag(name, tag, authorization)
            challenge = (
                f'Bearer realm="https://{acr.host}/oauth2/token",service="{acr.login_server}",'
                f'scope="repository:{name}:{"delete" if tag else "metadata_read"}"'
            )
            self._answer(
                status, content, **({"WWW-Authenticate": challenge} if status == 401 else {})
            )
        else:
            self._pass_on(body)

    do_GET = do_HEAD = do_PUT = do_PATCH = do_POST = do_DELETE = _any

    def _body(self) -> bytes:
        if self.headers.get("transfer-encoding", "").lower() != "chunked":
            return self.rfile.read(int(self.headers.get("content-length") or 0))
        parts = []
        while size := int(self.rfile.readline().split(b";")[0], 16):
            parts.append(self.rfile.read(size))
            self.rfile.readline()
        self.rfile.readline()
        return b"".join(parts)

    def _pass_on(self, body: bytes) -> None:
        assert self.acr.images is not None
        skipped = {"transfer-encoding", "content-length", "connection"}
        headers = {key: value for key, value in self.headers.items() if key.lower() not in skipped}
        answer = httpx.request(
            self.command,
            f"http://{self.acr.images.host}{self.path}",
            headers={**headers, "X-Forwarded-Proto": "https"},
            content=body,
            timeout=60,
        )
        self.send_response(answer.status_code)
        for key, value in answer.headers.items():
            if key not in ("transfer-encoding", "connection", "content-length", "date", "server"):
                self.send_header(key, value)
        length = answer.headers.get("content-length", "0") if self.command == "HEAD" else None
        self.send_header("content-length", length or str(len(answer.content)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(answer.content)

    def _answer(self, status: int, content: dict[str, Any], **headers: str) -> None:
        body = json.dumps(content).encode()
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("content-type", "application/json")
        self.send_header("x-ms-correlation-request-id", str(uuid.uuid4()))
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)


@contextmanager
def acr_registry(folder: Path, certificates: Certificates) -> Iterator[FakeAcr]:
    """The registry on loopback.

    Args:
        certificates: of its TLS, and with which its tokens are signed.
    """
    acr = FakeAcr(TokenServer(certificates))
    front = TlsServer(certificates, type("Handler", (_Handler,), {"acr": acr}))
    acr.host = front.host
    auth = {
        "token": {
            "realm": f"https://{front.host}/oauth2/token",
            "service": acr.login_server,
            "issuer": ISSUER,
            "rootcertbundle": str(certificates.ca),
        }
    }
    try:
        with open_registry(folder, auth=auth) as images:
            acr.images = images
            yield acr
    finally:
        front.stop()
