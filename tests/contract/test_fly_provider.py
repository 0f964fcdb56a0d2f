"""The `fly` kind against a stateful stand-in that is held to the published OpenAPI document."""

from __future__ import annotations

import itertools
import threading
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import httpx
import pytest
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
    NothingToRestore,
    PermissionDenied,
    PlatformUnhealthy,
    QuotaExceeded,
    Throttled,
    Transient,
)
from model.fly import fly_app, fly_token
from model.instance import HealthCheck, Instance, RegistryTarget, Target, Volume
from model.platform import Phase, Release, Revision
from providers import fly as fly_provider
from providers import fly_app as fly_app_module
from providers.base import Context
from providers.fly import FlyHandle, FlyProvider
from providers.fly_api import SENTENCES, STATUS, FlyApi, from_response
from providers.fly_machine import guest_of
from tests.contract.failing_suite import FailingSuite, FailingWorld
from tests.fakes.fly import SPEC_VARIABLE, TOKEN, FakeFly, Fault, find_spec
from tests.services.faults import faulty
from tests.services.registry import TestRegistry, plain_registry

APP = "helix-shop-edge"
VOLUME = Volume(name="helix_shop_edge_data", mount="/data", size_gb=20)
SECRETS = {"env:FLY_API_TOKEN": TOKEN, "env:DB_PASSWORD": "hunter2-canary"}
SPEC = find_spec()
if SPEC is None:
    warnings.warn(
        f"the OpenAPI document of Fly.io is not there (set {SPEC_VARIABLE} to its path): the "
        "stand-in is not held to it",
        stacklevel=1,
    )


def lead_to(address: str, patch: pytest.MonkeyPatch) -> None:
    """Let both of Fly's APIs be reached there."""
    patch.setenv("FLY_FLAPS_BASE_URL", address)
    patch.setenv("FLY_API_BASE_URL", address)


@pytest.fixture(params=["with the published document" if SPEC else "without a document"])
def fly(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeFly]:
    with FakeFly(spec=SPEC) as fake:
        lead_to(fake.address, monkeypatch)
        monkeypatch.setattr(fly_app_module, "READ_EVERY", 0.0)
        monkeypatch.setattr(fly_provider, "LOG_PAUSE", 0.01)
        yield fake
    assert fake.violations == []


def secret(reference: str) -> SecretStr:
    if reference not in SECRETS:
        raise ConfigurationError(f"{reference} leads nowhere")
    return SecretStr(SECRETS[reference])


def an_instance(**changes: object) -> Instance:
    settings = {"vm_size": "shared-cpu-4x", "auth_type": "Cli", "volume_initial_size": 20}
    settings |= changes.pop("settings", {})  # type: ignore[arg-type]
    values: dict[str, object] = {
        "project": "shop",
        "name": "edge",
        "target": Target(kind="fly", settings=settings),
        "registry": RegistryTarget(kind="fly", repository=f"registry.fly.io/{APP}"),
        "port": 6969,
        "env": {"HELIX_PORT": "6969"},
        "health_check": HealthCheck(path="/introspect"),
    }
    return Instance.model_validate({**values, **changes})


def stateful(**changes: object) -> Instance:
    return an_instance(volumes=(VOLUME,), **changes)


_numbers = itertools.count(1)


def a_release(instance: Instance, what: str = "a", number: int = 0) -> Release:
    number = number or next(_numbers)
    digest = "sha256:" + (what.encode().hex() * 64)[:64]
    image = Image(repository=f"registry.fly.io/{APP}", digest=digest)
    return Release(
        number=number,
        deployment=f"deploy-{number}-{number:08x}",
        instance=instance,
        artifact=Artifact(image=image),
    )


def part(release: Release) -> str:
    """What tells the release's image from others."""
    return release.artifact.identity


def open_provider(release: Release | None = None, instance: Instance | None = None) -> FlyProvider:
    chosen = instance or (release.instance if release else an_instance())
    return FlyProvider(chosen, Context(secret=secret))


@pytest.fixture
def driver() -> Driver:
    return Driver(open_provider, patience=0.4)


kinds = pytest.mark.parametrize("make", [an_instance, stateful], ids=["stateless", "volume"])


# --- what every provider must do -----------------------------------------------------------------


