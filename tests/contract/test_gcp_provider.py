"""The `gcp` kind against a stateful stand-in that speaks the vendor's own messages."""

from __future__ import annotations

import hashlib
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import pytest
from google.api_core import exceptions as google_errors
from google.auth import exceptions as auth_errors
from google.cloud import run_v2
from pydantic import JsonValue, SecretStr

from helix_deploy.testing import Driver, Killed, ProviderSuite
from model.artifact import Artifact, Image
from model.errors import (
    Ambiguous,
    AuthExpired,
    Busy,
    ConfigurationError,
    Conflict,
    HealthCheckFailed,
    HelixError,
    NotFound,
    NothingToRestore,
    PermissionDenied,
    PlatformUnhealthy,
    QuotaExceeded,
    Throttled,
    Transient,
)
from model.gcp_errors import CODES, EXCEPTIONS, MESSAGES, REASONS, classify, translate
from model.instance import BuildSettings, HealthCheck, Instance, RegistryTarget, Target, Volume
from model.names import LABEL_DEPLOYMENT
from model.platform import Phase, Release, Revision
from providers import gcp as gcp_module
from providers.base import Context
from providers.catalog import PROVIDERS
from providers.gcp import GcpProvider
from providers.gcp_api import Api
from providers.gcp_service import CANDIDATE, Handle, revision_name
from tests.contract.failing_suite import FailingSuite, FailingWorld
from tests.fakes.gcp import FakeGcp, Faults
from tests.fakes.gcp_run import Behaviour
from tests.fakes.gcp_web import ACCOUNT

PARENT = "projects/acme/locations/europe-west1"
SERVICE = f"{PARENT}/services/helix-shop-prod"
SECRET = "hunter2-canary"
CHECK = HealthCheck(interval=0.01, successes=1, deadline=3)


@pytest.fixture
def cloud(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeGcp]:
    monkeypatch.setattr(gcp_module, "LOOK_SECONDS", 0.01)
    with FakeGcp(seconds=0.02) as fake:
        yield fake


def instance(
    cloud: FakeGcp, *, settings: dict[str, JsonValue] | None = None, **more: Any
) -> Instance:
    own: dict[str, JsonValue] = {
        "project_id": "acme",
        "region": "europe-west1",
        "public": True,
        "endpoint": cloud.endpoint,
    }
    about: dict[str, Any] = {
        "registry": RegistryTarget(
            kind="gar", repository="europe-west1-docker.pkg.dev/acme/helix/shop"
        ),
        "health_check": CHECK,
        "env": {"LEVEL": "info"},
        "secrets": {"DB_PASSWORD": "env:DB_PASSWORD"},
    }
    target = Target(kind="gcp", settings=own | (settings or {}))
    return Instance(project="shop", name="prod", target=target, **(about | more))


def release(cloud: FakeGcp, number: int, content: str = "", **more: Any) -> Release:
    digest = f"sha256:{hashlib.sha256((content or str(number)).encode()).hexdigest()}"
    image = Image(repository="europe-west1-docker.pkg.dev/acme/helix/shop", digest=digest)
    return Release(
        number=number,
        deployment=f"0198c0de-0000-7000-8000-{number:08x}0000",
        instance=instance(cloud, **more),
        artifact=Artifact(image=image),
    )


def provider(one: Instance, **context: Any) -> GcpProvider:
    def secret(reference: str) -> SecretStr:
        return SecretStr(SECRET)

    loaded = PROVIDERS.load("gcp")(one, Context(secret=secret, **context))
    assert isinstance(loaded, GcpProvider)
    return loaded


def driver(cloud: FakeGcp) -> Driver:
    return Driver(lambda given: provider(given.instance if given else instance(cloud)))


def breaks(cloud: FakeGcp, given: Release, **how: Any) -> None:
    cloud.run.behaviours[given.artifact.identity] = Behaviour(**how)


def serves(cloud: FakeGcp) -> str:
    """The revision that answers people."""
    answer = httpx.get(f"{cloud.web.address}/run/helix-shop-prod/")
    return str(answer.json().get("revision", answer.status_code))


def name_of(given: Release) -> str:
    return revision_name("helix-shop-prod", given.deployment)


def begun(cloud: FakeGcp) -> int:
    """How many times something was changed."""
    return sum(one in ("CreateService", "UpdateService") for one in cloud.calls)


# What every provider must do ----------------------------------------------------------------------


