"""Secret references: their forms, files and the environment; and redaction."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from types import SimpleNamespace

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
        "gcp-sm:projects/p/locations/europe-west3/secrets/s/versions/2",
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


def _named(name: str) -> Exception:
    return type(name, (Exception,), {})("canary")


class _Boto(Exception):
    def __init__(self, code: str) -> None:
        super().__init__("canary")
        self.response = {"Error": {"Code": code, "Message": "canary"}}


class _Azure(Exception):
    def __init__(self, code: str, status: int) -> None:
        super().__init__("canary")
        self.error = SimpleNamespace(code=code) if code else None
        self.status_code = status


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
        (_Azure("Forbidden", 403), PermissionDenied),
        (_Azure("", 403), PermissionDenied),
        (_Azure("", 429), Throttled),
        (_Azure("", 503), Transient),
        (_Azure("SecretNotFound", 404), ConfigurationError),
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