class FlyWorld(FailingWorld):
    """Machines without a volume: one beside the other."""

    patience = 1.0
    secrets = {"env:FLY_API_TOKEN": TOKEN}

    def __init__(self, fly: FakeFly, images: TestRegistry, patch: pytest.MonkeyPatch) -> None:
        self.fly, self.images, self.patch = fly, images, patch

    def instance(self, name: str, behaviour: str = "serve") -> Instance:
        repository = f"registry.fly.io/{APP}"
        settings: dict[str, JsonValue] = {"registry_host": self.images.host}
        return an_instance(
            env={"NAME": name, "BEHAVIOUR": behaviour},
            health_check=HealthCheck(successes=1, interval=0.01, deadline=5),
            registry=RegistryTarget(kind="fly", repository=repository, settings=settings),
        )

    def artifact(self, tag: str = "1") -> Artifact:
        digest = f"sha256:{tag * 64}"
        return Artifact(image=Image(repository=f"registry.fly.io/{APP}", digest=digest))

    def provider(self, instance: Instance) -> FlyProvider:
        return open_provider(instance=instance)

    def answer(self) -> str:
        found = self.fly.serving(APP) if APP in self.fly.apps else []
        return "".join(one["config"]["env"]["NAME"] for one in found)

    def running(self) -> list[str]:
        found = self.fly.machines(APP) if APP in self.fly.apps else []
        started = [one for one in found if one["state"] == "started"]
        return [one["config"]["metadata"]["helix_deployment"] for one in started]

    def remains(self) -> list[str]:
        """The app itself stays: it is the images' repository."""
        if APP not in self.fly.apps:
            return []
        app = self.fly.apps[APP]
        return [one["id"] for one in self.fly.machines(APP)] + app["ips"] + [*app["volumes"]]

    def means(self, handle: str) -> str:
        found = FlyHandle.model_validate_json(handle)
        return f"{found.machine}/{found.version}"

    @contextmanager
    def kill_after(self, writes: int) -> Iterator[None]:
        left, request = writes, FlyApi._request

        def counted(api: FlyApi, method: str, *given: Any, **named: Any) -> Any:
            nonlocal left
            answer = request(api, method, *given, **named)
            if method != "GET":
                left -= 1
                if left == 0:
                    raise Killed
            return answer

        with self.patch.context() as patch:
            patch.setattr(FlyApi, "_request", counted)
            yield

    @contextmanager
    def failing(self, rate: float, seed: int) -> Iterator[list[str]]:
        with faulty(self.fly.address, rate, seed) as line, self.patch.context() as patch:
            lead_to(line.url, patch)
            yield line.injected

    def remove(self, revision: Revision) -> None:
        machine = self.fly.apps[APP]["machines"][revision.detail["machine"]]
        machine["_destroyed"] = True


class TestFly(ProviderSuite, FailingSuite):
    @pytest.fixture(scope="class")
    @classmethod
    def images(cls, tmp_path_factory: pytest.TempPathFactory) -> Iterator[TestRegistry]:
        with plain_registry(tmp_path_factory.mktemp("fly")) as images:
            yield images

    @pytest.fixture
    def world(
        self, fly: FakeFly, images: TestRegistry, monkeypatch: pytest.MonkeyPatch
    ) -> FlyWorld:
        return FlyWorld(fly, images, monkeypatch)


# --- the life of a release -----------------------------------------------------------------------


@kinds
def test_a_first_deployment_makes_everything_it_needs(fly, driver, make) -> None:
    release = a_release(make())
    result = driver.deploy(release)
    assert result.error is None and result.previous is None
    [machine] = fly.serving(APP)
    assert result.revision.release == release.number
    assert result.revision.artifact == release.artifact.identity
    assert machine["config"]["image"] == release.artifact.image.reference
    assert machine["config"]["guest"] == {"cpu_kind": "shared", "cpus": 4, "memory_mb": 1024}
    assert machine["config"]["env"] == {"HELIX_PORT": "6969"}
    assert fly.apps[APP]["ips"] == ["66.241.0.1", "2a09:8280:1::1"]
    assert driver.call(release, lambda one: one.public_url()) == f"https://{APP}.fly.dev"


@kinds
def test_a_second_release_takes_over(fly, driver, make) -> None:
    first = driver.deploy(a_release(make(), "a")).revision
    second = driver.deploy(a_release(make(), "b"))
    assert second.previous == first
    [machine] = fly.serving(APP)
    assert machine["instance_id"] == second.revision.id
    assert driver.call(None, lambda one: one.current()) == second.revision


