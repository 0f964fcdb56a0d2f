"""Secret references, against real stores or servers that speak their protocol; and redaction."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest
from pydantic import SecretStr

from model.errors import (
    AuthExpired,
    ConfigurationError,
    HelixError,
    PermissionDenied,
    Throttled,
    Transient,
)
from model.redaction import HIDDEN, redact
from project.secrets import SCHEMES, Lookup, _translate, check, resolve


def value(reference: str, **options: object) -> str:
    return resolve(reference, **options).get_secret_value()  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "reference",
    [
        "env:NAME",
        "file:/run/secrets/x",
        "file:~/x",
        "keyring:helix/ann",
        "aws-sm:arn:aws:secretsmanager:eu-west-1:1:secret:shop-AbC#key",
        "aws-sm:shop",
        "aws-ssm:/shop/password",
        "gcp-sm:projects/p/secrets/s/versions/7",
        "gcp-sm:projects/p/secrets/s#key",
        "azure-kv:https://v.vault.azure.net/secrets/x/0123",
        "vault:kv/shop#password",
    ],
)
def test_a_reference_of_each_kind_is_accepted(reference: str) -> None:
    check(reference)


def test_the_example_of_each_kind_has_its_form() -> None:
    for scheme in SCHEMES.values():
        check(scheme.example)


@pytest.mark.parametrize(
    "reference", ["env:", "env:A B", "file:relative", "vault:kv/shop", "gcp-sm:x"]
)
def test_an_incomplete_reference_shows_how_to_write_it(reference: str) -> None:
    with pytest.raises(ConfigurationError, match="write it like this"):
        check(reference)


def test_a_misspelt_kind_gets_a_suggestion() -> None:
    with pytest.raises(ConfigurationError, match="did you mean «env:NAME»"):
        check("evn:NAME")


@pytest.mark.parametrize("text", ["canary-hunter2", "canary:hunter2", "https://canary@x", ""])
def test_a_secret_in_place_of_a_reference_is_not_repeated(text: str) -> None:
    with pytest.raises(ConfigurationError, match="not a secret reference") as caught:
        check(text)
    assert "canary" not in str(caught.value)


def test_the_environment_goes_before_the_env_file(tmp_path: Path) -> None:
    file = tmp_path / ".env"
    file.write_text("A=from-file\nB='quoted $A'\n")
    options = {"environ": {"A": "from-environment"}, "extra_env_file": file}
    assert value("env:A", **options) == "from-environment"
    assert value("env:B", **options) == "quoted $A"
    assert value("env:A", environ={"A": "x"}, extra_env_file=tmp_path / "none") == "x"


def test_a_missing_variable_is_named_with_what_to_do() -> None:
    with pytest.raises(ConfigurationError, match=r"env:GONE leads nowhere.*GONE=…"):
        resolve("env:GONE", environ={})


def test_an_empty_secret_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="env:A is empty"):
        resolve("env:A", environ={"A": ""})


@pytest.mark.parametrize(
    ("content", "expected"),
    [("s3cret\n", "s3cret"), ("two\nlines\r\n", "two\nlines"), (" s ", " s ")],
)
def test_a_file_holds_the_secret_without_its_last_line_end(
    tmp_path: Path, content: str, expected: str
) -> None:
    file = tmp_path / "secret"
    file.write_bytes(content.encode())
    assert value(f"file:{file}") == expected


def test_a_file_that_cannot_be_used_is_named(tmp_path: Path) -> None:
    (tmp_path / "large").write_bytes(b"x" * ((1 << 20) + 1))
    (tmp_path / "binary").write_bytes(b"\xff\xfe")
    for name in ("missing", "large", "binary", "."):
        with pytest.raises(ConfigurationError, match=str(tmp_path)):
            resolve(f"file:{tmp_path}/{name}")


def test_a_store_whose_sdk_is_missing_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    for module, reference, extra in (
        ("keyring", "keyring:a/b", "keyring"),
        ("boto3", "aws-sm:a", "aws"),
        ("google.cloud.secretmanager", "gcp-sm:projects/p/secrets/s", "gcp"),
        ("azure.identity", "azure-kv:https://v/secrets/n", "azure"),
        ("hvac", "vault:kv/a#b", "vault"),
    ):
        monkeypatch.setitem(sys.modules, module, None)
        with pytest.raises(ConfigurationError, match=rf"helix-deploy\[{extra}\]"):
            resolve(reference)


def test_a_keyring_is_read() -> None:
    keyring = pytest.importorskip("keyring")
    from keyring.backend import KeyringBackend

    class Memory(KeyringBackend):
        priority = 1

        def get_password(self, service: str, username: str) -> str | None:
            return {("helix", "ann"): "s3"}.get((service, username))

        def set_password(self, service: str, username: str, password: str) -> None:
            raise NotImplementedError

    before = keyring.get_keyring()
    keyring.set_keyring(Memory())
    try:
        assert value("keyring:helix/ann") == "s3"
        with pytest.raises(ConfigurationError, match="keyring set helix bob"):
            resolve("keyring:helix/bob")
    finally:
        keyring.set_keyring(before)


@pytest.fixture(scope="module")
def aws() -> Iterator[None]:
    """The stores of AWS, as moto's server plays them over HTTP."""
    pytest.importorskip("boto3")
    server = pytest.importorskip("moto.server").ThreadedMotoServer(ip_address="127.0.0.1", port=0)
    server.start()
    host, port = server.get_host_and_port()
    changes = {
        "AWS_ENDPOINT_URL": f"http://{host}:{port}",
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
        "AWS_DEFAULT_REGION": "eu-west-1",
        "NO_PROXY": "127.0.0.1",
    }
    with pytest.MonkeyPatch.context() as patch:
        for name, setting in changes.items():
            patch.setenv(name, setting)
        yield
    server.stop()


