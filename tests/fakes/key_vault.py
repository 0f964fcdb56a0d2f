"""A stand-in for Azure Key Vault and the login in front of it, under their own names.

The real SDKs speak TLS to login.microsoftonline.com and *.vault.azure.net; a proxy leads them here,
where a certificate of the test's own authority is shown.

    with KeyVault(certificates) as azure:
        azure.secrets["db"] = ["first version", "second version"]
        azure.environ   # the account, the proxy, and the authority to trust
"""

from __future__ import annotations

import json
import ssl
import uuid
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any
from urllib.parse import parse_qs, urlsplit

from tests.services.certificates import Certificates

LOGIN = "login.microsoftonline.com"
VAULT = "helix-test.vault.azure.net"
TENANT = "11111111-2222-3333-4444-555555555555"
CLIENT = "66666666-7777-8888-9999-000000000000"
PASSWORD = "the-password-of-the-service-principal"


class KeyVault:
    """One vault; keeps each secret's versions, oldest first."""

    def __init__(self, certificates: Certificates) -> None:
        self.secrets: dict[str, list[str]] = {}
        self.refusal: tuple[int, str] | None = None
        """The status and code of every answer of the vault, instead."""
        self.calls: list[str] = []
        self._tokens: set[str] = set()
        self._tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._tls.load_cert_chain(certificates.certificate, certificates.key)
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        proxy = f"http://127.0.0.1:{self._server.server_address[1]}"
        self.environ = {
            "AZURE_TENANT_ID": TENANT,
            "AZURE_CLIENT_ID": CLIENT,
            "AZURE_CLIENT_SECRET": PASSWORD,
            "HTTPS_PROXY": proxy,
            "https_proxy": proxy,
            "NO_PROXY": "",
            "no_proxy": "",
            "REQUESTS_CA_BUNDLE": str(certificates.ca),
        }

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        azure = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, format: str, *args: object) -> None:
                pass

            def do_CONNECT(self) -> None:
                """The proxy: whatever name was asked for, we are it."""
                self.send_response(200)
                self.end_headers()
                self.connection = azure._tls.wrap_socket(self.connection, server_side=True)
                self.rfile = self.connection.makefile("rb")
                self.wfile = self.connection.makefile("wb", buffering=0)  # type: ignore[assignment]
                self.close_connection = False

            def do_GET(self) -> None:
                self._answer("")

            def do_POST(self) -> None:
                length = int(self.headers.get("Content-Length", 0))
                self._answer(self.rfile.read(length).decode())

            def _answer(self, body: str) -> None:
                host = self.headers["Host"].partition(":")[0]
                path = urlsplit(self.path).path
                azure.calls.append(f"{host}{path}")
                answer = azure.login(path, body) if host == LOGIN else azure.vault(path, self)
                status, document, headers = answer
                content = json.dumps(document).encode()
                self.send_response(status)
                for name, value in headers.items():
                    self.send_header(name, value)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)

        return Handler

    def login(self, path: str, body: str) -> tuple[int, Any, dict[str, str]]:
        """Microsoft's login: where its parts are, and tokens for the service principal."""
        base = f"https://{LOGIN}/{TENANT}"
        if path.endswith("/openid-configuration"):
            places = {"authorization_endpoint": "authorize", "token_endpoint": "token"}
            found = {name: f"{base}/oauth2/v2.0/{end}" for name, end in places.items()}
            return 200, {**found, "issuer": f"{base}/v2.0"}, {}
        if not path.endswith("/token"):
            return 404, {"error": "not_found"}, {}
        form = parse_qs(body)
        if form.get("client_secret") != [PASSWORD] or form.get("client_id") != [CLIENT]:
            return 401, {"error": "invalid_client", "error_description": "AADSTS7000215"}, {}
        assert form["scope"] == ["https://vault.azure.net/.default"]
        token = uuid.uuid4().hex
        self._tokens.add(token)
        return 200, {"token_type": "Bearer", "expires_in": 3600, "access_token": token}, {}

    def vault(self, path: str, request: BaseHTTPRequestHandler) -> tuple[int, Any, dict[str, str]]:
        """GET /secrets/NAME/[VERSION], for whoever has one of our tokens."""
        token = request.headers.get("Authorization", "").removeprefix("Bearer ")
        if token not in self._tokens:
            where = f'authorization="https://{LOGIN}/{TENANT}", resource="https://vault.azure.net"'
            error = {"code": "Unauthorized", "message": "AKV10000: a token is missing"}
            return 401, {"error": error}, {"WWW-Authenticate": f"Bearer {where}"}
        if self.refusal is not None:
            status, code = self.refusal
            return status, {"error": {"code": code, "message": "refused: canary"}}, {}
        _, _, name, version = path.split("/", 3)
        versions = self.secrets.get(name, [])
        number = int(version) if version else len(versions)
        if not 1 <= number <= len(versions):
            error = {"code": "SecretNotFound", "message": f"{name} was not found in this vault"}
            return 404, {"error": error}, {}
        id = f"https://{VAULT}/secrets/{name}/{number}"
        return 200, {"value": versions[number - 1], "id": id, "attributes": {"enabled": True}}, {}

    def __enter__(self) -> KeyVault:
        self._thread = Thread(target=self._server.serve_forever, args=(0.05,), daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()
