"""The `azure` kind against a stateful stand-in whose bodies are held to the SDK's own models."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import pytest
from azure.core import exceptions as core_errors
from azure.identity import CredentialUnavailableError
from pydantic import JsonValue, SecretStr

from helix_deploy.testing import Driver, Killed, ProviderSuite
from model.artifact import Artifact, BuildSettings, Image
from model.azure_errors import (
    CODES,
    ENTRA,
    EXCEPTIONS,
    MESSAGES,
    PREFIXES,
    STATUS,
    classify,
    translate,
)
from model.errors import (
    Ambiguous,
    AuthExpired,
    Busy,
    ConfigurationError,
    Conflict,
    HealthCheckFailed,
    HelixError,
    NotFound,
    PermissionDenied,
    QuotaExceeded,
    Throttled,
    Transient,
)
from model.instance import (
    HealthCheck,
    Instance,
    ObjectStorage,
    RegistryTarget,
    Target,
    Volume,
)
from model.platform import Release, Revision
from providers import azure as azure_module
from providers import azure_api, azure_calls
from providers.azure import AzureProvider
from providers.azure_api import Api
from providers.azure_app import CANDIDATE, MARK, Handle, Marks, revision_name
from providers.azure_preflight import NEEDED
from providers.base import Context, PullCredentials
from providers.catalog import PROVIDERS
from tests.contract.failing_suite import FailingSuite, FailingWorld
from tests.fakes.azure import GROUP, IDENTITY, LOCATION, SUBSCRIPTION, WHO, FakeAzure, Faults
from tests.fakes.azure_apps import App
from tests.fakes.azure_refused import Refused
from tests.services.registry import free_port

PATH = (
    f"/subscriptions/{SUBSCRIPTION}/resourceGroups/{GROUP}/providers/Microsoft.App/containerApps/"
    "helix-shop-prod"
)
SECRET = "hunter2-canary"
PASSWORD = "swordfish-canary"
PORT = free_port()
REPOSITORY = "acme.azurecr.io/shop"


@pytest.fixture
def cloud(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeAzure]:
    monkeypatch.setattr(azure_module, "DRAIN_SECONDS", 0.0)
    monkeypatch.setattr(azure_calls, "LOOK_SECONDS", 0.01)
    monkeypatch.setattr(azure_api, "POLL_SECONDS", 0.01)
    with FakeAzure(tmp_path / "tls") as fake:
        for name, value in fake.env.items():
            monkeypatch.setenv(name, value)
        yield fake


def instance(
    cloud: FakeAzure, *, settings: dict[str, JsonValue] | None = None, **more: Any
) -> Instance:
    own: dict[str, JsonValue] = {
        "subscription_id": SUBSCRIPTION,
        "resource_group": GROUP,
        "location": LOCATION,
        "identity": IDENTITY,
        "public": True,
        "endpoint": cloud.address,
    }
    about: dict[str, Any] = {
        "registry": RegistryTarget(kind="acr", repository=REPOSITORY),
        "health_check": HealthCheck(interval=0.01, successes=1, timeout=0.5),
        "env": {"NAME": "r0", "BEHAVIOUR": "serve"},
        "secrets": {"DB_PASSWORD": "env:DB_PASSWORD"},
        "stop_grace": 0,
        "port": PORT,
    }
    target = Target(kind="azure", settings=own | (settings or {}))
    return Instance(project="shop", name="prod", target=target, **(about | more))


def release(
    cloud: FakeAzure, number: int, behaviour: str = "serve", tag: str = "", **more: Any
) -> Release:
    digit = tag or str(number % 10)
    env = {"NAME": f"r{number}", "BEHAVIOUR": behaviour}
    return Release(
        number=number,
        deployment=f"0198c0de-0000-7000-8000-{number:08x}0000",
        instance=instance(cloud, **{"env": env, **more}),
        artifact=Artifact(image=Image(repository=REPOSITORY, digest=f"sha256:{digit * 64}")),
    )


def provider(one: Instance, **context: Any) -> AzureProvider:
    secret = context.pop("secret", lambda reference: SecretStr(SECRET))
    loaded = PROVIDERS.load("azure")(one, Context(secret=secret, **context))
    assert isinstance(loaded, AzureProvider)
    return loaded


def driver(cloud: FakeAzure) -> Driver:
    return Driver(lambda given: provider(given.instance if given else instance(cloud)))


def the_app(cloud: FakeAzure) -> App:
    return cloud.apps.all[PATH.lower()]


def serves(cloud: FakeAzure) -> str:
    """What people are answered."""
    with suppress(KeyError, httpx.HTTPError):
        answer = httpx.get(f"https://{the_app(cloud).front.host}/", timeout=2)
        return answer.text if answer.status_code == 200 else ""
    return ""


def traffic(cloud: FakeAzure) -> dict[str, tuple[int, str]]:
    """Revision -> weight and label."""
    return {
        one["revisionName"]: (one.get("weight", 0), one.get("label", ""))
        for one in the_app(cloud).traffic
    }


def name_of(given: Release) -> str:
    return revision_name("helix-shop-prod", given.deployment)


def changes(cloud: FakeAzure) -> list[str]:
    return [one for one in cloud.calls if not one.startswith("GET") and "list" not in one]


# What every provider must do ----------------------------------------------------------------------


class AzureWorld(FailingWorld):
    """A container app, its containers served on loopback."""

    patience = 1.5
    secrets = {"env:DB_PASSWORD": SECRET}

    def __init__(self, cloud: FakeAzure, monkeypatch: pytest.MonkeyPatch, **more: Any) -> None:
        self.cloud = cloud
        self.monkeypatch = monkeypatch
        self.more = more

    def instance(self, name: str, behaviour: str = "serve") -> Instance:
        return instance(
            self.cloud,
            env={"NAME": name, "BEHAVIOUR": behaviour},
            build=BuildSettings(kind="image", image="nginx"),
            registry=None,
            **self.more,
        )

    def artifact(self, tag: str = "1") -> Artifact:
        return Artifact(image=Image(repository=REPOSITORY, digest=f"sha256:{tag * 64}"))

    def provider(self, instance: Instance) -> AzureProvider:
        return provider(instance)

    def answer(self) -> str:
        return serves(self.cloud)

    def running(self) -> list[str]:
        with self.cloud.lock:
            app = self.cloud.apps.all.get(PATH.lower())
            active = [one for one in app.revisions.values() if one.active] if app else []
            return [_marks(one.template).deployment for one in active]

    def remains(self) -> list[str]:
        return list(self.cloud.apps.all)

    @contextmanager
    def kill_after(self, writes: int) -> Iterator[None]:
        left = writes
        call = Api.call

        def counted(api: Api, *arguments: Any, reads: bool = False, **more: Any) -> Any:
            nonlocal left
            answer = call(api, *arguments, reads=reads, **more)
            left -= 0 if reads else 1
            if left == 0 and not reads:
                raise Killed
            return answer

        with self.monkeypatch.context() as patch:
            patch.setattr(Api, "call", counted)
            yield

    @contextmanager
    def failing(self, rate: float, seed: int) -> Iterator[list[str]]:
        """By ARM's own answers, or none; half of them after the call was carried out."""
        self.cloud.faults = Faults(rate=rate, seed=seed)
        yield self.cloud.faults.injected
        self.cloud.faults = Faults()

    def remove(self, revision: Revision) -> None:
        app = the_app(self.cloud)
        with self.cloud.lock:
            app.revisions.pop(revision.id).end()


