"""The registries module against real registries: anonymous, Basic over TLS, and tokens."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import nullcontext
from hashlib import sha256
from pathlib import Path

import pytest
from pydantic import SecretStr

from model.errors import (
    AuthExpired,
    ConfigurationError,
    HelixError,
    NotFound,
    PermissionDenied,
    Transient,
)
from registries.base import RegistryContext
from registries.credentials import IDENTITY_TOKEN
from registries.distribution import Distribution, Trust
from registries.oci import OciRegistry
from registries.reference import Reference
from tests.services.certificates import make_certificates
from tests.services.images import put_image, put_index
from tests.services.registry import (
    PASSWORD,
    USERNAME,
    TestRegistry,
    free_port,
    plain_registry,
    secured_registry,
    token_registry,
)

pytestmark = pytest.mark.registry


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TestRegistry]:
    with plain_registry(tmp_path_factory.mktemp("plain")) as registry:
        yield registry


@pytest.fixture(scope="module")
def secured(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TestRegistry]:
    with secured_registry(tmp_path_factory.mktemp("secured")) as registry:
        yield registry


@pytest.fixture
def tokens(tmp_path: Path) -> Iterator[TestRegistry]:
    with token_registry(tmp_path / "tokens") as registry:
        yield registry


@pytest.fixture(autouse=True)
def no_docker_configuration(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path / "docker"))


def opened(service: TestRegistry, path: str, **settings: object) -> OciRegistry:
    return OciRegistry(service.target(path, **settings), service.context)  # type: ignore[arg-type]


@pytest.mark.parametrize("form", ["plain", "secured", "tokens"])
def test_an_image_is_found_tagged_and_untagged(form: str, request: pytest.FixtureRequest) -> None:
    registry = opened(request.getfixturevalue(form), "team/shop")
    assert registry.find("latest") is None
    one, two = (put_image(registry.api, name, name.encode()) for name in ("one", "two"))

    assert registry.tag(one, "latest") is None
    assert registry.tag(two, "latest") == one
    assert registry.find("latest") == two
    registry.untag("latest", one)
    registry.untag("latest", one)
    assert registry.find("latest") == one

    registry.untag("latest", None)
    registry.untag("latest", None)
    assert registry.find("latest") is None
    assert registry.find("one") == one, "untagging took another tag of the image along"
    assert registry.find(one) == one
    assert sorted(registry.api.tags()) == ["one", "two"]
    registry.close()


def test_a_registry_that_never_deletes_says_which_tag_stays(tmp_path: Path) -> None:
    with plain_registry(tmp_path, delete=False) as service:
        registry = opened(service, "shop")
        digest = put_image(registry.api, "latest")
        with pytest.raises(ConfigurationError, match="shop:latest stays"):
            registry.untag("latest", None)
        assert registry.find("latest") == digest


def test_logging_in_says_who_we_are(
    plain: TestRegistry, secured: TestRegistry, tokens: TestRegistry
) -> None:
    names = [opened(service, "who").authenticate().who for service in (plain, secured, tokens)]
    assert names == ["anonymous", USERNAME, USERNAME]


def test_logging_in_leaves_nothing_behind(secured: TestRegistry) -> None:
    opened(secured, "untouched").authenticate()
    files = [path for path in (secured.folder / "data").rglob("untouched/**/*") if path.is_file()]
    # The registry itself forgets to remove the state of a hash of nothing.
    assert [path for path in files if "hashstates" not in path.parts] == []


def test_a_user_who_may_not_delete_is_told_which_tag_stays(tokens: TestRegistry) -> None:
    assert tokens.tokens
    tokens.tokens.granted = frozenset({"pull", "push"})
    registry = opened(tokens, "shop")
    digest = put_image(registry.api, "latest")
    with pytest.raises(PermissionDenied, match="shop:latest stays"):
        registry.untag("latest", None)
    assert registry.find("latest") == digest


@pytest.mark.parametrize("form", ["secured", "tokens"])
def test_a_wrong_password_says_which_registry_and_what_to_do(
    form: str, request: pytest.FixtureRequest
) -> None:
    service: TestRegistry = request.getfixturevalue(form)
    context = RegistryContext(secret=lambda reference: SecretStr("wrong-canary"))
    registry = OciRegistry(service.target("shop"), context)
    with pytest.raises(PermissionDenied) as caught:
        registry.authenticate()
    text = str(caught.value)
    assert f"{service.host} refused user «{USERNAME}»" in text
    assert f"docker login {service.host}" in text
    assert "[deploy.<instance>.registry]" in text
    assert "wrong-canary" not in text


@pytest.mark.parametrize("form", ["secured", "tokens"])
def test_no_credentials_at_all_are_refused_as_such(
    form: str, request: pytest.FixtureRequest
) -> None:
    service: TestRegistry = request.getfixturevalue(form)
    with pytest.raises(PermissionDenied, match="refused an anonymous client"):
        opened(service, "shop", username="", password="").authenticate()


def test_a_token_that_may_only_pull_is_refused_before_any_push(tokens: TestRegistry) -> None:
    assert tokens.tokens
    tokens.tokens.granted = frozenset({"pull"})
    with pytest.raises(PermissionDenied, match="refused user"):
        opened(tokens, "shop").authenticate()


def test_losing_a_permission_is_not_taken_for_an_expired_login(tokens: TestRegistry) -> None:
    assert tokens.tokens
    tokens.tokens.granted = frozenset({"pull"})
    registry = opened(tokens, "shop")
    assert registry.find("latest") is None
    with pytest.raises(PermissionDenied):
        put_image(registry.api, "latest")


def test_a_read_only_registry_is_refused_before_any_push(tmp_path: Path) -> None:
    with (
        plain_registry(tmp_path, readonly=True) as service,
        pytest.raises(PermissionDenied, match="takes no pushes"),
    ):
        opened(service, "shop").authenticate()


def test_a_certificate_of_an_unknown_authority_names_the_setting(
    secured: TestRegistry, tmp_path: Path
) -> None:
    other = make_certificates(tmp_path / "other", "another authority")
    for ca in (None, str(other.ca)):
        with pytest.raises(ConfigurationError, match="`ca`"):
            opened(secured, "shop", ca=ca).find("latest")


def test_insecure_believes_any_certificate_on_loopback_only(secured: TestRegistry) -> None:
    assert opened(secured, "shop", ca=None, insecure=True).find("none") is None
    with pytest.raises(ConfigurationError, match="not loopback"):
        Distribution(Reference.parse("registry.example.com/shop"), trust=Trust(insecure=True))


def test_an_unreadable_ca_file_is_named(secured: TestRegistry, tmp_path: Path) -> None:
    broken = tmp_path / "broken.pem"
    broken.write_text("not a certificate")
    for ca in (tmp_path / "missing.pem", broken):
        with pytest.raises(ConfigurationError, match=ca.name):
            opened(secured, "shop", ca=str(ca)).find("latest")


def test_a_registry_that_is_down_is_transient_and_comes_back(tmp_path: Path) -> None:
    with secured_registry(tmp_path) as service:
        registry = opened(service, "shop")
        digest = put_image(registry.api, "latest")
        service.stop()
        with pytest.raises(Transient, match=service.host):
            registry.find("latest")
        with pytest.raises(Transient):
            opened(service, "shop").authenticate()
        service.start()
        assert registry.find("latest") == digest


def test_nothing_listening_is_transient() -> None:
    reference = Reference.parse(f"127.0.0.1:{free_port()}/shop")
    with Distribution(reference) as api, pytest.raises(Transient):
        api.ping()


def test_a_token_is_fetched_once_for_many_calls(tokens: TestRegistry) -> None:
    assert tokens.tokens
    registry = opened(tokens, "shop")
    for _ in range(5):
        registry.find("latest")
    assert len(tokens.tokens.requests) == 1


def test_a_token_near_its_end_is_renewed_before_it_is_refused(tokens: TestRegistry) -> None:
    assert tokens.tokens
    tokens.tokens.ttl = 1
    registry = opened(tokens, "shop")
    registry.find("latest")
    time.sleep(0.6)
    refused: list[int] = []
    registry.api._client.event_hooks["response"].append(
        lambda response: refused.append(response.status_code)
    )
    registry.find("latest")
    assert len(tokens.tokens.requests) == 2
    assert 401 not in refused


def test_a_token_that_expires_midway_is_fetched_again(tokens: TestRegistry) -> None:
    assert tokens.tokens
    registry = opened(tokens, "shop")
    registry.authenticate()
    registry.api.auth._header = "Bearer " + _expired(tokens)
    assert registry.find("latest") is None
    assert len(tokens.tokens.requests) == 2


def test_a_token_that_expires_between_the_parts_of_an_upload_begins_it_again(
    tokens: TestRegistry,
) -> None:
    assert tokens.tokens
    registry = opened(tokens, "shop")
    registry.authenticate()
    content = b"layer" * 1000
    openings = []

    def parts() -> nullcontext[Iterator[bytes]]:
        openings.append(1)
        if len(openings) == 1:
            # The upload has begun; now the token dies.
            assert tokens.tokens
            registry.api.auth._header = "Bearer " + _expired(tokens)
        return nullcontext(iter([content]))

    digest = f"sha256:{sha256(content).hexdigest()}"
    registry.api.upload(digest, len(content), parts, lambda count: None)
    assert len(openings) == 2
    assert registry.api.has_blob(digest)


def _expired(service: TestRegistry) -> str:
    assert service.tokens
    service.tokens.stale = 1
    return service.tokens.issue(USERNAME, "helix-test-registry", ["repository:shop:pull,push"])


def test_credentials_that_expire_midway_are_told_from_wrong_ones(tokens: TestRegistry) -> None:
    assert tokens.tokens
    registry = opened(tokens, "shop")
    registry.authenticate()
    tokens.tokens.users[USERNAME] = "changed"
    registry.api.auth._until = 0
    with pytest.raises(AuthExpired, match="no longer accepts"):
        registry.find("latest")


def test_an_identity_token_logs_in_by_oauth2(tokens: TestRegistry) -> None:
    assert tokens.tokens
    tokens.tokens.refresh_tokens["refresh-me"] = USERNAME
    context = RegistryContext(secret=lambda reference: SecretStr("refresh-me"))
    target = tokens.target("shop", username=IDENTITY_TOKEN)
    assert OciRegistry(target, context).authenticate().who == "identity token"
    assert tokens.tokens.requests[-1] == ("POST", USERNAME, "repository:shop:pull,push")


def test_nobody_in_particular_may_pull_what_is_public(
    tokens: TestRegistry, plain: TestRegistry
) -> None:
    assert tokens.tokens
    digest = put_image(opened(tokens, "public").api, "v1")
    tokens.tokens.anonymous = frozenset({"pull"})
    assert opened(plain, "taken").copy(f"{tokens.host}/public:v1").digest == digest


def test_all_platforms_are_copied_between_registries(
    plain: TestRegistry, secured: TestRegistry
) -> None:
    origin = opened(plain, "multi")
    digest = put_index(origin.api, "v1")
    reports: list[tuple[str, int, int]] = []
    context = RegistryContext(
        secret=lambda reference: SecretStr(PASSWORD),
        report=lambda text, done, of: reports.append((text, done, of)),
    )
    registry = OciRegistry(secured.target("copied/multi"), context)
    for _ in range(2):
        image = registry.copy(f"{plain.host}/multi:v1")
        assert (image.repository, image.digest) == (registry.repository, digest)
    assert registry.find(digest) == digest
    for platform in ("amd64", "arm64"):
        assert registry.find(origin.find(platform) or "") == origin.find(platform)
    assert reports[0][2] > 0
    assert all(done <= total for _, done, total in reports)


def test_layers_of_the_same_registry_are_mounted_rather_than_sent(secured: TestRegistry) -> None:
    origin = opened(secured, "origin")
    digest = put_image(origin.api, "v1", b"y" * 100_000)
    registry = opened(secured, "elsewhere")
    sent: list[str] = []
    registry._open = _watched(registry, sent)  # type: ignore[method-assign]
    assert registry.copy(f"{origin.repository}@{digest}").digest == digest
    assert sent == []


def _watched(registry: OciRegistry, sent: list[str]):  # type: ignore[no-untyped-def]
    inner = registry._open

    def opened_and_watched(*args, **options):  # type: ignore[no-untyped-def]
        api = inner(*args, **options)
        api._client.event_hooks["request"].append(
            lambda request: sent.append(str(request.url)) if request.method == "PATCH" else None
        )
        return api

    return opened_and_watched


def test_what_is_not_there_cannot_be_copied(plain: TestRegistry) -> None:
    with pytest.raises(NotFound, match="nowhere"):
        opened(plain, "shop").copy(f"{plain.host}/nowhere:v1")


def test_a_damaged_layer_is_noticed(plain: TestRegistry, tmp_path: Path) -> None:
    with plain_registry(tmp_path) as service:
        origin = opened(service, "bad")
        put_image(origin.api, "v1", b"pristine content")
        for data in (tmp_path / "data").rglob("data"):
            if data.read_bytes() == b"pristine content":
                data.write_bytes(b"tampered content")
        with pytest.raises(HelixError) as caught:
            opened(plain, "bad").copy(f"{service.host}/bad:v1")
        assert isinstance(caught.value, Transient)
        assert opened(plain, "bad").find("v1") is None