class GcpWorld(FailingWorld):
    """Cloud Run."""

    patience = 1.0
    secrets = {"env:DB_PASSWORD": SECRET}

    def __init__(self, cloud: FakeGcp, monkeypatch: pytest.MonkeyPatch) -> None:
        self.cloud, self.monkeypatch = cloud, monkeypatch

    def instance(self, name: str, behaviour: str = "serve") -> Instance:
        return instance(
            self.cloud,
            env={"NAME": name, "BEHAVIOUR": behaviour},
            build=BuildSettings(kind="image", image="nginx"),
            registry=None,
        )

    def artifact(self, tag: str = "1") -> Artifact:
        digest = f"sha256:{tag * 64}"
        repository = "europe-west1-docker.pkg.dev/acme/helix/shop"
        return Artifact(image=Image(repository=repository, digest=digest))

    def provider(self, given: Instance) -> GcpProvider:
        return provider(given)

    def answer(self) -> str:
        answer = httpx.get(f"{self.cloud.web.address}/run/helix-shop-prod/")
        return str(answer.json()["name"]) if answer.status_code == 200 else ""

    def running(self) -> list[str]:
        """What has traffic or an address; the rest is scaled to nothing."""
        with self.cloud.lock:
            self.cloud.advance()
            service = self.cloud.run.services.get(SERVICE)
            if service is None:
                return []
            revisions = self.cloud.run.revisions[SERVICE]
            names = [one.revision for one in service.traffic_statuses]
            found = [revisions[f"{SERVICE}/revisions/{name}"] for name in names]
            return [one.annotations[LABEL_DEPLOYMENT] for one in found]

    def remains(self) -> list[str]:
        with self.cloud.lock:
            self.cloud.advance()
            run = self.cloud.run
            revisions = [name for each in run.revisions.values() for name in each]
            return [*run.services, *revisions, *self.cloud.secrets]

    def means(self, handle: str) -> str:
        return Handle.model_validate_json(handle).revision

    @contextmanager
    def kill_after(self, writes: int) -> Iterator[None]:
        left, call = writes, Api.call

        def counted(api: Api, *given: Any, reads: bool = False, **named: Any) -> Any:
            nonlocal left
            answer = call(api, *given, reads=reads, **named)
            if not reads:
                left -= 1
                if left == 0:
                    raise Killed
            return answer

        with self.monkeypatch.context() as patch:
            patch.setattr(Api, "call", counted)
            yield

    @contextmanager
    def failing(self, rate: float, seed: int) -> Iterator[list[str]]:
        """By gRPC's own codes, half of them after the call was carried out."""
        self.cloud.faults = Faults(rate=rate, seed=seed)
        yield self.cloud.faults.injected
        self.cloud.faults = Faults()

    def remove(self, revision: Revision) -> None:
        with self.cloud.lock:
            del self.cloud.run.revisions[SERVICE][f"{SERVICE}/revisions/{revision.id}"]


class TestGcp(ProviderSuite, FailingSuite):
    @pytest.fixture
    def world(self, cloud: FakeGcp, monkeypatch: pytest.MonkeyPatch) -> GcpWorld:
        return GcpWorld(cloud, monkeypatch)


# The life of a release ----------------------------------------------------------------------------


def test_a_first_release_runs_and_is_current_once_promoted(cloud: FakeGcp) -> None:
    given = release(cloud, 1)
    result = driver(cloud).deploy(given)
    assert result.error is None and result.previous is None
    assert result.revision is not None
    assert (result.revision.id, result.revision.release) == (name_of(given), 1)
    assert result.revision.artifact == given.artifact.identity
    assert serves(cloud) == name_of(given)
    opened = provider(given.instance)
    assert opened.current() == result.revision
    assert opened.public_url() == f"{cloud.web.address}/run/helix-shop-prod"
    assert cloud.run.services[SERVICE].traffic[0].tag == ""


def test_a_first_release_is_not_current_before_it_is_promoted(cloud: FakeGcp) -> None:
    given = release(cloud, 1)
    opened = provider(given.instance)
    handle = opened.start(given, None)
    driver(cloud).wait(given, handle)
    assert serves(cloud) == name_of(given)  # Cloud Run has no service without traffic
    assert opened.current() is None


def test_a_candidate_is_checked_at_its_own_address_without_traffic(cloud: FakeGcp) -> None:
    one, two = release(cloud, 1), release(cloud, 2)
    first = driver(cloud).deploy(one).revision
    opened = provider(two.instance)
    handle = opened.start(two, first)
    driver(cloud).wait(two, handle)
    endpoint = opened.endpoint(handle)
    assert endpoint is not None
    assert httpx.get(endpoint.url).json()["revision"] == name_of(two)
    assert serves(cloud) == name_of(one)
    assert opened.current() == first
    promoted = opened.promote(handle)
    assert (promoted.id, serves(cloud)) == (name_of(two), name_of(two))