def _marks(template: dict[str, Any]) -> Marks:
    env = {one["name"]: one.get("value", "") for one in template["containers"][0]["env"]}
    return Marks.model_validate_json(env[MARK])


class TestAzure(ProviderSuite, FailingSuite):
    @pytest.fixture
    def world(self, cloud: FakeAzure, monkeypatch: pytest.MonkeyPatch) -> AzureWorld:
        cloud.expires = 0.8
        return AzureWorld(cloud, monkeypatch)


class TestAzureWithVolume(ProviderSuite):
    """The revision before is stopped first, and never are two at the volume."""

    @pytest.fixture
    def world(self, cloud: FakeAzure, monkeypatch: pytest.MonkeyPatch) -> Iterator[AzureWorld]:
        cloud.expires = 0.8
        volumes = (Volume(mount="/data", name="data"),)
        yield AzureWorld(cloud, monkeypatch, volumes=volumes, settings={"storage": "files"})
        assert cloud.violations == []

    def test_destroy_leaves_nothing_and_can_be_repeated(self, world: AzureWorld) -> None:
        """The files themselves stay, and where they are is said once."""
        world.deployed(1)
        with world.opened() as opened, pytest.raises(ConfigurationError, match="files .* stay"):
            opened.destroy(data=True)
        assert world.remains() == []
        with world.opened() as opened:
            opened.destroy(data=True)


# The life of a release ----------------------------------------------------------------------------


def test_a_candidate_is_checked_at_its_own_address_without_traffic(cloud: FakeAzure) -> None:
    one, two = release(cloud, 1), release(cloud, 2)
    first = driver(cloud).deploy(one).revision
    opened = provider(two.instance)
    handle = opened.start(two, first)
    driver(cloud).wait(two, handle)
    assert traffic(cloud) == {name_of(one): (100, ""), name_of(two): (0, CANDIDATE)}
    endpoint = opened.endpoint(handle)
    assert endpoint is not None and httpx.get(endpoint.url).text == "r2"
    assert serves(cloud) == "r1"
    opened.promote(handle)
    assert traffic(cloud) == {name_of(two): (100, "")}
    assert serves(cloud) == "r2"