def test_a_volume_goes_to_one_machine_that_is_updated_in_place(fly, driver) -> None:
    first = driver.deploy(a_release(stateful(), "a")).revision
    second = driver.deploy(a_release(stateful(), "b")).revision
    assert first.detail["machine"] == second.detail["machine"]
    assert len(fly.machines(APP)) == 1
    assert fly.data(APP, VOLUME.name) == [first.id, second.id]
    assert len(fly.snapshots) == 1, "a snapshot before the release that found data"


def test_a_stateless_release_runs_beside_the_previous_one_without_traffic(fly, driver) -> None:
    driver.deploy(a_release(an_instance(), "a"))
    [blue] = fly.serving(APP)
    release = a_release(an_instance(), "b")
    handle = driver.call(release, lambda one: one.start(release, None))
    driver.wait(release, handle)
    assert [one["id"] for one in fly.serving(APP)] == [blue["id"]]
    assert len(fly.machines(APP)) == 2
    driver.call(release, lambda one: one.promote(handle))
    [green] = fly.serving(APP)
    assert green["id"] != blue["id"]
    states = {one["id"]: one["state"] for one in fly.machines(APP)}
    assert states == {blue["id"]: "stopped", green["id"]: "started"}


@kinds
def test_the_same_again_changes_nothing(fly, driver, make) -> None:
    first = driver.deploy(a_release(make(), "a")).revision
    before = fly.machines(APP)
    fly.calls.clear()
    second = driver.deploy(a_release(make(), "a"))
    assert second.revision == first
    assert fly.machines(APP) == before
    changes = [one for one in fly.changes() if not one.endswith(("/uncordon", "/helix_serving"))]
    assert changes == []


@kinds
def test_another_health_check_is_not_the_same(fly, driver, make) -> None:
    driver.deploy(a_release(make(), "a"))
    driver.deploy(a_release(make(health_check=HealthCheck(path="/other")), "a"))
    [machine] = fly.serving(APP)
    assert machine["config"]["checks"]["helix"]["path"] == "/other"


@kinds
def test_what_the_old_command_ignored_becomes_desired_state(fly, driver, make) -> None:
    driver.deploy(a_release(make(), "a"))
    bigger = make(settings={"vm_size": "performance-4x", "private": True})
    driver.deploy(a_release(bigger, "a"))
    [machine] = fly.serving(APP)
    assert machine["config"]["guest"] == {
        "cpu_kind": "performance", "cpus": 4, "memory_mb": 8192,
    }  # fmt: skip
    assert machine["config"]["services"] == [] and fly.apps[APP]["ips"] == []
    provider = open_provider(instance=bigger)
    assert provider.public_url() == f"http://{APP}.internal:6969"


def test_a_volume_grows_and_never_shrinks(fly, driver) -> None:
    driver.deploy(a_release(stateful(), "a"))
    for size, expected in ((40, 40), (10, 40)):
        changed = an_instance(volumes=(VOLUME.model_copy(update={"size_gb": size}),))
        driver.deploy(a_release(changed, "a"))
        [volume] = fly.apps[APP]["volumes"].values()
        assert volume["size_gb"] == expected


# --- the way back --------------------------------------------------------------------------------


@kinds
@pytest.mark.parametrize("how", ["exits", "sick"])
def test_a_failed_release_leaves_what_ran_before(fly, driver, make, how) -> None:
    first = driver.deploy(a_release(make(), "a")).revision
    bad = a_release(make(), "b")
    behaviour = fly.behaviours.setdefault(part(bad), fly_behaviour(how))
    result = driver.deploy(bad)
    assert isinstance(result.error, HealthCheckFailed)
    if how == "exits":
        assert "exit code 3" in result.error.message
        assert result.error.evidence.splitlines()[-1] == behaviour.says[-1]
    [machine] = fly.serving(APP)
    assert part_of(machine) == first.artifact
    assert len(fly.machines(APP)) == 1
    current = driver.call(bad, lambda one: one.current())
    assert (current.release, current.deployment) == (first.release, first.deployment)
    third = driver.deploy(a_release(make(), "c"))
    assert third.previous.release == first.release and third.error is None