def test_start_does_not_wait_and_is_found_again_by_another_worker(cloud: FakeGcp) -> None:
    cloud.seconds = 0.5
    given = release(cloud, 1)
    started = time.monotonic()
    handle = provider(given.instance).start(given, None)
    assert time.monotonic() - started < 0.4
    assert len(handle) < 2048 and SECRET not in handle
    assert Handle.model_validate_json(handle).operation
    assert provider(given.instance).poll(handle).phase is Phase.STARTING
    again = provider(given.instance).start(given, None)
    assert Handle.model_validate_json(again).revision == name_of(given)
    assert cloud.calls.count("CreateService") == 1 and "UpdateService" not in cloud.calls
    driver(cloud).wait(given, again)  # without the operation's name, too


def test_an_unchanged_release_restarts_nothing(cloud: FakeGcp) -> None:
    first = driver(cloud).deploy(release(cloud, 1, "same")).revision
    before = begun(cloud)
    second = driver(cloud).deploy(release(cloud, 2, "same"))
    assert second.error is None and second.revision == first
    assert begun(cloud) == before
    assert driver(cloud).deploy(release(cloud, 3, "same", env={"LEVEL": "debug"})).revision != first


def test_an_unchanged_release_after_a_failed_one_is_promoted(cloud: FakeGcp) -> None:
    drive = driver(cloud)
    first = drive.deploy(release(cloud, 1, "good")).revision
    bad = release(cloud, 2)
    breaks(cloud, bad, reason="HEALTH_CHECK_CONTAINER_ERROR")
    assert drive.deploy(bad).error is not None
    assert drive.deploy(release(cloud, 3, "good")).revision == first


@pytest.mark.parametrize(
    ("reason", "says"),
    [
        ("HEALTH_CHECK_CONTAINER_ERROR", "must listen on"),
        ("CONTAINER_MISSING", "push again"),
        ("CONTAINER_PERMISSION_DENIED", "roles/artifactregistry.reader"),
        ("PROGRESS_DEADLINE_EXCEEDED", "took too long"),
        ("INTERNAL", "INTERNAL"),
    ],
)
def test_a_revision_that_fails_is_rolled_back_with_its_reason_and_its_last_words(
    cloud: FakeGcp, reason: str, says: str
) -> None:
    good, bad = release(cloud, 1), release(cloud, 2)
    first = driver(cloud).deploy(good).revision
    breaks(cloud, bad, reason=reason)
    result = driver(cloud).deploy(bad)
    assert isinstance(result.error, HealthCheckFailed)
    assert reason in result.error.message and says in result.error.message
    assert "panic: cannot open the database" in result.error.evidence
    assert result.restored is not None and first is not None and result.restored.id == first.id
    assert serves(cloud) == name_of(good)
    assert provider(good.instance).current() == first


def test_a_sick_candidate_never_has_traffic(cloud: FakeGcp) -> None:
    good, bad = release(cloud, 1), release(cloud, 2)
    driver(cloud).deploy(good)
    breaks(cloud, bad, status=500)
    drive = driver(cloud)
    drive.patience = 0.2
    result = drive.deploy(bad)
    assert result.error is not None and "500" in result.error.message
    assert serves(cloud) == name_of(good)
    assert [one.tag for one in cloud.run.services[SERVICE].traffic] == [""]


def test_a_first_release_that_fails_leaves_nothing(cloud: FakeGcp) -> None:
    bad = release(cloud, 1)
    breaks(cloud, bad, reason="HEALTH_CHECK_CONTAINER_ERROR")
    result = driver(cloud).deploy(bad)
    assert result.error is not None and result.restored is None
    assert not cloud.run.services and not cloud.run.revisions and not cloud.secrets
    assert driver(cloud).deploy(release(cloud, 2)).error is None


def test_restore_brings_the_revision_back_by_name_even_after_promote(cloud: FakeGcp) -> None:
    one, two = release(cloud, 1), release(cloud, 2)
    drive = driver(cloud)
    first = drive.deploy(one).revision
    second = drive.deploy(two)
    assert serves(cloud) == name_of(two)
    made = set(cloud.run.revisions[SERVICE])
    restored = drive.restore(two, second.previous)
    assert restored is not None and first is not None and restored.id == first.id
    assert serves(cloud) == name_of(one)
    assert set(cloud.run.revisions[SERVICE]) <= made
    again = drive.restore(two, second.previous)
    assert again is not None and again.id == first.id


def test_restore_works_where_nothing_was_started(cloud: FakeGcp) -> None:
    one = release(cloud, 1)
    first = driver(cloud).deploy(one).revision
    before = begun(cloud)
    assert driver(cloud).restore(release(cloud, 2), first) == first
    assert driver(cloud).restore(release(cloud, 3), None) is None
    assert begun(cloud) == before and serves(cloud) == name_of(one)