def test_a_handle_holds_names_only(cloud: FakeAzure) -> None:
    cloud.seconds = 0.5
    given = release(cloud, 1)
    started = time.monotonic()
    handle = provider(given.instance).start(given, None)
    assert time.monotonic() - started < 0.5
    assert set(Handle.model_validate_json(handle).model_dump()) == {
        "revision", "release", "public", "targets",
    }  # fmt: skip
    for word in ("signed", "operation", SECRET, cloud.tokens[0]):
        assert word not in handle
    driver(cloud).wait(given, handle)


def test_a_replica_that_crashes_fails_the_release_though_the_change_succeeded(
    cloud: FakeAzure,
) -> None:
    """Azure provisions a revision and reports success while its container ends at once."""
    good, bad = release(cloud, 1), release(cloud, 2, "exit")
    first = driver(cloud).deploy(good).revision
    cloud.forgiving = True
    result = driver(cloud).deploy(bad)
    assert isinstance(result.error, HealthCheckFailed)
    assert "exited with code 3" in result.error.message
    assert "it is broken" in result.error.evidence
    assert result.restored == first and serves(cloud) == "r1"


def test_a_change_that_fails_with_http_200_is_a_failure(cloud: FakeAzure) -> None:
    one, two = release(cloud, 1), release(cloud, 2)
    first = driver(cloud).deploy(one).revision
    opened = provider(two.instance)
    handle = opened.start(two, first)
    driver(cloud).wait(two, handle)
    cloud.fail_next = Refused(200, "ContainerAppOperationError", "Failed to update traffic.")
    with pytest.raises(HealthCheckFailed, match="Failed to update traffic"):
        opened.promote(handle)
    assert serves(cloud) in ("r1", "r2")


def test_a_revision_that_never_came_is_a_failure(cloud: FakeAzure) -> None:
    given = release(cloud, 1)
    cloud.fail_next = Refused(200, "ContainerAppOperationError", "no image")
    opened = provider(given.instance)
    handle = opened.start(given, None)
    with cloud.lock:
        the_app(cloud).revisions.clear()
    with pytest.raises(HealthCheckFailed, match="az monitor activity-log"):
        driver(cloud).wait(given, handle)


def test_a_container_that_never_listens_does_not_hold_the_rollback_up(cloud: FakeAzure) -> None:
    """Azure waits for it for many minutes and refuses other changes: it is stopped first."""
    cloud.expires = 600
    good, bad = release(cloud, 1), release(cloud, 2, "hang")
    first = driver(cloud).deploy(good).revision
    drive = driver(cloud)
    drive.patience = 0.3
    result = drive.deploy(bad)
    assert isinstance(result.error, HealthCheckFailed)
    assert result.restored == first and serves(cloud) == "r1"
    assert driver(cloud).deploy(release(cloud, 3)).error is None


def test_another_change_in_progress_is_waited_for(cloud: FakeAzure) -> None:
    first = driver(cloud).deploy(release(cloud, 1)).revision
    two = release(cloud, 2)
    cloud.faults.next(409, "ContainerAppOperationInProgress", call="PATCH", Retry_After="3")
    with pytest.raises(Busy) as raised:
        provider(two.instance).start(two, first)
    assert raised.value.retryable and raised.value.retry_after == 3 and raised.value.request_id
    assert driver(cloud).deploy(two).error is None


def test_an_unregistered_provider_is_named_and_nothing_is_registered(cloud: FakeAzure) -> None:
    cloud.registered = False
    with pytest.raises(ConfigurationError) as raised:
        provider(instance(cloud)).preflight()
    assert "az provider register --namespace Microsoft.App" in raised.value.hint
    assert not any("register" in one for one in cloud.calls)


def test_the_latest_revision_is_written_down_by_name(cloud: FakeAzure) -> None:
    """Under «latest» a new revision would have all the traffic before anyone looked at it."""
    one, two = release(cloud, 1), release(cloud, 2, "sick")
    driver(cloud).deploy(one)
    with cloud.lock:
        app = the_app(cloud)
        app.configuration["ingress"]["traffic"] = [{"latestRevision": True, "weight": 100}]
    opened = provider(two.instance)
    opened.start(two, opened.current())
    assert traffic(cloud)[name_of(one)] == (100, "")
    assert serves(cloud) == "r1"


def test_traffic_to_a_revision_that_somebody_stopped_is_no_success(cloud: FakeAzure) -> None:
    """Azure lets people stop what has all the traffic."""
    one = release(cloud, 1)
    first = driver(cloud).deploy(one).revision
    with cloud.lock:
        the_app(cloud).revisions[name_of(one)].stop()
    opened = provider(one.instance)
    assert opened.current() == first
    assert opened.down() == f"the revision {name_of(one)} is stopped"
    again = release(cloud, 2, tag="1", env=one.instance.env)
    assert driver(cloud).deploy(again).revision != first
    assert serves(cloud) == "r1" and opened.down() == ""