def test_aws_secrets_are_read(aws: None) -> None:
    import boto3

    manager, parameters = boto3.client("secretsmanager"), boto3.client("ssm")
    arn = manager.create_secret(Name="shop", SecretString='{"password": "s3", "port": 5}')["ARN"]
    parameters.put_parameter(Name="/shop/key", Value="s4", Type="SecureString")
    assert value(f"aws-sm:{arn}#password") == "s3"
    assert value("aws-sm:shop#port") == "5"
    assert value("aws-ssm:/shop/key") == "s4"
    with pytest.raises(ConfigurationError, match="no field «pasword»"):
        resolve("aws-sm:shop#pasword")
    for reference in ("aws-sm:gone", "aws-ssm:/gone"):
        with pytest.raises(ConfigurationError, match=f"{reference} cannot be read"):
            resolve(reference)


@contextmanager
def vault(secrets: dict[str, object]) -> Iterator[dict[str, str]]:
    """The read API of a vault. Paths that a policy refuses map to None."""

    class Handler(BaseHTTPRequestHandler):
        def log_message(self, format: str, *args: object) -> None:
            pass

        def do_GET(self) -> None:
            path = self.path.removeprefix("/v1/")
            found = secrets.get(path, "absent")
            denied = self.headers.get("X-Vault-Token") != "root" or found is None
            status = 403 if denied else 404 if found == "absent" else 200
            body = json.dumps({"data": found} if status == 200 else {"errors": []}).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    try:
        address = f"http://127.0.0.1:{server.server_address[1]}"
        yield {"VAULT_ADDR": address, "VAULT_TOKEN": "root"}
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def test_a_vault_is_read_in_both_versions(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("hvac")
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    kept = {
        "kv/data/shop": {"data": {"password": "second"}, "metadata": {}},
        "old/shop": {"password": "first"},
        "strict/data/shop": None,
        "strict/shop": {"password": "strict"},
    }
    with vault(kept) as environ:
        assert value("vault:kv/shop#password", environ=environ) == "second"
        assert value("vault:old/shop#password", environ=environ) == "first"
        assert value("vault:strict/shop#password", environ=environ) == "strict"
        for reference in ("vault:kv/shop#other", "vault:kv/gone#password"):
            with pytest.raises(ConfigurationError, match="is not in the vault"):
                resolve(reference, environ=environ)
        with pytest.raises(PermissionDenied, match="vault:kv/shop#password"):
            resolve("vault:kv/shop#password", environ={**environ, "VAULT_TOKEN": "wrong"})
    with pytest.raises(Transient):
        resolve("vault:kv/shop#password", environ=environ)


def _named(name: str) -> Exception:
    return type(name, (Exception,), {})("canary")


class _Boto(Exception):
    def __init__(self, code: str) -> None:
        super().__init__("canary")
        self.response = {"Error": {"Code": code, "Message": "canary"}}


@pytest.mark.parametrize(
    ("error", "cls"),
    [
        (_Boto("AccessDeniedException"), PermissionDenied),
        (_Boto("ExpiredTokenException"), AuthExpired),
        (_Boto("ThrottlingException"), Throttled),
        (_Boto("ResourceNotFoundException"), ConfigurationError),
        (_Boto("ParameterNotFound"), ConfigurationError),
        (_Boto("InternalServiceError"), Transient),
        (_named("EndpointConnectionError"), Transient),
        (_named("NoCredentialsError"), ConfigurationError),
        (_named("ServiceUnavailable"), Transient),
        (_named("DefaultCredentialsError"), ConfigurationError),
        (_named("ClientAuthenticationError"), PermissionDenied),
        (_named("Surprise"), ConfigurationError),
    ],
)
def test_what_a_store_says_becomes_an_error_of_the_taxonomy(
    error: Exception, cls: type[HelixError]
) -> None:
    found = _translate(error, Lookup("aws-sm:shop", {}, {}))
    assert type(found) is cls
    assert "aws-sm:shop" in str(found)
    assert "canary" not in str(found)


@pytest.mark.parametrize(
    "secret",
    [
        "AKIA" + "A1B2" * 4,
        "ghp_" + "a1B2" * 9,
        "github_pat_" + "a1B2" * 9,
        "glpat-" + "a1B2" * 5,
        "dckr_pat_" + "a1B2" * 6,
        "hvs." + "a1B2" * 6,
        "fo1_" + "a1B2" * 8,
        "eyJhbGciOiJub25lIn0.eyJzdWIiOiJhbm4ifQ.c2lnbmF0dXJl",
    ],
)
def test_a_well_known_token_is_hidden_wherever_it_stands(secret: str) -> None:
    for text in (secret, f"token={secret};", f'{{"a": "{secret}"}}', f"x\n{secret}\ny"):
        hidden = redact(text)
        assert secret not in hidden
        assert HIDDEN in hidden


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Authorization: Basic dTpw", f"Authorization: Basic {HIDDEN}"),
        ("'authorization': 'Bearer abc'", f"'authorization': 'Bearer {HIDDEN}'"),
        ("Bearer " + "ab12" * 8, f"Bearer {HIDDEN}"),
        ("FlyV1 fm2_abc,fm2_def", f"FlyV1 {HIDDEN}"),
        ("https://ann:s3@r.example/x", f"https://ann:{HIDDEN}@r.example/x"),
        ("https://b/x?X-Amz-Signature=ab&y=1", f"https://b/x?X-Amz-Signature={HIDDEN}&y=1"),
        ("a -----BEGIN EC PRIVATE KEY-----\nx\n-----END EC PRIVATE KEY----- b", f"a {HIDDEN} b"),
    ],
)
def test_what_stands_around_a_token_stays(text: str, expected: str) -> None:
    assert redact(text) == expected


@pytest.mark.parametrize(
    "text",
    [
        "no basic auth credentials; authentication required",
        "set username and password in [deploy.<instance>.registry]",
        'Bearer realm="https://auth.example/token"',
        "sha256:" + "ab" * 32,
        "https://ghcr.io/v2/acme/shop: denied",
    ],
)
def test_plain_sentences_stay_as_they_are(text: str) -> None:
    assert redact(text) == text


def test_known_values_are_hidden_the_longest_first() -> None:
    secrets: list[SecretStr | str] = [SecretStr("hunter"), SecretStr("hunter2-longer"), "no", ""]
    assert redact("hunter2-longer hunter no", secrets) == f"{HIDDEN} {HIDDEN} no"


def test_a_resolved_secret_does_not_show_itself() -> None:
    found = resolve("env:A", environ={"A": "canary"})
    assert "canary" not in f"{found} {found!r}"
    assert os.environ.get("A") != "canary"
