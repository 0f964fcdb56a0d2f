"""Every secret store through its real SDK, against the best stand-in that can be had."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import keyring
import pytest

from model.errors import ConfigurationError, HelixError, PermissionDenied, Throttled, Transient
from project.secrets import resolve
from tests.fakes.gcp import FakeGcp
from tests.fakes.key_vault import LOGIN, VAULT, KeyVault
from tests.fakes.vault import Vault
from tests.services.certificates import make_certificates


def value(reference: str, **options: object) -> str:
    return resolve(reference, **options).get_secret_value()  # type: ignore[arg-type]


def refused(cls: type[HelixError], reference: str, **options: object) -> str:
    """What the error says: the reference and what to do, and nothing that the store said."""
    with pytest.raises(HelixError) as caught:
        resolve(reference, **options)  # type: ignore[arg-type]
    assert type(caught.value) is cls, caught.value
    text = str(caught.value)
    assert reference in text and "canary" not in text
    assert caught.value.hint or cls in (Throttled, Transient)
    return text


# --- the system's keyring ------------------------------------------------------------------------


@pytest.fixture
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A keyring that keeps its secrets in a file."""
    from keyrings.alt.file import PlaintextKeyring

    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
    before = keyring.get_keyring()
    keyring.set_keyring(PlaintextKeyring())
    yield tmp_path
    keyring.set_keyring(before)


def test_a_keyring_is_read(files: Path) -> None:
    keyring.set_password("helix/registry", "ann", "s3cret")
    assert [one for one in files.rglob("*") if one.is_file()], "it is kept in a file"
    assert value("keyring:helix/registry/ann") == "s3cret"
    assert "keyring set helix/registry bob" in refused(
        ConfigurationError, "keyring:helix/registry/bob"
    )


def test_a_machine_without_a_keyring_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    from keyring.backends.fail import Keyring

    before = keyring.get_keyring()
    keyring.set_keyring(Keyring())
    try:
        assert "NoKeyring" in refused(ConfigurationError, "keyring:helix/ann")
    finally:
        keyring.set_keyring(before)


# --- AWS -----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def aws() -> Iterator[None]:
    """The stores of AWS, as moto's server plays them over HTTP."""
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0)
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
    manager.create_secret(Name="binary", SecretBinary=b"s5")
    parameters.put_parameter(Name="/shop/key", Value="s4", Type="SecureString")
    assert value(f"aws-sm:{arn}#password") == "s3"
    assert value("aws-sm:shop#port") == "5"
    assert value("aws-sm:binary") == "s5"
    assert value("aws-ssm:/shop/key") == "s4"
    assert "no field «pasword»" in refused(ConfigurationError, "aws-sm:shop#pasword")
    for reference in ("aws-sm:gone", "aws-ssm:/gone"):
        assert "cannot be read" in refused(ConfigurationError, reference)


def test_aws_without_an_account_or_a_network_says_so(
    aws: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL_SECRETS_MANAGER", "http://127.0.0.1:9")
    refused(Transient, "aws-sm:shop")
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "none"))
    refused(ConfigurationError, "aws-ssm:/shop/key")


# --- Google --------------------------------------------------------------------------------------


@pytest.fixture
def gcp(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeGcp]:
    """Secret Manager over real gRPC, with one secret of two versions."""
    from google.cloud import secretmanager_v1 as sm

    from providers.gcp_api import Api

    with FakeGcp() as cloud:
        api = Api(cloud.endpoint)
        replication = sm.Replication(automatic=sm.Replication.Automatic())
        api.secrets.create_secret(
            parent="projects/p", secret_id="s", secret=sm.Secret(replication=replication)
        )
        for data in (b"first", b'{"key": "second"}'):
            api.secrets.add_secret_version(parent="projects/p/secrets/s", payload={"data": data})
        monkeypatch.setenv("HELIX_SECRET_MANAGER_ENDPOINT", cloud.endpoint)
        yield cloud