@pytest.mark.parametrize("call", ["PUT", "PATCH"])
def test_a_change_that_happened_without_an_answer_is_found(cloud: FakeAzure, call: str) -> None:
    if call == "PATCH":
        driver(cloud).deploy(release(cloud, 1))
    given = release(cloud, 2)
    cloud.faults.next(call=call, lost=True)
    with pytest.raises(Ambiguous):
        provider(given.instance).start(given, None)
    assert driver(cloud).deploy(given).error is None
    assert len(the_app(cloud).revisions) == (2 if call == "PATCH" else 1)


def test_a_slow_answer_is_waited_for(cloud: FakeAzure) -> None:
    cloud.faults.next(call="PUT", wait=0.3, lost=True, status=503, code="ServiceUnavailable")
    assert driver(cloud).deploy(release(cloud, 1)).error is None


def test_an_expired_token_is_said(cloud: FakeAzure) -> None:
    cloud.token_life = -60
    with pytest.raises((AuthExpired, PermissionDenied)) as raised:
        provider(instance(cloud)).current()
    assert "az login" in raised.value.hint
    cloud.token_life = 3600
    assert provider(instance(cloud)).current() is None


def test_a_later_release_is_never_replaced_by_an_earlier_one(cloud: FakeAzure) -> None:
    one, two, three = (release(cloud, number) for number in (1, 2, 3))
    drive = driver(cloud)
    first = drive.deploy(one).revision
    handle = provider(two.instance).start(two, first)
    drive.wait(two, handle)
    assert drive.deploy(three).error is None
    late = provider(two.instance)
    for attempt in (
        lambda: late.start(two, first),
        lambda: late.promote(handle),
        lambda: late.restore(two.deployment, first),
    ):
        with pytest.raises(Conflict, match="taken over"):
            attempt()
    assert serves(cloud) == "r3"


def test_a_split_and_labels_that_people_made_come_back(cloud: FakeAzure) -> None:
    one, two, bad = release(cloud, 1), release(cloud, 2), release(cloud, 3, "exit")
    drive = driver(cloud)
    drive.deploy(one)
    drive.deploy(two)
    with cloud.lock:
        app = the_app(cloud)
        app.revisions[name_of(one)].start()
        app.configuration["ingress"]["traffic"] = [
            {"revisionName": name_of(one), "weight": 30, "label": "old"},
            {"revisionName": name_of(two), "weight": 70},
        ]
    before = traffic(cloud)
    assert drive.deploy(bad).restored is not None
    assert traffic(cloud) == before
    good = release(cloud, 4)
    assert drive.deploy(good).error is None
    assert traffic(cloud) == {name_of(good): (100, ""), name_of(one): (0, "old")}


def test_what_people_set_beside_a_release_stays(cloud: FakeAzure) -> None:
    driver(cloud).deploy(release(cloud, 1))
    rules = [{"name": "office", "ipAddressRange": "10.0.0.0/8", "action": "Allow"}]
    with cloud.lock:
        app = the_app(cloud)
        app.configuration["ingress"]["ipSecurityRestrictions"] = rules
        app.content["tags"]["cost-centre"] = "7"
    assert driver(cloud).deploy(release(cloud, 2)).error is None
    assert app.configuration["ingress"]["ipSecurityRestrictions"] == rules
    assert app.content["tags"]["cost-centre"] == "7"


def test_an_app_that_was_there_before_us_is_adopted_and_given_back(cloud: FakeAzure) -> None:
    bare(cloud)
    found = provider(instance(cloud)).current()
    assert found is not None and (found.release, found.deployment) == (0, "")
    bad = driver(cloud).deploy(release(cloud, 1, "exit"))
    assert bad.restored is not None and bad.restored.id == found.id
    assert serves(cloud) == "theirs"
    assert driver(cloud).deploy(release(cloud, 2)).error is None
    assert serves(cloud) == "r2"
    assert not the_app(cloud).revisions[found.id].active


def test_an_app_without_ingress_that_was_there_is_never_deleted(cloud: FakeAzure) -> None:
    bare(cloud, latest=False)
    result = driver(cloud).deploy(release(cloud, 1, "exit"))
    assert result.error is not None
    assert PATH.lower() in cloud.apps.all


