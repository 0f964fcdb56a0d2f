"""A stand-in for HashiCorp Vault's read API: both versions of its key-value engine.

with Vault({"kv/data/shop": {"data": {"password": "s3"}}}) as vault:
    vault.environ   # VAULT_ADDR and VAULT_TOKEN
"""

from __future__ import annotations

import json
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread

TOKEN = "root-token-of-a-test"


class Vault:
    """Answers reads below /v1/ for whoever shows the token.

    Args:
        secrets: path -> what lies there; None for a path that a policy refuses.
    """

    def __init__(self, secrets: dict[str, object]) -> None:
        self.secrets = secrets
        self.sealed = False
        self.calls: list[str] = []
        vault = self

        class Handler(BaseHTTPRequestHandler):
            def log_message(self, format: str, *args: object) -> None:
                pass

            def do_GET(self) -> None:
                path = self.path.removeprefix("/v1/")
                vault.calls.append(path)
                status, answer = vault.answer(path, self.headers.get("X-Vault-Token", ""))
                body = json.dumps(answer).encode()
                self.send_response(status)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.environ = {
            "VAULT_ADDR": f"http://127.0.0.1:{self._server.server_address[1]}",
            "VAULT_TOKEN": TOKEN,
        }

    def answer(self, path: str, token: str) -> tuple[int, dict[str, object]]:
        """The status and the body of one read."""
        if self.sealed:
            return 503, {"errors": ["Vault is sealed"]}
        found = self.secrets.get(path, "absent")
        if token != TOKEN or found is None:
            return 403, {"errors": ["permission denied"]}
        return (404, {"errors": []}) if found == "absent" else (200, {"data": found})

    def __enter__(self) -> Vault:
        self._thread = Thread(target=self._server.serve_forever, args=(0.05,), daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()