@kinds
def test_a_failed_first_release_is_removed_but_a_volume_stays(fly, driver, make) -> None:
    bad = a_release(make(), "b")
    fly.behaviours[part(bad)] = fly_behaviour("exits")
    result = driver.deploy(bad)
    assert isinstance(result.error, HealthCheckFailed) and result.restored is None
    assert fly.machines(APP) == [] and fly.apps[APP]["ips"] == []
    assert driver.call(bad, lambda one: one.current()) is None
    volumes = list(fly.apps[APP]["volumes"].values())
    assert [one["state"] for one in volumes] == (["created"] if bad.instance.volumes else [])
    assert driver.deploy(a_release(make(), "c")).error is None
    assert len(fly.apps[APP]["volumes"]) == len(volumes), "the next release takes that volume"


@kinds
def test_restore_after_promote_brings_the_previous_release_back(fly, driver, make) -> None:
    first = driver.deploy(a_release(make(), "a")).revision
    second = a_release(make(), "b")
    driver.deploy(second)
    for _ in range(2):  # restoring twice is restoring once
        driver.restore(second, first)
        [machine] = fly.serving(APP)
        assert part_of(machine) == first.artifact


@kinds
def test_what_began_is_found_again_not_begun_twice(fly, driver, make) -> None:
    driver.deploy(a_release(make(), "a"))
    release = a_release(make(), "b")
    handles = [
        FlyHandle.model_validate_json(driver.call(release, lambda one: one.start(release, None)))
        for _ in range(3)
    ]
    assert len({(one.machine, one.version) for one in handles}) == 1
    assert len(fly.machines(APP)) == (1 if release.instance.volumes else 2)


def test_the_previous_release_is_named_until_the_new_one_is_promoted(fly, driver) -> None:
    first = driver.deploy(a_release(stateful(), "a")).revision
    second = a_release(stateful(), "b")
    handle = driver.call(second, lambda one: one.start(second, first))
    assert driver.call(second, lambda one: one.current()) == first
    driver.wait(second, handle)
    promoted = driver.call(second, lambda one: one.promote(handle))
    assert driver.call(second, lambda one: one.current()) == promoted


def test_an_interrupted_swap_still_knows_what_served_before_it(fly, driver) -> None:
    first = driver.deploy(a_release(stateful(), "a")).revision
    lost = a_release(stateful(), "b")
    driver.call(lost, lambda one: one.start(lost, first))  # and nobody ever went on with it
    bad = a_release(stateful(), "c")
    fly.behaviours[part(bad)] = fly_behaviour("exits")
    result = driver.deploy(bad)
    assert result.previous == first
    [machine] = fly.serving(APP)
    assert part_of(machine) == first.artifact


def test_a_previous_release_that_is_gone_is_said_to_be(fly, driver) -> None:
    first = driver.deploy(a_release(an_instance(), "a")).revision
    provider = open_provider()
    with pytest.raises(NothingToRestore, match="is gone"):
        lost = first.model_copy(update={"detail": {"machine": "gone", "machines": "gone"}})
        provider.restore("nobody", lost)


def test_a_version_that_fly_forgot_is_said_to_be(fly, driver) -> None:
    first = driver.deploy(a_release(stateful(), "a")).revision
    second = a_release(stateful(), "b")
    driver.deploy(second)
    [machine] = fly.apps[APP]["machines"].values()
    machine["_versions"] = machine["_versions"][1:]
    with pytest.raises(NothingToRestore, match="does not know the version"):
        open_provider(second).restore(second.deployment, first)


def test_an_older_release_never_replaces_a_newer_one(fly, driver) -> None:
    late = a_release(an_instance(), "a")
    driver.deploy(a_release(an_instance(), "b"))
    with pytest.raises(Conflict, match="is there already"):
        open_provider(late).start(late, None)


def test_from_stateless_to_a_volume_and_back(fly, driver) -> None:
    driver.deploy(a_release(an_instance(), "a"))
    with_data = driver.deploy(a_release(stateful(), "b"))
    assert with_data.error is None and len(fly.serving(APP)) == 1
    assert driver.deploy(a_release(an_instance(), "c")).error is None
    again = driver.deploy(a_release(stateful(), "d"))
    assert again.error is None and len(fly.serving(APP)) == 1
    assert len(fly.data(APP, VOLUME.name)) == 2


# --- an app that HelixDB's command made ----------------------------------------------------------

OLD = {
    "image": "registry.fly.io/helix-shop-edge:latest",
    "env": {"HELIX_PORT": "6969", "OPENAI_API_KEY": "sk-x"},
    "services": [{"internal_port": 6969, "protocol": "tcp"}],
}