def bare(cloud: FakeAzure, latest: bool = True, **tags: str) -> None:
    """An app that somebody else made."""
    traffic = [{"latestRevision": True, "weight": 100}]
    env = [{"name": "NAME", "value": "theirs"}]
    body = {
        "location": LOCATION,
        "tags": tags,
        "properties": {
            "configuration": {
                "ingress": {"external": True, "targetPort": PORT, "traffic": traffic},
            },
            "template": {"containers": [
                {"name": "web", "image": f"x.io/y@sha256:{'a' * 64}", "env": env}
            ]},
        },
    }  # fmt: skip
    with cloud.lock:
        app, _, _ = cloud.apps.put(PATH, body)
    end = time.monotonic() + 5
    while app.operation is not None and time.monotonic() < end:
        time.sleep(0.01)
    if not latest:  # as of a worker, which serves nobody
        del app.configuration["ingress"]["traffic"]


def test_who_may_call_follows_the_release_and_comes_back_with_a_rollback(cloud: FakeAzure) -> None:
    driver(cloud).deploy(release(cloud, 1))
    private = release(cloud, 2, settings={"public": False}, health_check=HealthCheck(kind="none"))
    opened = provider(private.instance)
    previous = opened.current()
    handle = opened.start(private, previous)
    driver(cloud).wait(private, handle)
    assert the_app(cloud).external
    opened.promote(handle)
    assert not the_app(cloud).external
    assert driver(cloud).restore(private, previous) is not None
    assert the_app(cloud).external


def test_an_app_inside_its_environment_is_judged_by_the_platform(cloud: FakeAzure) -> None:
    given = release(cloud, 1, settings={"public": False, "max_replicas": 2})
    assert driver(cloud).deploy(given).error is None
    opened = provider(given.instance)
    handle = opened.restore("other", opened.current()) or ""
    assert opened.endpoint(handle) is None and opened.probe(handle) == ""


def test_prune_lets_azure_forget_what_no_rollback_needs(cloud: FakeAzure) -> None:
    drive = driver(cloud)
    done = [drive.deploy(release(cloud, number)).revision for number in range(1, 5)]
    drive.deploy(release(cloud, 5, "exit"))
    drive.call(None, lambda one: one.prune([one for one in done[2:] if one]))
    left = set(the_app(cloud).revisions)
    assert {one.id for one in done[2:] if one} <= left
    assert not {one.id for one in done[:2] if one} & left
    assert [one.name for one in the_app(cloud).revisions.values() if one.active] == [
        done[3].id if done[3] else ""
    ]
    assert drive.deploy(release(cloud, 6)).error is None


# Secrets ------------------------------------------------------------------------------------------


def test_a_secret_is_the_apps_and_nowhere_else(cloud: FakeAzure) -> None:
    cloud.bodies.clear()
    result = driver(cloud).deploy(release(cloud, 1))
    app = the_app(cloud)
    assert [one["value"] for one in app.secrets.values()] == [SECRET]
    assert f"{app.body()}{result}".count(SECRET) == 0
    assert all(SECRET not in str(one.template) for one in app.revisions.values())
    assert sum(SECRET in one for one in cloud.bodies) == 1


def test_a_secret_that_changed_leaves_the_release_before_its_own(cloud: FakeAzure) -> None:
    drive = driver(cloud)
    first = drive.deploy(release(cloud, 1)).revision
    two = release(cloud, 2)
    changed = Driver(lambda given: provider(two.instance, secret=lambda _: SecretStr("another")))
    assert changed.deploy(two).error is None
    values = {name: one["value"] for name, one in the_app(cloud).secrets.items()}
    assert sorted(values.values()) == ["another", SECRET]
    assert changed.restore(two, first) == first
    refs = {
        one["name"]: one.get("secretRef", "")
        for one in the_app(cloud)
        .revisions[first.id if first else ""]
        .template["containers"][0]["env"]
    }
    assert values[refs["DB_PASSWORD"]] == SECRET
    three = release(cloud, 3)
    assert drive.deploy(three).error is None
    assert len(the_app(cloud).secrets) == 2
    drive.call(None, lambda one: one.prune([]))
    assert [one["value"] for one in the_app(cloud).secrets.values()] == [SECRET]
    assert drive.deploy(release(cloud, 4)).error is None


def test_a_secret_of_a_vault_is_referred_to_and_not_copied(cloud: FakeAzure) -> None:
    reference = "azure-kv:https://acme.vault.azure.net/secrets/db/7"
    given = release(cloud, 1, secrets={"DB_PASSWORD": reference})
    assert driver(cloud).deploy(given).error is None
    (secret,) = the_app(cloud).secrets.values()
    assert secret["keyVaultUrl"] == "https://acme.vault.azure.net/secrets/db/7"
    assert secret["identity"] == IDENTITY and "value" not in secret
    assert driver(cloud).deploy(release(cloud, 2, secrets={"DB_PASSWORD": reference})).error is None
    assert len(the_app(cloud).secrets) == 1