def test_googles_secrets_are_read(gcp: FakeGcp) -> None:
    assert value("gcp-sm:projects/p/secrets/s/versions/1") == "first"
    assert value("gcp-sm:projects/p/secrets/s#key") == "second"
    assert "NotFound" in refused(ConfigurationError, "gcp-sm:projects/p/secrets/gone")


@pytest.mark.parametrize(
    ("status", "cls"),
    [
        ("PERMISSION_DENIED", PermissionDenied),
        ("UNAUTHENTICATED", PermissionDenied),
        ("RESOURCE_EXHAUSTED", Throttled),
        ("UNAVAILABLE", Transient),
        ("DEADLINE_EXCEEDED", Transient),
    ],
)
def test_what_google_refuses_becomes_ours(gcp: FakeGcp, status: str, cls: type[HelixError]) -> None:
    gcp.faults.next(status)
    refused(cls, "gcp-sm:projects/p/secrets/s")
    assert value("gcp-sm:projects/p/secrets/s/versions/1") == "first", "and is not remembered"


def test_an_endpoint_without_tls_must_be_this_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HELIX_SECRET_MANAGER_ENDPOINT", "http://secrets.test:80")
    assert "has no TLS" in refused(ConfigurationError, "gcp-sm:projects/p/secrets/s")


# --- Azure ---------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> object:
    return make_certificates(tmp_path_factory.mktemp("azure"), hosts=(LOGIN, VAULT))


@pytest.fixture
def azure(certificates: object, monkeypatch: pytest.MonkeyPatch) -> Iterator[KeyVault]:
    """Key Vault and Microsoft's login, under their own names."""
    with KeyVault(certificates) as running:  # type: ignore[arg-type]
        running.secrets["db"] = ["first", '{"password": "second"}']
        for name, setting in running.environ.items():
            monkeypatch.setenv(name, setting)
        yield running


def test_azures_secrets_are_read_with_a_login(azure: KeyVault) -> None:
    assert value(f"azure-kv:https://{VAULT}/secrets/db/1") == "first"
    assert value(f"azure-kv:https://{VAULT}/secrets/db#password") == "second"
    assert f"{VAULT}/secrets/db/1" in azure.calls
    assert any(call.startswith(LOGIN) for call in azure.calls)
    assert "NotFound" in refused(ConfigurationError, f"azure-kv:https://{VAULT}/secrets/gone")


@pytest.mark.parametrize(
    ("status", "code", "cls"),
    [
        (403, "Forbidden", PermissionDenied),
        (429, "Throttled", Throttled),
        (503, "ServiceUnavailable", Transient),
    ],
)
def test_what_azure_refuses_becomes_ours(
    azure: KeyVault, status: int, code: str, cls: type[HelixError]
) -> None:
    azure.refusal = (status, code)
    refused(cls, f"azure-kv:https://{VAULT}/secrets/db")


def test_a_wrong_login_is_a_permission_that_lacks(
    azure: KeyVault, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AZURE_CLIENT_SECRET", "canary-wrong")
    refused(PermissionDenied, f"azure-kv:https://{VAULT}/secrets/db")


# --- Vault ---------------------------------------------------------------------------------------


def test_a_vault_is_read_in_both_versions(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    kept: dict[str, object] = {
        "kv/data/shop": {"data": {"password": "second"}, "metadata": {}},
        "old/shop": {"password": "first"},
        "strict/data/shop": None,
        "strict/shop": {"password": "strict"},
    }
    with Vault(kept) as vault:
        environ = vault.environ
        assert value("vault:kv/shop#password", environ=environ) == "second"
        assert value("vault:old/shop#password", environ=environ) == "first"
        assert value("vault:strict/shop#password", environ=environ) == "strict"
        for reference in ("vault:kv/shop#other", "vault:kv/gone#password"):
            said = refused(ConfigurationError, reference, environ=environ)
            assert "is not in the vault" in said and "vault kv get" in said
        wrong = {**environ, "VAULT_TOKEN": "canary-wrong"}
        refused(PermissionDenied, "vault:kv/shop#password", environ=wrong)
        vault.sealed = True
        refused(Transient, "vault:kv/shop#password", environ=environ)
    refused(Transient, "vault:kv/shop#password", environ=environ)