def test_nothing_to_restore_is_said(cloud: FakeGcp) -> None:
    driver(cloud).deploy(release(cloud, 1))
    gone = Revision(id="helix-shop-prod-gone", release=1)
    with pytest.raises(NothingToRestore):
        provider(instance(cloud)).restore("d", gone)


def test_a_later_release_is_never_replaced_by_an_earlier_one(cloud: FakeGcp) -> None:
    one, two, three = (release(cloud, number) for number in (1, 2, 3))
    drive = driver(cloud)
    first = drive.deploy(one).revision
    handle = provider(two.instance).start(two, first)
    assert drive.deploy(three).error is None
    late = provider(two.instance)
    for attempt in (
        lambda: late.start(two, first),
        lambda: late.promote(handle),
        lambda: late.restore(two.deployment, first),
    ):
        with pytest.raises(Conflict, match="taken over"):
            attempt()
    assert serves(cloud) == name_of(three)


def test_a_late_restore_leaves_the_next_candidate_its_address(cloud: FakeGcp) -> None:
    one, two, three = (release(cloud, number) for number in (1, 2, 3))
    drive = driver(cloud)
    first = drive.deploy(one).revision
    breaks(cloud, two, reason="INTERNAL")
    drive.deploy(two)
    handle = provider(three.instance).start(three, first)
    provider(two.instance).restore(two.deployment, first)
    drive.wait(three, handle)
    assert provider(three.instance).promote(handle).id == name_of(three)


def test_two_callers_at_once_make_one_revision(cloud: FakeGcp) -> None:
    given = release(cloud, 1)
    found: list[str] = []

    def work() -> None:
        opened = driver(cloud)
        handle = opened.call(given, lambda one: one.start(given, None))
        found.append(Handle.model_validate_json(handle).revision)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [name_of(given)] * 4
    assert len(cloud.run.revisions[SERVICE]) == 1


def test_prune_keeps_what_a_rollback_needs(cloud: FakeGcp) -> None:
    drive = driver(cloud)
    done = [drive.deploy(release(cloud, number)).revision for number in range(1, 6)]
    drive.call(None, lambda one: one.prune([one for one in done[2:4] if one]))
    left = {name.rsplit("/", 1)[-1] for name in cloud.run.revisions[SERVICE]}
    assert left == {one.id for one in done[2:] if one}
    drive.call(None, lambda one: one.prune([]))
    assert len(cloud.run.revisions[SERVICE]) == 1


def test_destroy_leaves_nothing_and_may_be_repeated(cloud: FakeGcp) -> None:
    driver(cloud).deploy(release(cloud, 1))
    assert cloud.secrets
    for _ in range(2):
        driver(cloud).call(None, lambda one: one.destroy(data=False))
        assert not cloud.run.services and not cloud.secrets
    assert provider(instance(cloud)).current() is None
    assert provider(instance(cloud)).public_url() == ""


# The platform's traps -----------------------------------------------------------------------------


def test_latest_means_latest_ready_so_success_is_our_revisions_own_word(cloud: FakeGcp) -> None:
    """A failed revision under «latest» leaves a service that answers well, from the one before."""
    driver(cloud).deploy(release(cloud, 1))
    by_hand(cloud, latest=True)
    bad = release(cloud, 2)
    breaks(cloud, bad, reason="HEALTH_CHECK_CONTAINER_ERROR")
    opened = provider(bad.instance)
    handle = opened.start(bad, opened.current())
    with pytest.raises(HealthCheckFailed):
        driver(cloud).wait(bad, handle)
    assert httpx.get(f"{cloud.web.address}/run/helix-shop-prod/").status_code == 200


def test_a_restore_succeeds_although_service_and_operation_report_failure(cloud: FakeGcp) -> None:
    good, bad = release(cloud, 1), release(cloud, 2)
    driver(cloud).deploy(good)
    breaks(cloud, bad, reason="HEALTH_CHECK_CONTAINER_ERROR")
    assert driver(cloud).deploy(bad).restored is not None
    time.sleep(0.05)
    provider(good.instance).current()
    service = cloud.run.services[SERVICE]
    assert service.terminal_condition.state == run_v2.Condition.State.CONDITION_FAILED
    assert service.traffic_statuses[0].revision == name_of(good)


def test_pinned_traffic_does_not_keep_a_later_release_from_it(cloud: FakeGcp) -> None:
    one, two = release(cloud, 1), release(cloud, 2)
    driver(cloud).deploy(one)
    assert cloud.run.services[SERVICE].traffic[0].revision == name_of(one)
    assert driver(cloud).deploy(two).error is None
    assert serves(cloud) == name_of(two)