def test_a_registrys_password_is_a_secret_of_the_app(cloud: FakeAzure) -> None:
    ghcr = RegistryTarget(
        kind="ghcr",
        repository="ghcr.io/acme/shop",
        settings={"username": "ci", "password": "env:X"},
    )
    pull = PullCredentials("ghcr.io", "ci", SecretStr(PASSWORD))
    settings: dict[str, JsonValue] = {"identity": None}
    one, two = (release(cloud, number, registry=ghcr, settings=settings) for number in (1, 2))
    drive = Driver(lambda given: provider((given or one).instance, pull=lambda: pull))
    assert drive.deploy(one).error is None and drive.deploy(two).error is None
    app = the_app(cloud)
    (registry,) = app.configuration["registries"]
    assert (registry["server"], registry["username"]) == ("ghcr.io", "ci")
    assert app.secrets[registry["passwordSecretRef"]]["value"] == PASSWORD
    drive.call(None, lambda opened: opened.prune([]))
    assert registry["passwordSecretRef"] in app.secrets


def test_acr_is_pulled_from_with_the_managed_identity(cloud: FakeAzure) -> None:
    driver(cloud).deploy(release(cloud, 1))
    app = the_app(cloud)
    assert app.configuration["registries"] == [{"server": "acme.azurecr.io", "identity": IDENTITY}]
    assert app.content["identity"] == {
        "type": "UserAssigned",
        "userAssignedIdentities": {IDENTITY: {}},
    }
    app.content["identity"]["type"] = "SystemAssigned, UserAssigned"
    assert driver(cloud).deploy(release(cloud, 2)).error is None
    assert app.content["identity"]["type"] == "SystemAssigned,UserAssigned"


# Before anything changes --------------------------------------------------------------------------

DATA = (Volume(mount="/data", name="data"),)
STORE = ObjectStorage(bucket="acme-helix", endpoint_url="https://s3.example.com")


@pytest.mark.parametrize(
    ("more", "says"),
    [
        ({"volumes": DATA}, "set storage in [cloud.prod.azure]"),
        (
            {"volumes": DATA, "settings": {"storage": "smb"}},
            '[deploy.prod.object_storage] with bucket = "…", endpoint_url = "https://…", '
            'access_key = "env:…" and secret_key = "env:…"',
        ),
        ({"volumes": DATA, "settings": {"storage": "smb"}}, "is an SMB share"),
        ({"volumes": DATA, "settings": {"storage": "files", "max_replicas": 2}}, "single writer"),
        ({"object_storage": STORE, "settings": {"max_replicas": 2}}, "single writer"),
        ({"volumes": (Volume(mount="/data", path="/srv"),)}, "name instead of a path"),
        ({"settings": {"app": "Shop_1"}}, "2 to 32 lower-case"),
        ({"settings": {"cpu": 0.5, "memory": "3Gi"}}, 'memory = "1Gi"'),
        ({"settings": {"cpu": 0.3, "memory": "0.6Gi"}}, "steps of 0.25"),
        ({"settings": {"min_replicas": 3}}, "min_replicas is 3"),
        ({"env": {"CONTAINER_APP_NAME": "x"}}, "CONTAINER_APP_NAME"),
        ({"env": {MARK: "x"}}, MARK),
        ({"registry": None}, 'kind = "acr"'),
        ({"settings": {"identity": None}}, "AcrPull"),
        ({"settings": {"identity": "system"}}, "has no role yet"),
        ({"registry": RegistryTarget(kind="ecr")}, "ends after hours"),
        ({"settings": {"location": "northeurope"}}, "is in West Europe"),
    ],
)
def test_what_cannot_work_is_refused_before_anything_changes(
    cloud: FakeAzure, more: dict[str, Any], says: str
) -> None:
    with pytest.raises(ConfigurationError) as raised:
        provider(instance(cloud, **more)).preflight()
    assert says in str(raised.value) and raised.value.hint
    assert changes(cloud) == []


def test_what_can_work_is_not_refused(cloud: FakeAzure) -> None:
    notes: list[str] = []
    provider(instance(cloud), notes=notes).preflight()
    assert any("first release" in one for one in notes)
    prebuilt = BuildSettings(kind="image", image="nginx")
    provider(instance(cloud, registry=None, build=prebuilt)).preflight()
    volume = instance(cloud, volumes=DATA, settings={"storage": "files"}, stop_grace=700)
    provider(volume, notes=notes).preflight()
    assert any("interrupts service" in one for one in notes)
    assert any("600 s" in one for one in notes)


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"resource_group": "other"}, "az group create"),
        ({"environment": "other"}, "az containerapp env create -n other"),
        ({"storage": "other"}, "az containerapp env storage set"),
    ],
)
def test_what_is_missing_is_named_with_what_to_type(
    cloud: FakeAzure, settings: dict[str, JsonValue], says: str
) -> None:
    wanted = instance(cloud, settings=settings, volumes=DATA if "storage" in settings else ())
    with pytest.raises(NotFound) as raised:
        provider(wanted).preflight()
    assert says in raised.value.hint and raised.value.request_id


