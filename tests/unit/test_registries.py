"""What registries, engines and Docker's configuration say, and what we make of it."""

from __future__ import annotations

import base64
import json
import stat
from collections.abc import Callable
from datetime import UTC, datetime
from email.utils import format_datetime
from pathlib import Path

import httpx
import pytest
from pydantic import SecretStr

from model.docker_errors import TABLE, classify
from model.errors import (
    AuthExpired,
    BuildFailed,
    ConfigurationError,
    Conflict,
    HelixError,
    NotFound,
    PermissionDenied,
    PlatformUnhealthy,
    QuotaExceeded,
    Throttled,
    Transient,
)
from model.instance import RegistryTarget
from model.tokens import claims
from registries.auth import Challenge, RegistryAuth, challenges
from registries.base import Credentials, RegistryContext
from registries.catalog import REGISTRIES
from registries.credentials import IDENTITY_TOKEN, engine_auth, from_docker
from registries.distribution import Distribution
from registries.errors import from_response, retry_after
from registries.oci import OciRegistry
from registries.open import open_registry
from registries.push import PushProgress
from registries.reference import Reference, is_loopback


@pytest.mark.parametrize(
    ("text", "host", "path", "version"),
    [
        ("127.0.0.1:5000/shop", "127.0.0.1:5000", "shop", "latest"),
        ("ghcr.io/acme/shop:v1", "ghcr.io", "acme/shop", "v1"),
        ("busybox", "docker.io", "library/busybox", "latest"),
        ("acme/shop", "docker.io", "acme/shop", "latest"),
        ("registry-1.docker.io/acme/shop", "docker.io", "acme/shop", "latest"),
        ("localhost/shop", "localhost", "shop", "latest"),
        ("[::1]:5000/shop", "[::1]:5000", "shop", "latest"),
        (
            f"r.example.com/a/b/c:t@sha256:{'a' * 64}",
            "r.example.com",
            "a/b/c",
            f"sha256:{'a' * 64}",
        ),
    ],
)
def test_a_reference_is_taken_apart_as_an_engine_does(
    text: str, host: str, path: str, version: str
) -> None:
    found = Reference.parse(text)
    assert (found.host, found.path, found.version) == (host, path, version)


@pytest.mark.parametrize(
    "text", ["", "UPPER/case", "http://127.0.0.1:5000/shop", "a//b", "host.io/x@sha256:12", "a b"]
)
def test_what_is_no_reference_is_refused(text: str) -> None:
    with pytest.raises(ConfigurationError, match="not an image reference"):
        Reference.parse(text)


@pytest.mark.parametrize(
    ("host", "expected"),
    [
        ("127.0.0.1:5000", True),
        ("127.8.9.1", True),
        ("localhost:80", True),
        ("[::1]:5000", True),
        ("10.0.0.1:5000", False),
        ("127.0.0.1.example.com", False),
        ("localhost.example.com:5000", False),
    ],
)
def test_loopback_is_told_from_everything_else(host: str, expected: bool) -> None:
    assert is_loopback(host) is expected


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        ('Basic realm="test"', [("basic", {"realm": "test"})]),
        (
            'Bearer realm="https://a.example/token?x=1,2",service="r",scope="repository:a/b:pull,push"',
            [
                (
                    "bearer",
                    {
                        "realm": "https://a.example/token?x=1,2",
                        "service": "r",
                        "scope": "repository:a/b:pull,push",
                    },
                )
            ],
        ),
        (
            'Basic realm="a", Bearer realm="b", error=invalid_token',
            [("basic", {"realm": "a"}), ("bearer", {"realm": "b", "error": "invalid_token"})],
        ),
        (r'Bearer realm="say \"hi\""', [("bearer", {"realm": 'say "hi"'})]),
        ("Negotiate, BASIC realm=x", [("negotiate", {}), ("basic", {"realm": "x"})]),
        ("", []),
    ],
)
def test_a_challenge_is_taken_apart(
    header: str, expected: list[tuple[str, dict[str, str]]]
) -> None:
    assert challenges(header) == [Challenge(*entry) for entry in expected]