def test_an_existing_app_is_adopted_with_its_volume(fly, driver) -> None:
    old = fly.adopt(APP, OLD, volume=VOLUME.name)
    release = a_release(stateful(), "a")
    provider = open_provider(release)
    provider.preflight()
    assert any("OPENAI_API_KEY" in note for note in provider.context.notes)
    result = driver.deploy(release)
    assert result.error is None
    [machine] = fly.serving(APP)
    assert machine["id"] == old["id"]
    assert fly.data(APP, VOLUME.name)[0] == "precious"


@pytest.mark.parametrize("volume", ["", VOLUME.name])
def test_an_adopted_app_comes_back_when_the_first_release_fails(fly, driver, volume) -> None:
    old = fly.adopt(APP, OLD, volume=volume)
    bad = a_release(stateful() if volume else an_instance(), "b")
    fly.behaviours[part(bad)] = fly_behaviour("sick")
    result = driver.deploy(bad)
    assert isinstance(result.error, HealthCheckFailed)
    [machine] = fly.serving(APP)
    assert (machine["id"], machine["config"]["image"]) == (old["id"], OLD["image"])


def test_two_adopted_machines_both_come_back(fly, driver) -> None:
    fly.adopt(APP, OLD)
    fly._new_machine(APP, {"config": {**OLD, "metadata": {"fly_process_group": "app"}}})
    first = a_release(an_instance(), "a")
    previous = driver.call(first, lambda one: one.current())
    driver.deploy(first)
    assert len(fly.serving(APP)) == 1
    driver.restore(first, previous)
    assert len(fly.serving(APP)) == 2


def test_machines_of_other_groups_are_left_alone(fly, driver) -> None:
    fly.adopt(APP, OLD)
    other = {**OLD, "metadata": {"fly_process_group": "worker"}}
    worker = fly._new_machine(APP, {"config": other})
    for what in "abc":
        driver.deploy(a_release(an_instance(), what))
    provider = open_provider()
    provider.prune([])
    provider.destroy(data=True)
    assert [one["id"] for one in fly.machines(APP)] == [worker["id"]]


# --- secrets -------------------------------------------------------------------------------------


def test_secrets_go_to_flys_own_store_and_nowhere_else(fly, driver) -> None:
    instance = an_instance(secrets={"DB_PASSWORD": "env:DB_PASSWORD"})
    result = driver.deploy(a_release(instance))
    assert fly.apps[APP]["secrets"] == {"DB_PASSWORD": "hunter2-canary"}
    [created] = [body for call, body in fly.bodies if call.endswith("/machines")]
    assert created["min_secrets_version"] == 1
    seen = [result.revision.model_dump_json(), str(fly.machines(APP))]
    assert not any("hunter2" in one or TOKEN in one for one in seen)


def test_a_token_is_found_where_flyctl_left_it() -> None:
    found = {"file:~/.fly/config.yml": "access_token: fm2_x,fm2_y\nother: 1\n"}

    def lookup(reference: str) -> SecretStr:
        if reference not in found:
            raise ConfigurationError("nowhere")
        return SecretStr(found[reference])

    assert fly_token("Cli", None, lookup).get_secret_value() == "fm2_x,fm2_y"
    with pytest.raises(ConfigurationError, match="no token"):
        fly_token("ApiKey", None, lookup)


def test_a_handle_is_small_and_holds_no_secret(fly) -> None:
    release = a_release(an_instance(secrets={"DB_PASSWORD": "env:DB_PASSWORD"}))
    handle = open_provider(release).start(release, None)
    assert len(handle) < 2048 and "hunter2" not in handle


# --- logs, commands, pruning, the end ------------------------------------------------------------


def test_logs_are_read_page_by_page(fly, driver) -> None:
    release = a_release(an_instance(), "a")
    says = tuple(f"line {number}" for number in range(7))
    fly.behaviours[part(release)] = fly_behaviour("", says=says)
    driver.deploy(release)
    assert [*open_provider().logs()] == [*says]
    assert [*open_provider().logs(tail=2)] == ["line 5", "line 6"]
    follow = open_provider().logs(tail=1, follow=True)
    assert next(follow) == "line 6"
    fly.behaviours[part(release)].says += ("later",)
    assert next(follow) == "later"