def test_lacking_permissions_are_named_all_at_once(cloud: FakeAzure) -> None:
    cloud.denied = {
        "Microsoft.App/containerApps/write",
        "Microsoft.App/managedEnvironments/join/action",
    }
    with pytest.raises(PermissionDenied) as raised:
        provider(instance(cloud)).preflight()
    assert all(one in raised.value.message for one in cloud.denied)
    assert set(provider(instance(cloud)).lacking()) == cloud.denied
    cloud.denied = {"Microsoft.App/containerApps/read"}
    with pytest.raises(PermissionDenied) as raised:
        provider(instance(cloud)).identity()
    assert "grant Microsoft.App/containerApps/read" in raised.value.hint
    cloud.denied = {"Microsoft.Authorization/permissions/read"}
    notes: list[str] = []
    provider(instance(cloud), notes=notes).preflight()
    assert any("not checked" in one for one in notes)


def test_the_role_in_the_docs_is_what_is_needed_and_used(cloud: FakeAzure) -> None:
    page = (Path(__file__).parents[2] / "docs/providers/azure.md").read_text()
    role = json.loads(page.partition("```json")[2].partition("```")[0])
    given = release(cloud, 1, volumes=DATA, settings={"storage": "files"})
    drive = Driver(lambda _: provider(given.instance))
    first = drive.deploy(given).revision
    list(provider(given.instance).logs(tail=1))
    drive.deploy(release(cloud, 2, "exit", volumes=DATA, settings={"storage": "files"}))
    drive.call(None, lambda one: one.prune([first] if first else []))
    drive.call(None, lambda one: one.destroy(data=False))
    assert {*NEEDED, *cloud.used} <= {*role["Actions"]}
    unseen = {*role["Actions"]} - {*NEEDED, *cloud.used}
    # Of others' services, and of Azure's own words on a change, which it reads by itself.
    assert all("ManagedIdentity" in one or "containerappOperation" in one for one in unseen)


def test_an_environment_without_room_is_refused(cloud: FakeAzure) -> None:
    cloud.cores = (99.75, 100)
    with pytest.raises(QuotaExceeded, match="0.25 processors left of its 100"):
        provider(instance(cloud)).preflight()


def test_an_environment_that_is_not_ready_is_refused(cloud: FakeAzure) -> None:
    cloud.environments["helix-shop"]["properties"]["provisioningState"] = "Failed"
    with pytest.raises(ConfigurationError, match="is not ready: Failed"):
        provider(instance(cloud)).preflight()


def test_an_app_of_another_instance_is_left_alone(cloud: FakeAzure) -> None:
    bare(cloud, **{"helix.instance": "other/prod"})
    opened = provider(instance(cloud))
    for attempt in (
        opened.preflight,
        lambda: opened.start(release(cloud, 1), None),
        lambda: opened.destroy(data=True),
    ):
        with pytest.raises(Conflict, match="belongs to the instance other/prod"):
            attempt()


def test_who_we_are(cloud: FakeAzure, monkeypatch: pytest.MonkeyPatch) -> None:
    identity = provider(instance(cloud)).identity()
    assert identity.who == WHO and GROUP in identity.where
    assert identity.expires_at is not None and identity.expires_at > datetime.now(UTC)
    monkeypatch.setenv("AZURE_TOKEN_CREDENTIALS", "EnvironmentCredential")
    with pytest.raises(PermissionDenied) as raised:
        provider(instance(cloud)).identity()
    assert "az login" in raised.value.hint


def test_a_token_is_never_sent_in_the_clear(cloud: FakeAzure) -> None:
    with pytest.raises(ConfigurationError, match="no TLS"):
        provider(instance(cloud, settings={"endpoint": "http://127.0.0.1:1"}))


def test_commands_are_refused(cloud: FakeAzure) -> None:
    with pytest.raises(ConfigurationError, match="cannot run a command"):
        provider(instance(cloud)).run_check("", ("true",), 1)


# Logs ---------------------------------------------------------------------------------------------


def test_logs_are_streamed_and_followed(cloud: FakeAzure) -> None:
    with pytest.raises(NotFound, match="nothing was deployed"):
        next(provider(instance(cloud)).logs())
    given = release(cloud, 1)
    driver(cloud).deploy(given)
    container: Any = the_app(cloud).revisions[name_of(given)].container
    for number in range(400):
        container.say(f"line {number}")
    opened = provider(given.instance)
    assert list(opened.logs(tail=2)) == ["line 398", "line 399"]
    assert list(opened.logs()) == [f"line {number}" for number in range(100, 400)]
    lines = opened.logs(tail=1, follow=True)
    assert next(lines) == "line 399"
    container.say("one more")
    assert next(lines) == "one more"
    with cloud.lock:
        the_app(cloud).revisions[name_of(given)].stop()
    assert list(lines) == []
    time.sleep(0.1)
    with pytest.raises(NotFound, match="scaled to zero"):
        next(opened.logs())