def test_a_candidate_without_its_minimum_of_instances_has_not_failed(cloud: FakeGcp) -> None:
    drive, settings = driver(cloud), {"min_instances": 1}
    drive.deploy(release(cloud, 1, settings=settings))
    assert drive.deploy(release(cloud, 2, settings=settings)).error is None


def test_a_reason_with_which_the_platform_tries_again_is_no_failure(cloud: FakeGcp) -> None:
    given = release(cloud, 1)
    breaks(cloud, given, reason="POSTPONED_RETRY")
    opened = provider(given.instance)
    handle = opened.start(given, None)
    without = Handle.model_validate_json(handle).model_copy(update={"operation": ""})
    time.sleep(0.05)
    assert opened.poll(without.model_dump_json()).phase is Phase.STARTING


def test_a_forgotten_operation_is_done_without(cloud: FakeGcp) -> None:
    good, bad = release(cloud, 1), release(cloud, 2)
    breaks(cloud, bad, reason="INTERNAL")
    for given, expected in ((good, Phase.RUNNING), (bad, Phase.FAILED)):
        opened = provider(given.instance)
        handle = opened.start(given, None)
        time.sleep(0.05)
        opened.current()
        cloud.forget_operations()
        assert opened.poll(handle).phase is expected
        if expected is Phase.RUNNING:
            opened.promote(handle)


def test_an_operation_that_failed_before_there_was_a_revision_is_heard(cloud: FakeGcp) -> None:
    given = release(cloud, 1)
    opened = provider(given.instance)
    handle = opened.start(given, None)
    cloud.run.revisions[SERVICE].clear()
    time.sleep(0.05)
    rollout = opened.poll(handle)
    assert rollout.phase is Phase.FAILED and "not ready" in rollout.detail


def test_a_stale_etag_is_read_anew(cloud: FakeGcp) -> None:
    driver(cloud).deploy(release(cloud, 1))
    two = release(cloud, 2)
    cloud.faults.next("ABORTED", "Conflict for resource: version mismatch", method="UpdateService")
    with pytest.raises(Busy):
        provider(two.instance).start(two, None)
    assert driver(cloud).deploy(two).error is None


def test_what_was_changed_is_not_seen_at_once(cloud: FakeGcp) -> None:
    cloud.run.lag = 0.1
    drive = driver(cloud)
    assert drive.deploy(release(cloud, 1)).error is None
    result = drive.deploy(release(cloud, 2))
    assert result.error is None and serves(cloud) == name_of(release(cloud, 2))


@pytest.mark.parametrize("method", ["CreateService", "UpdateService"])
@pytest.mark.parametrize("code", ["DEADLINE_EXCEEDED", "UNAVAILABLE"])
def test_a_call_that_happened_without_an_answer_is_found(
    cloud: FakeGcp, method: str, code: str
) -> None:
    driver(cloud).deploy(release(cloud, 1)) if method == "UpdateService" else None
    given = release(cloud, 2)
    known = len(cloud.run.revisions.get(SERVICE, {}))
    cloud.faults.next(code, method=method, lost=True)
    result = driver(cloud).deploy(given)
    assert result.error is None
    assert len(cloud.run.revisions[SERVICE]) == known + 1


def by_hand(cloud: FakeGcp, *, latest: bool = False, shares: dict[str, int] | None = None) -> None:
    """As a person moves traffic with Google's own tools."""
    service = cloud.run.services[SERVICE]
    if latest:
        service.traffic = [
            run_v2.TrafficTarget(
                type_=run_v2.TrafficTargetAllocationType.TRAFFIC_TARGET_ALLOCATION_TYPE_LATEST,
                percent=100,
            )
        ]
    else:
        service.traffic = [
            run_v2.TrafficTarget(
                type_=run_v2.TrafficTargetAllocationType.TRAFFIC_TARGET_ALLOCATION_TYPE_REVISION,
                revision=name,
                percent=percent,
            )
            for name, percent in (shares or {}).items()
        ]
    cloud.run._reconcile(SERVICE)


def test_a_split_and_tags_that_people_made_come_back(cloud: FakeGcp) -> None:
    one, two, bad = (release(cloud, number) for number in (1, 2, 3))
    drive = driver(cloud)
    drive.deploy(one)
    drive.deploy(two)
    by_hand(cloud, shares={name_of(one): 30, name_of(two): 70})
    service = cloud.run.services[SERVICE]
    tagged = run_v2.TrafficTarget(type_=2, revision=name_of(one), tag="old")
    service.traffic = [*service.traffic, tagged]
    breaks(cloud, bad, reason="INTERNAL")
    assert drive.deploy(bad).restored is not None
    after = {(one.revision, one.percent, one.tag) for one in cloud.run.services[SERVICE].traffic}
    assert after == {(name_of(one), 30, ""), (name_of(two), 70, ""), (name_of(one), 0, "old")}
    good = release(cloud, 4)
    assert drive.deploy(good).error is None
    after = {(one.revision, one.percent, one.tag) for one in cloud.run.services[SERVICE].traffic}
    assert after == {(name_of(good), 100, ""), (name_of(one), 0, "old")}