def test_a_command_can_be_the_health_check(fly, driver) -> None:
    check = HealthCheck(kind="command", command=("helix", "ping"))
    assert driver.deploy(a_release(an_instance(health_check=check), "a")).error is None
    bad = a_release(an_instance(health_check=check), "b")
    fly.behaviours[part(bad)] = fly_behaviour("sick")
    assert isinstance(driver.deploy(bad).error, HealthCheckFailed)


def test_prune_keeps_what_serves_and_what_it_is_told_to(fly, driver) -> None:
    revisions = [driver.deploy(a_release(an_instance(), what)).revision for what in "abcd"]
    for _ in range(2):
        open_provider().prune(revisions[2:3])
    left = {one["id"] for one in fly.machines(APP)}
    assert left == {revisions[2].detail["machine"], revisions[3].detail["machine"]}


@pytest.mark.parametrize("data", [False, True])
def test_destroy_takes_the_data_only_when_told_to(fly, driver, data) -> None:
    driver.deploy(a_release(stateful(), "a"))
    for _ in range(2):
        open_provider(instance=stateful()).destroy(data=data)
    if data:
        assert APP not in fly.apps
    else:
        assert fly.machines(APP) == [] and fly.apps[APP]["ips"] == []
        assert len(fly.data(APP, VOLUME.name)) == 1
        assert driver.deploy(a_release(stateful(), "b")).error is None
        assert len(fly.data(APP, VOLUME.name)) == 2


def test_destroy_without_a_volume_removes_the_app(fly, driver) -> None:
    driver.deploy(a_release(an_instance(), "a"))
    open_provider().destroy(data=False)
    assert fly.apps == {}


# --- what is refused before anything is changed --------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "error", "text"),
    [
        ({"settings": {"vm_size": "huge"}}, ConfigurationError, "no machine size"),
        ({"settings": {"region": "fr"}}, ConfigurationError, "did you mean «fra»"),
        ({"registry": None}, ConfigurationError, "in a registry"),
        ({"volumes": (Volume(name="a-b", mount="/data"),)}, ConfigurationError, "a-b"),
        ({"volumes": (Volume(path="/srv", mount="/data"),)}, ConfigurationError, "/srv"),
        ({"volumes": (VOLUME, VOLUME)}, ConfigurationError, "one volume"),
        ({"name": "x" * 40}, ConfigurationError, "characters"),
    ],
)
def test_preflight_refuses(fly, changes, error, text) -> None:
    provider = open_provider(instance=an_instance(**changes))
    with pytest.raises(error) as caught:
        provider.preflight()
    assert text in str(caught.value) and caught.value.hint
    assert fly.changes() == []


def test_preflight_refuses_to_move_a_volume(fly) -> None:
    fly.adopt(APP, OLD, volume=VOLUME.name, region="ams")
    with pytest.raises(ConfigurationError, match="cannot move to fra"):
        open_provider(instance=stateful(settings={"region": "fra"})).preflight()


def test_preflight_refuses_a_volume_whose_host_is_gone(fly) -> None:
    fly.adopt(APP, OLD, volume=VOLUME.name)
    next(iter(fly.apps[APP]["volumes"].values()))["host_status"] = "unreachable"
    with pytest.raises(PlatformUnhealthy, match="host of the volume"):
        open_provider(instance=stateful()).preflight()


def test_preflight_refuses_when_the_data_may_be_in_two_places(fly) -> None:
    fly.adopt(APP, OLD)
    for _ in range(2):
        fly._new_volume(APP, {"name": VOLUME.name, "region": "ams", "size_gb": 1})
    with pytest.raises(Conflict, match="not clear which volume"):
        open_provider(instance=stateful()).preflight()


def test_preflight_refuses_several_machines_for_one_database(fly) -> None:
    fly.adopt(APP, OLD, volume=VOLUME.name)
    fly._new_machine(APP, {"config": OLD})
    with pytest.raises(ConfigurationError, match="2 machines"):
        open_provider(instance=stateful()).preflight()


def test_an_app_name_that_someone_else_has_is_a_conflict(fly) -> None:
    fly.taken.add(APP)
    release = a_release(an_instance())
    with pytest.raises(Conflict, match="taken") as caught:
        open_provider(release).start(release, None)
    assert "rename the instance" in caught.value.hint
    assert caught.value.request_id == "01REQUEST-ams"


