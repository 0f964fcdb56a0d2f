"""The `gar` kind: Google's API is a stand-in, and the registry behind it a real one."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from pydantic import SecretStr

from model.errors import AuthExpired, Busy, ConfigurationError, PermissionDenied, Transient
from model.instance import RegistryTarget
from registries import gar as gar_module
from registries.base import RegistryContext
from registries.catalog import REGISTRIES
from registries.gar import USER, GarRegistry
from tests.fakes.gcp import FakeGcp
from tests.fakes.gcp_web import ACCOUNT
from tests.services.images import put_image
from tests.services.registry import TestRegistry, token_registry

pytestmark = pytest.mark.registry

NAME = "europe-west1-docker.pkg.dev/acme/helix/team/shop"
RESOURCE = "projects/acme/locations/europe-west1/repositories/helix"


@pytest.fixture
def cloud(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeGcp]:
    monkeypatch.setattr(gar_module, "LOOK_SECONDS", 0.01)
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path / "docker"))
    with FakeGcp(seconds=0.02) as fake:
        file = fake.web.account_file(tmp_path)
        monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(file))
        yield fake


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TestRegistry]:
    with token_registry(tmp_path_factory.mktemp("registry")) as registry:
        yield registry


def opened(cloud: FakeGcp, service: TestRegistry, **settings: str) -> GarRegistry:
    target = RegistryTarget(
        kind="gar",
        repository=NAME,
        settings={"endpoint": cloud.endpoint, "registry_host": service.host, **settings},
    )
    registry = REGISTRIES.load("gar")(target, RegistryContext())
    assert isinstance(registry, GarRegistry)
    return registry


def admit(service: TestRegistry, registry: GarRegistry) -> None:
    """Let the registry know the access token, as Google's own does."""
    credentials = registry.credentials()
    assert credentials is not None and service.tokens is not None
    service.tokens.users[USER] = credentials.password.get_secret_value()


def test_an_image_is_stored_with_an_access_token(cloud: FakeGcp, service: TestRegistry) -> None:
    registry = opened(cloud, service)
    assert registry.repository == f"{service.host}/acme/helix/team/shop"
    admit(service, registry)
    registry.ensure_repository()
    identity = registry.authenticate()
    assert (identity.where, identity.who) == (service.host, ACCOUNT)
    assert identity.expires_at is not None and identity.expires_at > datetime.now(UTC)
    digest = put_image(registry.api, "src-1", b"one")
    assert registry.tag(digest, "latest") is None
    assert registry.find("latest") == digest
    registry.untag("latest", None)
    assert registry.find("latest") is None
    registry.close()
    assert len(cloud.web.access_tokens) == 1


def test_before_the_repository_is_there_only_the_token_is_looked_at(
    cloud: FakeGcp, service: TestRegistry
) -> None:
    registry = opened(cloud, service)  # whose token the registry does not know: it says «denied»
    assert registry.authenticate().who == ACCOUNT
    assert registry.find("latest") is None


def test_a_registry_that_refuses_the_token_is_heard(cloud: FakeGcp, service: TestRegistry) -> None:
    registry = opened(cloud, service)
    registry.ensure_repository()
    with pytest.raises(PermissionDenied) as raised:
        registry.authenticate()
    assert "roles/artifactregistry.writer" in raised.value.hint
    with pytest.raises(PermissionDenied):
        registry.find("latest")
    token = cloud.web.access_tokens[-1]
    assert token not in str(raised.value)


def test_a_repository_is_made_once_by_callers_at_once(
    cloud: FakeGcp, service: TestRegistry
) -> None:
    registries = [opened(cloud, service) for _ in range(3)]
    threads = [threading.Thread(target=one.ensure_repository) for one in registries]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert list(cloud.repositories) == [RESOURCE]
    before = cloud.calls.count("CreateRepository")
    registries[0].ensure_repository()
    assert cloud.calls.count("CreateRepository") == before
    assert cloud.repositories[RESOURCE].format_.name == "DOCKER"


def test_a_lost_answer_is_found_by_the_next_attempt(cloud: FakeGcp, service: TestRegistry) -> None:
    registry = opened(cloud, service)
    cloud.faults.next("UNAVAILABLE", method="CreateRepository", lost=True)
    with pytest.raises(Transient):
        registry.ensure_repository()
    registry.ensure_repository()
    assert list(cloud.repositories) == [RESOURCE]


def test_a_repository_that_takes_long_is_waited_for_by_the_next_attempt(
    cloud: FakeGcp, service: TestRegistry, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gar_module, "READY_SECONDS", 0.05)
    cloud.seconds = 0.3
    registry = opened(cloud, service)
    with pytest.raises(Busy):
        registry.ensure_repository()
    monkeypatch.setattr(gar_module, "READY_SECONDS", 5)
    registry.ensure_repository()


def test_who_may_not_create_it_is_told_what_to_type(cloud: FakeGcp, service: TestRegistry) -> None:
    cloud.denied = {"artifactregistry.repositories.create"}
    with pytest.raises(PermissionDenied) as raised:
        opened(cloud, service).ensure_repository()
    assert "gcloud artifacts repositories create helix" in raised.value.hint
    assert "--location=europe-west1 --project=acme" in raised.value.hint


def test_a_token_is_replaced_before_its_end(cloud: FakeGcp, service: TestRegistry) -> None:
    registry = opened(cloud, service)
    first = registry.credentials()
    assert registry.credentials() == first
    registry._google.expiry = (datetime.now(UTC) + timedelta(minutes=2)).replace(tzinfo=None)
    assert registry.credentials() != first


def test_expired_and_missing_credentials_are_told_apart(
    cloud: FakeGcp, service: TestRegistry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cloud.web.refuse_tokens = "invalid_grant"
    with pytest.raises(AuthExpired):
        opened(cloud, service).credentials()
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(tmp_path / "none.json"))
    with pytest.raises(PermissionDenied) as raised:
        opened(cloud, service).credentials()
    assert "gcloud auth application-default login" in raised.value.hint


def test_a_user_that_is_set_goes_before_googles_credentials(
    cloud: FakeGcp, service: TestRegistry
) -> None:
    target = RegistryTarget(
        kind="gar",
        repository=NAME,
        settings={"username": "_json_key", "password": "env:KEY", "endpoint": cloud.endpoint},
    )
    registry = GarRegistry(target, RegistryContext(secret=lambda _: SecretStr("the key")))
    found = registry.credentials()
    assert found is not None and found.username == "_json_key"
    assert not cloud.web.access_tokens


@pytest.mark.parametrize("name", ["shop", "gcr.io/acme/shop", "europe-west1-docker.pkg.dev/acme/x"])
def test_what_is_no_repository_of_google_is_refused(name: str) -> None:
    with pytest.raises(ConfigurationError) as raised:
        GarRegistry(RegistryTarget(kind="gar", repository=name), RegistryContext())
    assert "<location>-docker.pkg.dev" in raised.value.hint


def test_a_stand_in_elsewhere_is_refused(cloud: FakeGcp, service: TestRegistry) -> None:
    with pytest.raises(ConfigurationError, match="no TLS"):
        opened(cloud, service, endpoint="http://example.com:80").ensure_repository()
