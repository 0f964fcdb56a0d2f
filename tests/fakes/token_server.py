"""A token server for registries: real HTTP, real signatures, and faults on demand.

It speaks both forms that registries use: GET with Basic (or anonymous), and the OAuth2 POST with a
password or a refresh token. The registry checks its tokens by the certificate in them.
"""

from __future__ import annotations

import base64
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from json import dumps
from threading import Thread
from urllib.parse import parse_qs, urlsplit

import jwt
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from tests.services.certificates import Certificates

ISSUER = "helix-test"
SERVICE = "helix-test-registry"


@dataclass
class TokenServer:
    """What the server does; may be changed while it runs."""

    certificates: Certificates
    port: int = 0
    users: dict[str, str] = field(default_factory=dict)
    """User -> password."""
    also: Callable[[str, str], bool] = lambda user, password: False
    """Whether to let in a user with a password that changes, such as a cloud's access token."""
    refresh_tokens: dict[str, str] = field(default_factory=dict)
    """Refresh (identity) token -> user."""
    granted: frozenset[str] | None = None
    """The actions that tokens get at most; None: all that are asked for."""
    anonymous: frozenset[str] = frozenset()
    """The actions that nobody in particular gets."""
    ttl: int = 300
    """Seconds a token says it lives."""
    stale: int = 0
    """How many of the next tokens are expired already, while they claim the contrary."""
    requests: list[tuple[str, str, str]] = field(default_factory=list)
    """Method, user and scopes of each request."""

    @property
    def realm(self) -> str:
        """Where registries send clients."""
        return f"http://127.0.0.1:{self.port}/token"

    def knows(self, user: str, password: str) -> bool:
        """Whether these are credentials of ours."""
        return self.users.get(user) == password or self.also(user, password)

    def allowed(self, user: str, actions: list[str]) -> list[str]:
        """Of the actions asked for, those the user gets."""
        limit = self.granted if user else self.anonymous
        return [action for action in actions if limit is None or action in limit]

    def issue(self, user: str, service: str, scopes: list[str]) -> str:
        """A signed token."""
        access = []
        for scope in scopes:
            kind, name, actions = scope.split(":")
            granted = self.allowed(user, actions.split(","))
            access.append({"type": kind, "name": name, "actions": granted})
        now = int(time.time())
        end = now + self.ttl
        if self.stale:
            self.stale -= 1
            # Registries forgive a minute.
            end = now - 120
        certificate = x509.load_pem_x509_certificate(self.certificates.certificate.read_bytes())
        chain = base64.b64encode(certificate.public_bytes(Encoding.DER)).decode()
        content = {
            "iss": ISSUER,
            "sub": user,
            "aud": service,
            "exp": end,
            "nbf": now - 300,
            "iat": now - 300,
            "jti": uuid.uuid4().hex,
            "access": access,
        }
        key = self.certificates.key.read_bytes()
        return jwt.encode(content, key, algorithm="ES256", headers={"x5c": [chain]})


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    state: TokenServer

    def log_message(self, format: str, *args: object) -> None:
        pass

    def do_GET(self) -> None:
        query = parse_qs(urlsplit(self.path).query)
        scopes = [scope for entry in query.get("scope", []) for scope in entry.split()]
        authorization = self.headers.get("Authorization", "")
        user, _, password = (
            base64.b64decode(authorization.removeprefix("Basic ")).decode().partition(":")
        )
        self.state.requests.append(("GET", user, " ".join(scopes)))
        if authorization and not self.state.knows(user, password):
            self._refuse("bad credentials")
        elif not authorization and not self.state.anonymous:
            self._refuse("no credentials")
        else:
            token = self.state.issue(user, query.get("service", [""])[0], scopes)
            self._answer(200, {"token": token, "expires_in": self.state.ttl})

    def do_POST(self) -> None:
        length = int(self.headers.get("Content-Length", 0))
        form = {key: value[0] for key, value in parse_qs(self.rfile.read(length).decode()).items()}
        scopes = form.get("scope", "").split()
        user = self.state.refresh_tokens.get(form.get("refresh_token", ""), "")
        if form.get("grant_type") == "password":
            name = form.get("username", "")
            user = name if self.state.knows(name, form.get("password", "")) else ""
        self.state.requests.append(("POST", user, " ".join(scopes)))
        if not user:
            self._refuse("bad credentials")
            return
        token = self.state.issue(user, form.get("service", ""), scopes)
        self._answer(200, {"access_token": token, "expires_in": self.state.ttl})

    def _refuse(self, message: str) -> None:
        self._answer(401, {"errors": [{"code": "UNAUTHORIZED", "message": message}]})

    def _answer(self, status: int, body: object) -> None:
        content = dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)


@contextmanager
def token_server(certificates: Certificates) -> Iterator[TokenServer]:
    """Run a token server on loopback. It signs with the server certificate, whose authority the
    registry must trust."""
    state = TokenServer(certificates)
    handler = type("Handler", (_Handler,), {"state": state})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    state.port = server.server_address[1]
    thread = Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    try:
        yield state
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