def test_a_service_that_was_there_before_us_is_adopted_and_given_back(cloud: FakeGcp) -> None:
    bare(cloud, "helix-shop-prod")
    found = provider(instance(cloud)).current()
    assert found is not None and (found.release, found.deployment) == (0, "")
    bad = release(cloud, 1)
    breaks(cloud, bad, reason="INTERNAL")
    assert driver(cloud).deploy(bad).restored is not None
    assert serves(cloud) == found.id
    assert driver(cloud).deploy(release(cloud, 2)).error is None


def bare(cloud: FakeGcp, name: str, **annotations: str) -> None:
    """A service that somebody else made."""
    container = run_v2.Container(image=f"gcr.io/acme/other@sha256:{'a' * 64}")
    latest = run_v2.TrafficTargetAllocationType.TRAFFIC_TARGET_ALLOCATION_TYPE_LATEST
    service = run_v2.Service(
        template=run_v2.RevisionTemplate(containers=[container]),
        traffic=[run_v2.TrafficTarget(type_=latest, percent=100)],
        annotations=annotations,
        invoker_iam_disabled=True,
    )
    request = run_v2.CreateServiceRequest(parent=PARENT, service=service, service_id=name)
    with cloud.lock:
        cloud.run._create(request)
        cloud.run._reconcile(f"{PARENT}/services/{name}")


def test_who_may_call_follows_the_release_and_comes_back_with_a_rollback(cloud: FakeGcp) -> None:
    one = release(cloud, 1)
    driver(cloud).deploy(one)
    private = release(cloud, 2, settings={"public": False}, health_check=HealthCheck(kind="none"))
    opened = provider(private.instance)
    previous = opened.current()
    handle = opened.start(private, previous)
    driver(cloud).wait(private, handle)
    assert cloud.run.services[SERVICE].invoker_iam_disabled
    opened.promote(handle)
    assert not cloud.run.services[SERVICE].invoker_iam_disabled
    assert driver(cloud).restore(private, previous) is not None
    assert cloud.run.services[SERVICE].invoker_iam_disabled


def test_a_private_candidate_is_asked_with_a_token_for_the_service(
    cloud: FakeGcp, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = release(cloud, 1, settings={"public": False})
    file = cloud.web.account_file(tmp_path)
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(file))
    assert driver(cloud).deploy(given).error is None
    opened = provider(given.instance)
    endpoint = opened.endpoint(opened.restore("other", opened.current()) or "")
    assert endpoint is not None and endpoint.headers["authorization"].startswith("Bearer ")
    assert httpx.get(endpoint.url).status_code == 403


def test_without_a_token_a_private_candidate_is_judged_by_the_platform(
    cloud: FakeGcp, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(tmp_path / "none.json"))
    given = release(cloud, 1, settings={"public": False})
    assert driver(cloud).deploy(given).error is None


# Secrets ------------------------------------------------------------------------------------------


def test_a_secret_goes_to_secret_manager_and_nowhere_else(cloud: FakeGcp) -> None:
    result = driver(cloud).deploy(release(cloud, 1))
    assert (
        cloud.versions["projects/acme/secrets/helix-shop-prod-DB_PASSWORD"][0][1].decode() == SECRET
    )
    env = {one.name: one for one in cloud.run.services[SERVICE].template.containers[0].env}
    source = env["DB_PASSWORD"].value_source.secret_key_ref
    assert (source.secret, source.version) == ("helix-shop-prod-DB_PASSWORD", "1")
    everything = f"{cloud.run.services}{cloud.run.revisions}{cloud.entries}{result}{cloud.secrets}"
    assert SECRET not in everything


def test_an_equal_secret_is_not_stored_again_and_an_old_one_is_destroyed(cloud: FakeGcp) -> None:
    drive = driver(cloud)
    drive.deploy(release(cloud, 1))
    drive.deploy(release(cloud, 2))
    path = "projects/acme/secrets/helix-shop-prod-DB_PASSWORD"
    assert len(cloud.versions[path]) == 1
    cloud.versions[path].append(
        (type(cloud.versions[path][0][0])(name=f"{path}/versions/2", state=1), b"another")
    )
    drive.deploy(release(cloud, 3))
    assert [version.name[-1] for version, _ in cloud.versions[path]] == ["1", "2", "3"]
    drive.call(None, lambda one: one.prune([]))
    assert [version.state.name for version, _ in cloud.versions[path]] == [
        "DESTROYED",
        "DESTROYED",
        "ENABLED",
    ]
    assert drive.deploy(release(cloud, 4)).error is None


