"""The `acr` kind: Entra and ACR's own calls are stand-ins, the registry behind them a real one."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from azure.containerregistry import ContainerRegistryClient
from azure.identity import DefaultAzureCredential
from pydantic import JsonValue, SecretStr

from helix_deploy.testing import Driver
from model.artifact import Artifact, Image
from model.errors import ConfigurationError, NothingToRestore, PermissionDenied, Transient
from model.instance import HealthCheck, Instance, RegistryTarget, Target
from model.platform import Release, Revision
from project.load import load_project
from project.resolve import resolve
from providers.base import Context
from providers.catalog import PROVIDERS
from providers.registry_only import RegistryOnlyProvider
from registries.acr import AUDIENCE, AcrRegistry
from registries.base import RegistryContext
from registries.catalog import REGISTRIES
from registries.credentials import engine_auth
from registries.distribution import OCI_MANIFEST
from tests.fakes.azure import WHO, FakeAzure
from tests.fakes.azure_acr import USER, FakeAcr, acr_registry
from tests.services.images import put_image

pytestmark = pytest.mark.registry


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[FakeAzure, FakeAcr]]:
    folder = tmp_path_factory.mktemp("acr")
    with FakeAzure(folder / "tls") as azure, acr_registry(folder, azure.certificates) as acr:
        yield azure, acr


@pytest.fixture
def acr(
    service: tuple[FakeAzure, FakeAcr], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[FakeAcr]:
    azure, found = service
    for name, value in {**azure.env, "DOCKER_CONFIG": str(tmp_path)}.items():
        monkeypatch.setenv(name, value)
    yield found
    found.strangers, found.life, found.tokens.granted = False, 10800, None


def target(acr: FakeAcr, name: str = "shop", **settings: JsonValue) -> RegistryTarget:
    return RegistryTarget(
        kind="acr",
        repository=f"{acr.login_server}/{name}",
        settings={"registry_host": acr.host, **settings},
    )


def opened(acr: FakeAcr, name: str = "shop", **settings: JsonValue) -> AcrRegistry:
    registry = REGISTRIES.load("acr")(target(acr, name, **settings), RegistryContext())
    assert isinstance(registry, AcrRegistry)
    return registry


def test_an_image_is_stored_with_entras_token(acr: FakeAcr) -> None:
    registry = opened(acr)
    assert registry.repository == f"{acr.host}/shop"
    identity = registry.authenticate()
    assert (identity.where, identity.who) == (acr.host, WHO)
    assert identity.expires_at is not None and identity.expires_at > datetime.now(UTC)
    digest = put_image(registry.api, "src-1", b"one")
    assert registry.find(digest) == registry.find("src-1") == digest
    assert registry.api.manifest(digest).digest == digest
    assert registry.find("missing") is None
    registry.close()


def test_a_token_is_exchanged_once_until_it_is_about_to_end(acr: FakeAcr) -> None:
    registry = opened(acr)
    before = len(acr.refresh_tokens)
    first = registry.credentials()
    assert registry.credentials() == first and len(acr.refresh_tokens) == before + 1
    acr.life = 120
    registry._kept = None
    second = registry.credentials()
    assert second != first and registry.credentials() != second


def test_an_engine_gets_the_token_as_a_password(acr: FakeAcr) -> None:
    registry = opened(acr)
    auth = engine_auth(registry.host, registry.credentials())
    assert (auth["username"], auth["password"]) == (USER, acr.refresh_tokens[-1])
    assert auth["password"] not in repr(registry.credentials())


def test_a_tag_is_removed_by_acrs_own_call(acr: FakeAcr) -> None:
    registry = opened(acr, "tags")
    registry.tag(put_image(registry.api, "src-1", b"one"), "latest")
    registry.untag("latest", None)
    assert "DELETE /acr/v1/tags/_tags/latest" in acr.calls
    assert registry.find("latest") is None and registry.find("src-1")
    registry.untag("latest", None)  # as a step does that is tried again


def test_a_token_of_the_registrys_own_removes_a_tag_too(
    acr: FakeAcr, monkeypatch: pytest.MonkeyPatch
) -> None:
    digest = put_image(opened(acr, "own").api, "src-1", b"one")
    acr.tokens.users["pusher"] = "pusher-word"
    context = RegistryContext(secret=lambda reference: SecretStr("pusher-word"))
    there = target(acr, "own", username="pusher", password="env:PUSHER")
    registry = AcrRegistry(there, context)
    registry.tag(digest, "latest")
    registry.untag("latest", None)
    assert registry.find("latest") is None and registry.find("src-1") == digest


def test_azures_own_client_finds_in_the_stand_in_what_was_stored(acr: FakeAcr) -> None:
    registry = opened(acr, "theirs")
    digest = put_image(registry.api, "src-1", b"one")
    with ContainerRegistryClient(
        f"https://{acr.host}", DefaultAzureCredential(), audience=AUDIENCE
    ) as client:
        found = client.get_manifest("theirs", "src-1")
    assert (found.digest, found.media_type) == (digest, OCI_MANIFEST)


def test_who_may_not_delete_is_told_so(acr: FakeAcr) -> None:
    registry = opened(acr, "kept")
    registry.tag(put_image(registry.api, "src-1", b"one"), "latest")
    acr.tokens.granted = frozenset({"pull", "push"})
    with pytest.raises(PermissionDenied, match="stays"):
        registry.untag("latest", None)
    assert registry.find("latest")


def test_who_may_only_pull_from_a_repository_is_told_the_role(acr: FakeAcr) -> None:
    acr.tokens.granted = frozenset({"pull"})
    with pytest.raises(PermissionDenied) as raised:
        opened(acr).authenticate()
    assert "AcrPush" in raised.value.hint and "Repository Writer" in raised.value.hint
    assert f"{acr.host}/shop" in raised.value.message
    assert acr.refresh_tokens[-1] not in str(raised.value)


def test_a_registry_of_another_tenant_is_told_from_a_lack_of_credentials(
    acr: FakeAcr, monkeypatch: pytest.MonkeyPatch
) -> None:
    acr.strangers = True
    with pytest.raises(PermissionDenied) as raised:
        opened(acr).credentials()
    assert "tenant" in raised.value.hint and raised.value.request_id
    assert WHO in raised.value.message
    monkeypatch.setenv("AZURE_TOKEN_CREDENTIALS", "EnvironmentCredential")
    with pytest.raises(PermissionDenied) as raised:
        opened(acr).credentials()
    assert "az login" in raised.value.hint


def test_a_user_that_is_set_goes_before_entra(acr: FakeAcr) -> None:
    before = len(acr.refresh_tokens)
    registry = AcrRegistry(
        target(acr, username="ci", password="env:TOKEN"),
        RegistryContext(secret=lambda _: SecretStr("the password")),
    )
    found = registry.credentials()
    assert found is not None and found.username == "ci"
    assert len(acr.refresh_tokens) == before


def test_a_registry_that_is_not_there_is_transient(acr: FakeAcr) -> None:
    with pytest.raises(Transient):
        opened(acr, registry_host="127.0.0.1:1").credentials()


@pytest.mark.parametrize("name", ["shop", "ghcr.io/acme/shop", "acme.azurecr.io", "x.azurecr.io/a"])
def test_what_is_no_repository_of_acr_is_refused(name: str) -> None:
    with pytest.raises(ConfigurationError) as raised:
        AcrRegistry(RegistryTarget(kind="acr", repository=name), RegistryContext())
    assert "<registry>.azurecr.io/<name>" in raised.value.hint


# As a kind of its own, the push is the release ----------------------------------------------------


def released(acr: FakeAcr, number: int, digest: str, name: str) -> Release:
    instance = Instance(
        project="shop",
        name="images",
        target=Target(kind="acr"),
        registry=target(acr, name),
        health_check=HealthCheck(kind="none"),
    )
    image = Image(repository=f"{acr.host}/{name}", digest=digest)
    return Release(
        number=number,
        deployment=f"0000-{number}",
        instance=instance,
        artifact=Artifact(image=image),
    )


def test_a_release_moves_the_tag_and_a_restore_moves_it_back(acr: FakeAcr) -> None:
    registry = opened(acr, "released")
    one, two = (put_image(registry.api, f"src-{name}", name.encode()) for name in ("one", "two"))

    def provider(given: Release | None) -> RegistryOnlyProvider:
        instance = (given or released(acr, 1, one, "released")).instance
        found = PROVIDERS.load("acr")(instance, Context(registry=lambda: opened(acr, "released")))
        assert isinstance(found, RegistryOnlyProvider)
        return found

    drive = Driver(provider)
    first = drive.deploy(released(acr, 1, one, "released"))
    assert first.error is None and registry.find("latest") == one
    second = released(acr, 2, two, "released")
    assert drive.deploy(second).previous == first.revision
    assert registry.find("latest") == two
    assert drive.restore(second, first.revision) == first.revision
    assert registry.find("latest") == one
    with pytest.raises(NothingToRestore):
        provider(None).restore("0000-9", Revision(id=f"sha256:{'0' * 64}"))
    provider(None).destroy(data=False)
    assert registry.find("latest") is None and registry.find(one) == one


def test_the_table_of_the_kind_is_all_it_takes(acr: FakeAcr, tmp_path: Path) -> None:
    (tmp_path / "Dockerfile").write_text("FROM scratch\n")
    (tmp_path / "helix.toml").write_text(
        '[project]\nname = "shop"\n[cloud.images.acr]\nrepository = "acmeshop.azurecr.io/shop"\n'
    )
    instance = resolve(load_project(tmp_path / "helix.toml"), "images")
    assert instance.registry is not None and instance.registry.kind == "acr"
    registry: Any = REGISTRIES.load("acr")(instance.registry, RegistryContext())
    assert registry.repository == "acmeshop.azurecr.io/shop"
    assert registry.reference.host == acr.login_server