def test_no_capacity_is_a_quota(fly, driver) -> None:
    fly.capacity = False
    result = driver.deploy(a_release(an_instance()))
    assert isinstance(result.error, QuotaExceeded) and "region" in result.error.hint


def test_who_we_are(fly) -> None:
    assert open_provider().identity().who == "ada@example.com"
    fly.token = "another"
    with pytest.raises(PermissionDenied, match="401"):
        open_provider().identity()


# --- names and sizes -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("project", "instance", "app"),
    [
        ("shop", "edge", "helix-shop-edge"),
        ("book_shop", "edge", "helix-book-shop-edge"),
        ("Book Shop", "My_Edge", "helix-book-shop-my-edge"),
    ],
)
def test_an_app_is_called_as_helixdbs_command_calls_it(project, instance, app) -> None:
    assert fly_app(project, instance) == app


def test_every_size_is_a_guest() -> None:
    assert guest_of("performance-16x") == {
        "cpu_kind": "performance", "cpus": 16, "memory_mb": 32768,
    }  # fmt: skip
    assert guest_of("a100-40gb")["gpu_kind"] == "a100-pcie-40gb"


# --- errors --------------------------------------------------------------------------------------


def answer(status: int, body: dict[str, str], method: str = "GET", **headers: str) -> HelixError:
    request = httpx.Request(method, "http://127.0.0.1/v1/apps/x")
    response = httpx.Response(status, json=body, request=request, headers=headers)
    return from_response(response, "do it")


@pytest.mark.parametrize("row", SENTENCES, ids=lambda row: row[1])
def test_each_sentence_has_its_class(row) -> None:
    status, words, meaning = row
    error = answer(status or 422, {"error": words.upper(), "status": "unknown"})
    assert type(error) is meaning.cls and error.hint == meaning.hint


@pytest.mark.parametrize("status", STATUS)
def test_each_status_has_its_class(status) -> None:
    error = answer(status, {"error": "because"}, **{"fly-request-id": "01R"})
    assert type(error) is STATUS[status].cls
    assert "because" in error.message and error.request_id == "01R"


@pytest.mark.parametrize(
    ("status", "method", "cls"),
    [
        (408, "POST", Ambiguous),
        (504, "POST", Ambiguous),
        (500, "GET", Transient),
        (503, "GET", Transient),
        (418, "GET", ConfigurationError),
    ],
)
def test_a_write_that_may_have_been_done_is_ambiguous(status, method, cls) -> None:
    assert type(answer(status, {}, method)) is cls


def test_throttling_says_how_long() -> None:
    error = answer(429, {"error": "slow down"}, **{"retry-after": "7"})
    assert isinstance(error, Throttled) and error.retry_after == 7


def test_an_expired_token_is_told_from_a_wrong_one() -> None:
    assert type(answer(401, {"error": "token has expired"})) is AuthExpired
    assert type(answer(401, {"error": "who are you"})) is PermissionDenied


def test_a_dead_address_is_transient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FLY_FLAPS_BASE_URL", "http://127.0.0.1:9")
    with pytest.raises(Transient):
        open_provider().identity()


# --- traps ---------------------------------------------------------------------------------------


@kinds
@pytest.mark.parametrize("status", [408, 0])
def test_a_change_whose_answer_was_lost_is_found(fly, driver, make, status) -> None:
    driver.deploy(a_release(make(), "a"))
    for path in ("/machines$", r"/machines/\w+$", "/uncordon$", "/secrets$", "/lease$"):
        fly.faults.append(Fault(status, match=f"POST .*{path}", done=True))
    result = driver.deploy(a_release(make(), "b"))
    if status == 0:
        fly.faults.clear()
    assert result.error is None
    assert len(fly.machines(APP)) == (1 if make is stateful else 2)
    assert len(fly.serving(APP)) == 1


def test_a_lost_creation_is_found_through_a_list_that_lags(fly, driver) -> None:
    driver.deploy(a_release(an_instance(), "a"))
    fly.lag = 0.15
    fly._record(APP)
    time.sleep(0.2)
    fly.faults.append(Fault(408, match="POST .*/machines$", done=True))
    result = driver.deploy(a_release(an_instance(), "b"))
    assert result.error is None
    fly.lag = 0
    assert len(fly.machines(APP)) == 2 and len(fly.serving(APP)) == 1