@pytest.mark.parametrize("realm", ["http://tokens.example.com/t", "ftp://x/t", "", "//x"])
def test_credentials_never_go_to_a_token_server_without_tls(realm: str) -> None:
    sent: list[httpx.Request] = []

    def answer(request: httpx.Request) -> httpx.Response:
        sent.append(request)
        return httpx.Response(401, headers={"WWW-Authenticate": f'Bearer realm="{realm}"'})

    auth = RegistryAuth("r.example.com", ["s"], lambda: Credentials("u", SecretStr("p")))
    with (
        httpx.Client(transport=httpx.MockTransport(answer)) as client,
        pytest.raises(ConfigurationError, match="for a token"),
    ):
        client.get("https://r.example.com/v2/", auth=auth)
    assert [request.url.host for request in sent] == ["r.example.com"]


def test_claims_are_read_from_a_jwt_and_from_nothing_else() -> None:
    body = base64.urlsafe_b64encode(b'{"exp": 5}').decode().rstrip("=")
    assert claims(f"e30.{body}.sig") == {"exp": 5}
    for other in ("", "opaque", "a.b.c", "e30.W10.x"):
        assert claims(other) == {}


def test_tags_are_read_over_all_pages() -> None:
    def answer(request: httpx.Request) -> httpx.Response:
        if "last" in request.url.params:
            return httpx.Response(200, json={"tags": ["b"]})
        link = '</v2/acme/shop/tags/list?last=a&n=1>; rel="next"'
        return httpx.Response(200, json={"tags": ["a"]}, headers={"Link": link})

    assert _answering(answer).tags() == ["a", "b"]


def test_an_upload_that_goes_on_elsewhere_takes_no_credentials_there() -> None:
    seen: dict[str, str | None] = {}

    def answer(request: httpx.Request) -> httpx.Response:
        seen[f"{request.method} {request.url.host}"] = request.headers.get("Authorization")
        if request.method == "HEAD":
            return httpx.Response(404)
        if "Authorization" not in request.headers and request.url.host == "r.example.com":
            return httpx.Response(401, headers={"WWW-Authenticate": "Basic realm=x"})
        if request.method == "POST":
            return httpx.Response(202, headers={"Location": "https://store.example.net/u?k=1"})
        return httpx.Response(201)

    _answering(answer).upload_bytes(b"content")
    assert seen["POST r.example.com"]
    assert seen["PUT store.example.net"] is None


def test_an_upload_never_goes_on_without_tls() -> None:
    def answer(request: httpx.Request) -> httpx.Response:
        return httpx.Response(202, headers={"Location": "http://r.example.com/u"})

    with pytest.raises(ConfigurationError, match="sends uploads to"):
        _answering(answer).try_upload()


def test_a_manifest_that_is_not_what_was_asked_for_is_not_believed() -> None:
    api = _answering(lambda request: httpx.Response(200, content=b"{}"))
    with pytest.raises(Transient, match="damaged"):
        api.manifest("sha256:" + "0" * 64)


def _answering(answer: Callable[[httpx.Request], httpx.Response]) -> Distribution:
    credentials = Credentials("u", SecretStr("p"))
    api = Distribution(Reference.parse("r.example.com/acme/shop"), lambda: credentials)
    api._client.close()
    api._client = httpx.Client(transport=httpx.MockTransport(answer))
    return api


