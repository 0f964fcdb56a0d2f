"""Who we are on Google Cloud when CI brings its own token (workload identity federation)."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs

import pytest
from google.auth import external_account

from model.errors import AuthExpired, HelixError, PermissionDenied
from providers.gcp_api import Api

AUDIENCE = "//iam.googleapis.com/projects/1/locations/global/workloadIdentityPools/ci/providers/gh"
ACCOUNT = "deployer@acme.iam.gserviceaccount.com"


@dataclass
class Sts:
    """Google's token exchange, and what hands out a service account's token for it."""

    url: str = ""
    accepts: str = "a.signed.token"
    seen: list[dict[str, str]] = field(default_factory=list)

    def exchange(self, form: dict[str, str]) -> tuple[int, dict[str, Any]]:
        """RFC 8693."""
        self.seen.append(form)
        assert form["grant_type"] == "urn:ietf:params:oauth:grant-type:token-exchange"
        assert form["audience"] == AUDIENCE
        if form["subject_token"] != self.accepts:
            said = "The given credential is rejected: the token is expired."
            return 400, {"error": "invalid_grant", "error_description": said}
        kind = "urn:ietf:params:oauth:token-type:access_token"
        return 200, {
            "access_token": "ya29.federated",
            "issued_token_type": kind,
            "token_type": "Bearer",
            "expires_in": 3600,
        }

    def impersonate(self, bearer: str) -> tuple[int, dict[str, Any]]:
        """IAM Credentials' generateAccessToken."""
        if bearer != "Bearer ya29.federated":
            return 403, {"error": {"code": 403, "message": "denied", "status": "PERMISSION_DENIED"}}
        until = datetime.now(UTC) + timedelta(hours=1)
        return 200, {"accessToken": "ya29.account", "expireTime": until.strftime("%FT%TZ")}


@pytest.fixture
def sts() -> Iterator[Sts]:
    found = Sts()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"])).decode()
            if self.path.endswith(":generateAccessToken"):
                status, answer = found.impersonate(self.headers["authorization"])
            else:
                form = {key: values[0] for key, values in parse_qs(body).items()}
                status, answer = found.exchange(form)
            content = json.dumps(answer).encode()
            self.send_response(status)
            self.send_header("content-type", "application/json")
            self.send_header("content-length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *_: object) -> None: ...

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    found.url = f"http://127.0.0.1:{server.server_port}"
    yield found
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def federate(sts: Sts, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, Any]]:
    """The file that `gcloud iam workload-identity-pools create-cred-config` writes, and the token
    that CI puts beside it."""
    token = tmp_path / "token"
    token.write_text(sts.accepts)
    content: dict[str, Any] = {
        "type": "external_account",
        "audience": AUDIENCE,
        "subject_token_type": "urn:ietf:params:oauth:token-type:jwt",
        "token_url": f"{sts.url}/v1/token",
        "credential_source": {"file": str(token)},
    }
    file = tmp_path / "config.json"
    file.write_text(json.dumps(content))
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(file))
    # The SDK asks the real Google for the name of the project, at an address that is not to be set.
    monkeypatch.setattr(external_account.Credentials, "get_project_id", lambda *_, **__: "acme")
    yield {"content": content, "file": file, "token": token}


def test_a_federated_token_is_exchanged(sts: Sts, federate: dict[str, Any]) -> None:
    who, until = Api(None).who()
    assert who == AUDIENCE
    assert until is not None and until > datetime.now(UTC)
    assert sts.seen[0]["subject_token"] == "a.signed.token"


def test_the_service_account_behind_it_is_named(sts: Sts, federate: dict[str, Any]) -> None:
    behind = f"{sts.url}/v1/projects/-/serviceAccounts/{ACCOUNT}:generateAccessToken"
    content = {**federate["content"], "service_account_impersonation_url": behind}
    federate["file"].write_text(json.dumps(content))
    assert Api(None).who()[0] == ACCOUNT


def test_a_token_that_is_too_old_or_wrong_says_so(sts: Sts, federate: dict[str, Any]) -> None:
    federate["token"].write_text("an.old.token")
    with pytest.raises(AuthExpired, match="expired") as caught:
        Api(None).who()
    assert "an.old.token" not in str(caught.value)


def test_a_token_file_that_is_not_there_is_named(federate: dict[str, Any]) -> None:
    federate["token"].unlink()
    with pytest.raises(HelixError, match=str(federate["token"])):
        Api(None).who()


def test_no_credentials_at_all(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(tmp_path / "nowhere.json"))
    with pytest.raises(PermissionDenied, match="nowhere") as caught:
        Api(None).who()
    assert "gcloud auth application-default login" in caught.value.hint