def test_a_late_answer_shows_the_version_before(fly, driver) -> None:
    first = driver.deploy(a_release(stateful(), "a")).revision
    fly.lag = 0.2
    fly._record(APP)
    time.sleep(0.25)
    release = a_release(stateful(), "b")
    handle = open_provider(release).start(release, first)
    assert open_provider(release).poll(handle).phase is Phase.STARTING
    assert "being updated" in open_provider(release).probe(handle)
    driver.wait(release, handle)


def test_another_update_of_the_machine_is_not_ours(fly, driver) -> None:
    driver.deploy(a_release(stateful(), "a"))
    release = a_release(stateful(), "b")
    handle = open_provider(release).start(release, None)
    [machine] = fly.apps[APP]["machines"].values()
    fly._launch(APP, machine, {**machine["config"]}, "update")
    rollout = open_provider(release).poll(handle)
    assert rollout.phase is Phase.FAILED and "someone else" in rollout.detail


def test_a_started_machine_is_not_a_healthy_one(fly, driver) -> None:
    bad = a_release(an_instance(), "b")
    fly.behaviours[part(bad)] = fly_behaviour("sick")
    handle = open_provider(bad).start(bad, None)
    driver.wait(bad, handle)  # it runs…
    assert "503 no" in open_provider(bad).probe(handle)  # …but it is not healthy


def test_a_machine_whose_host_is_gone_has_failed(fly, driver) -> None:
    driver.deploy(a_release(an_instance(), "a"))
    release = a_release(an_instance(), "b")
    handle = open_provider(release).start(release, None)
    driver.wait(release, handle)
    machine = FlyHandle.model_validate_json(handle).machine
    fly.apps[APP]["machines"][machine]["host_status"] = "unreachable"
    assert open_provider(release).poll(handle).phase is Phase.FAILED


def test_a_lease_that_someone_else_holds_is_waited_for(fly, driver) -> None:
    driver.deploy(a_release(stateful(), "a"))
    [machine] = fly.apps[APP]["machines"].values()
    machine["_lease"] = ("theirs", time.time() + 0.2)
    release = a_release(stateful(), "b")
    with pytest.raises(Busy) as caught:
        open_provider(release).start(release, None)
    assert caught.value.retry_after
    assert driver.deploy(release).error is None


def test_a_machine_that_changed_meanwhile_is_read_again(fly, driver) -> None:
    driver.deploy(a_release(stateful(), "a"))
    fly.faults.append(Fault(412, match=r"POST .*/machines/\w+$"))
    assert driver.deploy(a_release(stateful(), "b")).error is None


def test_a_lease_in_the_shape_that_flyctl_expects_is_understood(fly, driver) -> None:
    driver.deploy(a_release(stateful(), "a"))
    body = {"status": "success", "data": {"nonce": "nonce-x"}}
    [machine] = fly.apps[APP]["machines"].values()
    machine["_lease"] = ("nonce-x", 0)
    fly.faults.append(Fault(200, match="POST .*/lease$", body=body))
    assert driver.deploy(a_release(stateful(), "b")).error is None


def test_two_callers_at_once_make_one_machine(fly, driver) -> None:
    driver.deploy(a_release(an_instance(), "a"))
    release = a_release(an_instance(), "b")
    handles: list[str] = []

    def start() -> None:
        handles.append(driver.call(release, lambda one: one.start(release, None)))

    threads = [threading.Thread(target=start) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len({FlyHandle.model_validate_json(one).machine for one in handles}) == 1
    assert len(fly.machines(APP)) == 2


@kinds
@pytest.mark.parametrize("rate", [0.01, 0.1])
def test_all_deployments_end_well_although_calls_fail(fly, driver, make, rate) -> None:
    fly.fault_rate = rate
    for number, what in enumerate("abcdefghij"):
        release = a_release(make(), what)
        if number % 3 == 2:
            fly.behaviours[part(release)] = fly_behaviour("exits")
        result = driver.deploy(release)
        assert (result.error is None) == (number % 3 != 2)
        assert len(fly.serving(APP)) == 1
        if result.revision:
            expected: Revision = result.revision
        assert part_of(fly.serving(APP)[0]) == expected.artifact


# --- helpers -------------------------------------------------------------------------------------


def fly_behaviour(how: str, says: tuple[str, ...] = ("reading", "cannot read")):
    from tests.fakes.fly import Behaviour

    return Behaviour(exits=3 if how == "exits" else None, healthy=how != "sick", says=says)


def part_of(machine) -> str:
    return machine["config"]["image"].split("@")[1]