@pytest.mark.parametrize(
    ("status", "code", "cls"),
    [
        (401, "UNAUTHORIZED", PermissionDenied),
        (403, "DENIED", PermissionDenied),
        (404, "NAME_UNKNOWN", NotFound),
        (404, "MANIFEST_UNKNOWN", NotFound),
        (404, "BLOB_UPLOAD_UNKNOWN", Transient),
        (400, "NAME_INVALID", ConfigurationError),
        (400, "TAG_INVALID", Conflict),
        (405, "UNSUPPORTED", ConfigurationError),
        (429, "TOOMANYREQUESTS", Throttled),
        (429, "", Throttled),
        (413, "", QuotaExceeded),
        (500, "UNKNOWN", Transient),
        (502, "", Transient),
        (503, "UNAUTHORIZED", Transient),
        (507, "", QuotaExceeded),
        (418, "", ConfigurationError),
    ],
)
def test_an_answer_becomes_an_error_of_the_taxonomy(
    status: int, code: str, cls: type[HelixError]
) -> None:
    body = {"errors": [{"code": code, "message": "because"}]} if code else {}
    error = from_response(httpx.Response(status, json=body), "push")
    assert type(error) is cls
    assert str(status) in error.message
    assert code in error.message


@pytest.mark.parametrize("content", [b"", b"<html>", b"[]", b'{"errors": "x"}', b'{"errors": [1]}'])
def test_an_answer_that_is_no_registrys_is_an_error_all_the_same(content: bytes) -> None:
    assert type(from_response(httpx.Response(502, content=content), "push")) is Transient


def test_a_limit_says_how_much_and_until_when() -> None:
    headers = {
        "retry-after": "17",
        "ratelimit-limit": "100;w=21600",
        "ratelimit-remaining": "0;w=21600",
        "x-request-id": "abc",
    }
    error = from_response(httpx.Response(429, headers=headers), "pull")
    assert isinstance(error, Throttled)
    assert error.retry_after == 17
    assert "limit 100;w=21600, left 0;w=21600" in error.message
    assert error.request_id == "abc"


def test_the_time_to_wait_is_read_in_all_its_spellings() -> None:
    now = datetime(2026, 11, 1, 12, 0, tzinfo=UTC)
    later = datetime(2026, 11, 1, 12, 0, 30, tzinfo=UTC)
    assert retry_after("30", now) == 30
    assert retry_after(str(int(later.timestamp())), now) == 30
    assert retry_after(format_datetime(later, usegmt=True), now) == 30
    assert retry_after("soon", now) is None
    assert retry_after("", now) is None


@pytest.mark.parametrize(
    ("message", "cls"),
    [
        ("unauthorized: authentication required", PermissionDenied),
        ("no basic auth credentials", PermissionDenied),
        ("denied: requested access to the resource is denied", PermissionDenied),
        ("denied: permission_denied: write_package", PermissionDenied),
        ("denied: Your authorization token has expired. Reauthenticate", AuthExpired),
        ("toomanyrequests: You have reached your pull rate limit", Throttled),
        ("dial tcp 127.0.0.1:5000: connect: connection refused", Transient),
        ("read tcp 10.0.0.1:2->10.0.0.2:3: read: connection reset by peer", Transient),
        ("Get https://r/v2/: net/http: TLS handshake timeout", Transient),
        ("received unexpected HTTP status: 503 Service Unavailable", Transient),
        ("unexpected EOF", Transient),
        ("dial tcp: lookup r.example on 1.1.1.1:53: no such host", Transient),
        ("manifest for r/x:y not found: manifest unknown", NotFound),
        ("x509: certificate signed by unknown authority", ConfigurationError),
        ("http: server gave HTTP response to HTTPS client", ConfigurationError),
        ("write /var/lib/docker/tmp/x: no space left on device", PlatformUnhealthy),
        ("Bind for 0.0.0.0:80 failed: port is already allocated", Conflict),
        ("tag invalid: The image tag 'v1' already exists and cannot be overwritten because the "
         "repository is immutable.", Conflict),
        ("failed to solve: process \"/bin/sh -c x\" did not complete successfully: exit code: 7",
         BuildFailed),
        ("Cannot connect to the Docker daemon at tcp://1. Is the docker daemon running?",
         PlatformUnhealthy),
        ("something nobody has seen", PlatformUnhealthy),
    ],
)  # fmt: skip
def test_a_sentence_of_dockers_is_understood(message: str, cls: type[HelixError]) -> None:
    assert classify(message) is cls
    assert classify(message.upper()) is cls


