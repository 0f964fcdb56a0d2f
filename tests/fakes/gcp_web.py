"""What answers at the addresses that the stand-in for Google Cloud hands out, by real HTTP.

`/run/<service>` is a service, shared out by its traffic; `/run/<service>/tag/<tag>` is one revision
of it. A private service wants a token made for its address. `/token` is Google's token server: it
takes a service account's signed claim, and gives an access token or an identity token.
"""

from __future__ import annotations

import json
import time
import uuid
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs

import jwt
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

if TYPE_CHECKING:
    from tests.fakes.gcp import FakeGcp

ACCOUNT = "deployer@acme.iam.gserviceaccount.com"
SIGNING_KEY = "the stand-in's own key, for identity tokens"


class Web:
    """The web server."""

    def __init__(self, cloud: FakeGcp) -> None:
        self.cloud = cloud
        self.access_tokens: list[str] = []
        """All that were given out."""
        self.refuse_tokens = ""
        """An OAuth2 error with which the token server answers, if not empty."""

    @property
    def address(self) -> str:
        """Of the server."""
        return f"http://127.0.0.1:{self._server.server_address[1]}"

    def start(self) -> None:
        """Begin to answer."""
        handler = type("Handler", (_Handler,), {"web": self})
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self._thread = Thread(target=self._server.serve_forever, args=(0.05,), daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Stop answering."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def account_file(self, folder: Path) -> Path:
        """A key file of a service account, as GOOGLE_APPLICATION_CREDENTIALS names one."""
        key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
        pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()
        content = {
            "type": "service_account",
            "project_id": "acme",
            "private_key_id": "1",
            "private_key": pem,
            "client_email": ACCOUNT,
            "client_id": "1",
            "token_uri": f"{self.address}/token",
        }
        file = folder / "account.json"
        file.touch(mode=0o600)
        file.write_text(json.dumps(content))
        return file

    def token(self, form: dict[str, str]) -> tuple[int, dict[str, Any]]:
        """The token server."""
        if self.refuse_tokens:
            return 400, {"error": self.refuse_tokens, "error_description": "Token expired."}
        claims = jwt.decode(form["assertion"], options={"verify_signature": False})
        if audience := claims.get("target_audience"):
            content = {"aud": audience, "email": ACCOUNT, "exp": time.time() + 3600}
            return 200, {"id_token": jwt.encode(content, SIGNING_KEY, "HS256")}
        token = f"ya29.{uuid.uuid4().hex}"
        self.access_tokens.append(token)
        return 200, {"access_token": token, "expires_in": 3600, "token_type": "Bearer"}

    def answer(self, path: str, authorization: str) -> tuple[int, dict[str, Any]]:
        """A service or one of its revisions."""
        parts = path.strip("/").split("/")
        if len(parts) < 2 or parts[0] != "run":
            return 404, {"error": "no such address"}
        tag = parts[3] if parts[2:3] == ["tag"] else ""
        with self.cloud.lock:
            self.cloud.advance()
            service = self.cloud.run.by_id(parts[1])
            if service is None:
                return 404, {"error": "no such service"}
            if not service.invoker_iam_disabled and not self._invited(authorization, service.uri):
                return 403, {"error": "Your client does not have permission to get this URL"}
            return self.cloud.run.respond(service, tag, path)

    def _invited(self, authorization: str, audience: str) -> bool:
        token = authorization.removeprefix("Bearer ")
        try:
            jwt.decode(token, SIGNING_KEY, ["HS256"], audience=audience)
        except jwt.InvalidTokenError:
            return False
        return True


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    web: Web

    def log_message(self, format: str, *args: object) -> None:
        pass

    def do_GET(self) -> None:
        self._answer(*self.web.answer(self.path, self.headers.get("authorization", "")))

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("content-length", 0))).decode()
        self._answer(*self.web.token({key: one[0] for key, one in parse_qs(body).items()}))

    def _answer(self, status: int, body: dict[str, Any]) -> None:
        content = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)