def test_a_numbered_secret_of_google_is_referred_to_and_not_copied(cloud: FakeGcp) -> None:
    reference = "gcp-sm:projects/acme/secrets/shared/versions/7"
    given = release(cloud, 1, secrets={"TOKEN": reference})
    result = driver(cloud).deploy(given)
    assert isinstance(result.error, HealthCheckFailed)
    assert "projects/acme/secrets/shared/versions/7 was not found" in result.error.message
    assert "roles/secretmanager.secretAccessor" in result.error.message
    assert "AddSecretVersion" not in cloud.calls


# Before anything changes --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("more", "says"),
    [
        ({"volumes": (Volume(mount="/data", name="data"),)}, "object_storage"),
        ({"strategy": "stop-first"}, "strategy"),
        ({"settings": {"service": "Shop_1"}}, "49 lower-case"),
        ({"env": {"PORT": "80"}}, "PORT"),
        ({"secrets": {"K_SERVICE": "env:X"}}, "K_SERVICE"),
        ({"registry": None}, 'kind = "gar"'),
    ],
)
def test_what_cannot_work_is_refused_before_anything_changes(
    cloud: FakeGcp, more: dict[str, Any], says: str
) -> None:
    with pytest.raises(ConfigurationError) as raised:
        provider(instance(cloud, **more)).preflight()
    assert says in str(raised.value) and raised.value.hint
    assert not begun(cloud)


def test_a_registry_that_cloud_run_cannot_read_is_refused(cloud: FakeGcp) -> None:
    ghcr = RegistryTarget(kind="ghcr", repository="ghcr.io/acme/shop")
    with pytest.raises(ConfigurationError, match="does not pull from ghcr.io"):
        provider(instance(cloud, registry=ghcr, settings={"endpoint": None})).preflight()
    prebuilt = BuildSettings(kind="image", image="nginx")
    provider(instance(cloud, registry=None, build=prebuilt)).preflight()


def test_a_service_of_another_instance_is_left_alone(cloud: FakeGcp) -> None:
    bare(cloud, "helix-shop-prod", **{"helix.instance": "other/prod"})
    opened = provider(instance(cloud))
    for attempt in (
        opened.preflight,
        lambda: opened.start(release(cloud, 1), None),
        lambda: opened.destroy(data=True),
    ):
        with pytest.raises(Conflict, match="belongs to the instance other/prod"):
            attempt()


def test_lacking_permissions_are_named_before_anything_changes(cloud: FakeGcp) -> None:
    driver(cloud).deploy(release(cloud, 1))
    cloud.denied = {"run.services.update", "run.revisions.delete"}
    with pytest.raises(PermissionDenied, match=r"run\.services\.update, run\.revisions\.delete"):
        provider(instance(cloud)).preflight()
    cloud.denied = {"run.services.get"}
    with pytest.raises(PermissionDenied) as raised:
        provider(instance(cloud)).identity()
    assert "grant run.services.get" in raised.value.hint


def test_who_we_are(cloud: FakeGcp, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert provider(instance(cloud)).identity().who == "anonymous"
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(cloud.web.account_file(tmp_path)))
    opened = provider(instance(cloud, settings={"endpoint": None}))
    who, expires_at = opened._api.who()
    assert who == ACCOUNT and expires_at is not None and expires_at > datetime.now(UTC)
    cloud.web.refuse_tokens = "invalid_grant"
    with pytest.raises(AuthExpired) as raised:
        opened._api.who()
    assert "gcloud auth application-default login" in raised.value.hint


def test_a_stand_in_elsewhere_is_refused(cloud: FakeGcp) -> None:
    with pytest.raises(ConfigurationError, match="no TLS"):
        provider(instance(cloud, settings={"endpoint": "http://example.com:80"}))


def test_commands_are_refused(cloud: FakeGcp) -> None:
    with pytest.raises(ConfigurationError, match="cannot run a command"):
        provider(instance(cloud)).run_check("", ("true",), 1)


# Logs ---------------------------------------------------------------------------------------------