def test_a_sentence_nobody_knows_is_what_the_caller_says() -> None:
    assert classify("?", default=Transient) is Transient
    assert all(issubclass(cls, HelixError) for _, cls in TABLE)


def _config(folder: Path, **content: object) -> Path:
    file = folder / "config.json"
    file.write_text(json.dumps(content))
    return file


def _auth(user: str, password: str) -> dict[str, str]:
    return {"auth": base64.b64encode(f"{user}:{password}".encode()).decode()}


def _helper(folder: Path, monkeypatch: pytest.MonkeyPatch, script: str) -> None:
    program = folder / "docker-credential-test"
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("PATH", str(folder), prepend=":")


def test_what_docker_login_stored_is_found(tmp_path: Path) -> None:
    file = _config(
        tmp_path,
        auths={
            "127.0.0.1:5000": _auth("ann", "pass:with:colons"),
            "https://r.example.com/v2/": _auth("bob", "b"),
            "https://index.docker.io/v1/": _auth("hub", "h"),
            "token.example.com": {"auth": "", "identitytoken": "refresh"},
            "empty.example.com": {},
        },
    )

    def found(host: str) -> tuple[str, str] | None:
        credentials = from_docker(host, file)
        if credentials is None:
            return None
        return credentials.username, credentials.password.get_secret_value()

    assert found("127.0.0.1:5000") == ("ann", "pass:with:colons")
    assert found("r.example.com") == ("bob", "b")
    assert found("docker.io") == ("hub", "h")
    assert found("token.example.com") == (IDENTITY_TOKEN, "refresh")
    assert found("empty.example.com") is None
    assert found("other.example.com") is None


def test_docker_config_says_where_the_file_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _config(tmp_path, auths={"r.example.com": _auth("ann", "a")})
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path))
    found = from_docker("r.example.com")
    assert found is not None
    assert found.username == "ann"
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path / "none"))
    assert from_docker("r.example.com") is None