# Errors -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("code", "expected"), [(code, cls) for cls, codes in CODES.items() for code in codes]
)
def test_each_code_means_its_class(code: str, expected: type[HelixError]) -> None:
    # The status says nothing: a failure arrives with 200, and a conflict may be one to wait for.
    message = "exceeding the quota" if code == "OperationNotAllowed" else ""
    assert {classify(code, message, status) for status in (200, 400, 409)} == {expected}


@pytest.mark.parametrize(("prefix", "expected"), PREFIXES)
def test_each_family_of_codes_means_its_class(prefix: str, expected: type[HelixError]) -> None:
    assert classify(f"{prefix}Something", status=409) is expected


@pytest.mark.parametrize(
    ("status", "expected"), [*STATUS.items(), (503, Transient), (405, ConfigurationError)]
)
def test_an_unknown_code_goes_by_its_status(
    cloud: FakeAzure, status: int, expected: type[HelixError]
) -> None:
    cloud.faults.next(status, "SomethingNew", "said so", Retry_After="7")
    opened = provider(instance(cloud))
    if expected is NotFound:
        assert opened.current() is None
        return
    with pytest.raises(HelixError) as raised:
        opened.current()
    assert type(raised.value) is expected
    assert "Microsoft.App/containerApps/read: SomethingNew: said so" in raised.value.message
    assert raised.value.retry_after == 7 and raised.value.request_id


@pytest.mark.parametrize(
    ("row", "message"),
    [
        (MESSAGES[0], "The access token expired."),
        (MESSAGES[1], "The operation is not allowed on this resource."),
        (MESSAGES[2], "Another update is in progress."),
    ],
)
def test_each_sentence_is_understood(row: tuple[str, str, type[HelixError]], message: str) -> None:
    assert classify(row[0], message, 400) is row[2]


@pytest.mark.parametrize("name", EXCEPTIONS)
def test_each_exception_of_the_sdk_has_a_class(name: str) -> None:
    cls = getattr(core_errors, name, None) or CredentialUnavailableError
    error = translate(cls("no\nAttempted credentials: eyJ0.secret"), "log in to Azure")
    assert type(error) is EXCEPTIONS[name] and "eyJ0" not in str(error)
    if EXCEPTIONS[name] is Ambiguous:
        assert type(translate(cls("no"), "read", reads=True)) is Transient


@pytest.mark.parametrize("code", ENTRA)
def test_each_reason_of_entra_has_a_class(code: str) -> None:
    error = core_errors.ClientAuthenticationError(f"Authentication failed: {code}: so it is.")
    assert type(translate(error, "log in to Azure")) is ENTRA[code]


def test_the_permission_that_azure_names_is_the_one_to_grant(cloud: FakeAzure) -> None:
    cloud.faults.next(
        403,
        "LinkedAuthorizationFailed",
        "The client has permission to perform action 'Microsoft.App/containerApps/write' on scope "
        "'x', but does not have permission to perform action(s) "
        "'Microsoft.App/managedEnvironments/join/action' on the linked scope(s) 'y'.",
    )
    with pytest.raises(PermissionDenied) as raised:
        provider(instance(cloud)).current()
    assert "grant Microsoft.App/managedEnvironments/join/action" in raised.value.hint


def test_a_server_that_is_not_there_is_transient(cloud: FakeAzure) -> None:
    with pytest.raises(Transient):
        provider(instance(cloud, settings={"endpoint": "https://127.0.0.1:1"})).current()


def test_every_attempt_is_ours_to_count(cloud: FakeAzure) -> None:
    cloud.faults.next(503, "ServiceUnavailable", times=2)
    for _ in range(2):
        with pytest.raises(Transient):
            provider(instance(cloud)).current()
    assert cloud.calls.count("GET helix-shop-prod") == 2
    cloud.faults.next(429, "TooManyRequests", Retry_After="11")
    with pytest.raises(Throttled) as raised:
        provider(instance(cloud)).current()
    assert raised.value.retry_after == 11


def test_callers_at_once_make_one_app(cloud: FakeAzure) -> None:
    given = release(cloud, 1)
    found: list[str] = []

    def work() -> None:
        handle = driver(cloud).call(given, lambda one: one.start(given, None))
        found.append(Handle.model_validate_json(handle).revision)

    threads = [threading.Thread(target=work) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [name_of(given)] * 3
    assert len(the_app(cloud).revisions) == 1