def test_logs_are_read_backwards_paged_and_followed(
    cloud: FakeGcp, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("providers.gcp_logs.FOLLOW_SECONDS", 0.01)
    with pytest.raises(NotFound):
        next(provider(instance(cloud)).logs())
    given = release(cloud, 1)
    driver(cloud).deploy(given)
    cloud.entries.clear()
    start = datetime.now(UTC)
    for number in range(450):
        cloud.log("helix-shop-prod", name_of(given), f"line {number}")
    cloud.log("another", "another-1", "not ours")
    opened = provider(given.instance)
    assert list(opened.logs(tail=2)) == ["line 448", "line 449"]
    assert list(opened.logs(since=start)) == [f"line {number}" for number in range(450)]
    assert len(list(opened.logs())) == 200
    lines = opened.logs(tail=1, follow=True)
    assert next(lines) == "line 449"
    cloud.log("helix-shop-prod", name_of(given), "one more")
    assert next(lines) == "one more"


# Errors -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("code", CODES)
def test_each_code_arrives_as_its_class(cloud: FakeGcp, code: str) -> None:
    cloud.faults.next(code, method="GetService", message="said so")
    expected = {"DEADLINE_EXCEEDED": Transient, "NOT_FOUND": None}.get(code, CODES[code])
    opened = provider(instance(cloud))
    if expected is None:
        assert opened.current() is None
        return
    with pytest.raises(HelixError) as raised:
        opened.current()
    assert type(raised.value) is expected
    assert "run.services.get: said so" in raised.value.message


@pytest.mark.parametrize("reason", REASONS)
def test_each_reason_goes_before_the_code(cloud: FakeGcp, reason: str) -> None:
    cloud.faults.next("PERMISSION_DENIED", reason=reason, retry_after=2.5)
    with pytest.raises(HelixError) as raised:
        provider(instance(cloud)).current()
    assert type(raised.value) is REASONS[reason]
    assert (raised.value.retry_after, raised.value.request_id) == (2.5, "request-7")
    if reason == "SERVICE_DISABLED":
        assert "gcloud services enable run.googleapis.com" in raised.value.hint


@pytest.mark.parametrize(
    ("row", "message"),
    [
        (MESSAGES[0], "Quota exceeded for 'Write requests' and limit 'Write requests per minute'"),
        (MESSAGES[1], "Cloud Run Admin API has not been used in project 7 before"),
    ],
)
def test_each_sentence_is_understood(row: tuple[str, str, type[HelixError]], message: str) -> None:
    assert classify(row[0], "", message) is row[2]


@pytest.mark.parametrize("name", EXCEPTIONS)
def test_each_exception_of_google_auth_has_a_class(name: str) -> None:
    cls = getattr(auth_errors, name, None) or getattr(google_errors, name)
    match name:
        case "RetryError":
            error = cls("no", cause=None)
        case "ReauthFailError":
            error = cls("no")
        case _:
            error = cls("no", "body with ya29.secret")
    found = translate(error, "log in")
    assert type(found) is EXCEPTIONS[name] and "ya29" not in str(found)


def test_a_lost_write_is_ambiguous_and_a_retryable_refresh_transient() -> None:
    lost = google_errors.DeadlineExceeded("late")
    assert type(translate(lost, "run.services.update")) is Ambiguous
    assert type(translate(lost, "run.services.get", reads=True)) is Transient
    refresh = auth_errors.RefreshError("busy", retryable=True)
    assert type(translate(refresh, "log in")) is Transient
    expected = {QuotaExceeded, Throttled, PlatformUnhealthy, AuthExpired}
    assert expected <= {*CODES.values(), *REASONS.values()}


def test_a_server_that_is_not_there_is_transient(cloud: FakeGcp) -> None:
    with pytest.raises(Transient):
        provider(instance(cloud, settings={"endpoint": "http://127.0.0.1:1"})).current()


@pytest.mark.parametrize(("share", "seed"), [(0.01, 1), (0.01, 2), (0.1, 1), (0.1, 2)])
def test_all_deployments_end_well_though_calls_fail(
    cloud: FakeGcp, share: float, seed: int
) -> None:
    cloud.seconds = 0.005
    cloud.faults = type(cloud.faults)(rate=share, seed=seed)
    drive = driver(cloud)
    good: Release | None = None
    for number in range(1, 16):
        given = release(cloud, number)
        if number % 3 == 0:
            breaks(cloud, given, reason="HEALTH_CHECK_CONTAINER_ERROR")
        result = drive.deploy(given)
        if number % 3 == 0:
            assert isinstance(result.error, HealthCheckFailed) and result.restored is not None
        else:
            assert result.error is None
            good = given
        assert good is not None and serves(cloud) == name_of(good)
        assert all(one.tag != CANDIDATE for one in cloud.run.services[SERVICE].traffic)
    drive.call(None, lambda one: one.destroy(data=False))
    assert not cloud.run.services and not cloud.secrets