def test_a_credential_helper_is_asked_by_its_own_protocol(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _helper(
        tmp_path,
        monkeypatch,
        'read -r host; [ "$1" = get ] && [ "$host" = r.example.com ] '
        '&& echo \'{"Username": "ann", "Secret": "s3"}\' '
        "|| { echo 'credentials not found in native keychain'; exit 1; }",
    )
    for content in ({"credHelpers": {"r.example.com": "test"}}, {"credsStore": "test"}):
        found = from_docker("r.example.com", _config(tmp_path, **content))
        assert found == Credentials("ann", SecretStr("s3"))
    file = _config(tmp_path, credsStore="test", auths={"x.example.com": _auth("bob", "b")})
    assert from_docker("x.example.com", file) == Credentials("bob", SecretStr("b"))
    assert from_docker("y.example.com", file) is None


def test_a_helper_that_fails_is_named_and_its_words_are_not_repeated(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = _config(tmp_path, credsStore="test")
    with pytest.raises(ConfigurationError, match="docker-credential-test, which is not on"):
        from_docker("r.example.com", file)
    for script in ("echo canary-secret; exit 3", "echo canary-secret"):
        _helper(tmp_path, monkeypatch, script)
        with pytest.raises(ConfigurationError, match="docker-credential-test") as caught:
            from_docker("r.example.com", file)
        assert "canary" not in str(caught.value)


@pytest.mark.parametrize("auth", ["%%%", base64.b64encode(b"no colon").decode(), 7])
def test_a_broken_entry_names_the_file_and_the_entry(tmp_path: Path, auth: object) -> None:
    file = _config(tmp_path, auths={"r.example.com": {"auth": auth}})
    with pytest.raises(ConfigurationError, match=r"«r.example.com» of .*config.json"):
        from_docker("r.example.com", file)


def test_a_broken_file_is_named(tmp_path: Path) -> None:
    file = tmp_path / "config.json"
    file.write_text("{")
    with pytest.raises(ConfigurationError, match=r"config\.json"):
        from_docker("r.example.com", file)


def test_an_engine_gets_credentials_in_its_own_form() -> None:
    assert engine_auth("h", None) == {}
    assert engine_auth("h", Credentials("u", SecretStr("p"))) == {
        "username": "u",
        "password": "p",
        "serveraddress": "h",
    }
    assert engine_auth("h", Credentials(IDENTITY_TOKEN, SecretStr("t"))) == {
        "identitytoken": "t",
        "serveraddress": "h",
    }


def test_progress_is_the_sum_of_all_layers() -> None:
    progress = PushProgress()
    for event in (
        {"status": "Preparing", "id": "a"},
        {"status": "Layer already exists", "id": "z"},
        {"status": "Pushing", "progressDetail": {"current": 5, "total": 10}, "id": "a"},
        {"status": "Pushing", "progressDetail": {"current": 25, "total": 20}, "id": "b"},
    ):
        progress.take(event)
    assert (progress.done, progress.total) == (25, 30)
    progress.take({"status": "Pushed", "progressDetail": {}, "id": "a"})
    assert (progress.done, progress.total) == (30, 30)


@pytest.mark.parametrize(
    ("kind", "written", "repository"),
    [
        ("ghcr", "ghcr.io/acme/shop", "ghcr.io/acme/shop"),
        ("ghcr", "Acme/Shop", "ghcr.io/acme/shop"),
        ("docker_hub", "acme/shop", "docker.io/acme/shop"),
        ("oci", "127.0.0.1:5000/shop", "127.0.0.1:5000/shop"),
    ],
)
def test_each_kind_names_its_repository(kind: str, written: str, repository: str) -> None:
    target = RegistryTarget(kind=kind, repository=written)
    with open_registry(target, RegistryContext()) as registry:
        assert registry.kind == kind
        assert registry.repository == repository
        assert registry.host == repository.split("/")[0]


def test_every_kind_that_is_listed_can_be_loaded() -> None:
    for kind in ("docker_hub", "ghcr", "oci"):
        assert issubclass(REGISTRIES.load(kind), OciRegistry)


@pytest.mark.parametrize(
    ("settings", "match"),
    [
        ({"usrname": "x"}, "`usrname`"),
        ({"insecure": "maybe"}, "`insecure`"),
    ],
)
def test_a_wrong_setting_is_named(settings: dict[str, object], match: str) -> None:
    target = RegistryTarget.model_validate({"repository": "r.io/x", "settings": settings})
    with pytest.raises(ConfigurationError, match=match):
        OciRegistry(target, RegistryContext())


@pytest.mark.parametrize("repository", ["r.io/x:tag", "http://r.io/x", ""])
def test_a_repository_that_is_none_is_refused(repository: str) -> None:
    with pytest.raises(ConfigurationError):
        OciRegistry(RegistryTarget(repository=repository), RegistryContext())


def test_a_user_without_a_password_is_told_how_to_give_one() -> None:
    target = RegistryTarget(repository="r.io/x", settings={"username": "ann"})
    with pytest.raises(ConfigurationError, match="no password"):
        OciRegistry(target, RegistryContext()).credentials()


def test_ghcr_takes_the_token_of_a_github_job_last(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path))
    monkeypatch.setenv("GITHUB_TOKEN", "job")
    monkeypatch.setenv("GITHUB_ACTOR", "ann")
    registry = REGISTRIES.load("ghcr")(RegistryTarget(repository="a/b"), RegistryContext())
    assert registry.credentials() == Credentials("ann", SecretStr("job"))
    _config(tmp_path, auths={"ghcr.io": _auth("bob", "stored")})
    assert registry.credentials() == Credentials("bob", SecretStr("stored"))
