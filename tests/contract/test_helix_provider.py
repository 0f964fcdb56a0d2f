"""The `helix` and `enterprise` kinds against a stand-in made from HelixDB's open-source tools."""

from __future__ import annotations

import dataclasses
import json
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from pydantic import SecretStr

from builders.bundle import prepare_bundle
from builders.helix import SETTING
from helix_deploy.testing import Killed, ProviderSuite
from model import errors
from model.artifact import Artifact, Bundle
from model.errors import (
    Ambiguous,
    BuildFailed,
    ConfigurationError,
    Conflict,
    HealthCheckFailed,
    NotFound,
    NothingToRestore,
    PermissionDenied,
    Transient,
)
from model.helix_errors import EVENTS, SENTENCES, STATUS, from_status
from model.instance import BuildSettings, HealthCheck, Instance, Target
from model.platform import Phase, Release, Revision
from project.bundles import Bundles
from project.source import snapshot
from project.store import Store
from providers.base import Context
from providers.catalog import PROVIDERS
from providers.helix_api import HelixApi, base_url, event_of
from providers.helix_bundle import Content
from providers.helix_cloud import HelixCloudProvider
from tests.contract.failing_suite import FailingSuite, FailingWorld
from tests.fakes.helix_cloud import CLUSTER_KEY, KEY, Fault, HelixCloud
from tests.services.faults import faulty

KINDS = ("helix", "enterprise")
NO_CHECK = HealthCheck(kind="none")
CHECK = HealthCheck(successes=1, interval=0.01, timeout=0.1, deadline=1)


class ClusterWorld(FailingWorld):
    """One cluster, a store, and a project that is deployed to it."""

    patience = 0.4

    def __init__(self, cloud: HelixCloud, folder: Path, kind: str) -> None:
        self.cloud, self.folder, self.kind = cloud, folder, kind
        self.cluster_id = "c1" if kind == "helix" else "e1"
        self.cluster = cloud.clusters[self.cluster_id]
        self.gateway = f"{cloud.address}/gateway/{self.cluster_id}"
        self.endpoint = cloud.address
        self.store = Store(str(folder / "worker" / "store"))
        self.bundles = folder / "worker" / "store" / "bundles"
        self.said: list[str] = []
        self.secrets = {"env:KEY": KEY, "env:OPENAI": "hunter2-canary"}

    def instance(self, name: str = "", behaviour: str = "serve", **more: Any) -> Instance:
        settings = {"cluster_id": self.cluster_id, "endpoint": self.endpoint}
        settings |= {"token": "env:KEY", **more.pop("settings", {})}
        if name:
            settings |= {"gateway_url": self.gateway, "name": name, "behaviour": behaviour}
        check = CHECK if name else NO_CHECK
        values: dict[str, Any] = {
            "build": BuildSettings(kind="bundle", context="db"),
            "health_check": check,
            **more,
        }
        target = Target(kind=self.kind, settings=settings)
        return Instance(project="shop", name="prod", target=target, **values)

    def artifact(self, tag: str = "1") -> Artifact:
        """The bundle of a project whose queries say this."""
        folder = self.folder / uuid.uuid4().hex
        (folder / "db" / "src").mkdir(parents=True)
        if self.kind == "helix":
            (folder / "db" / "schema.hx").write_text("N::Book { title: String }\n")
            (folder / "db" / "queries.hx").write_text(f"QUERY q() => RETURN {tag}\n")
        else:
            (folder / "db" / "Cargo.toml").write_text("[package]\nname = 'queries'\n")
            (folder / "db" / "src" / "main.rs").write_text(f"// {tag}\n")
            (folder / "db" / "queries.json").write_text(json.dumps({"q": tag}))
        source = snapshot(prepare_bundle(self.instance(), folder), self.store, dockerfile="")
        return Artifact(bundle=Bundle(digest=source.digest, url=source.url, size=source.size))

    def of(self, number: int, text: str = "", **more: Any) -> Release:
        """A release whose health is Helix Cloud's own word."""
        return Release(
            number=number,
            deployment=str(uuid.uuid4()),
            instance=self.instance(**more),
            artifact=self.artifact(text or f"r{number}"),
        )

    def provider(self, instance: Instance | None = None) -> HelixCloudProvider:
        context = Context(
            secret=lambda reference: SecretStr(self.secrets[reference]),
            bundles=Bundles(self.store),
            report=self.said.append,
        )
        found = PROVIDERS.load(self.kind)(instance or self.instance(), context)
        assert isinstance(found, HelixCloudProvider)
        return found

    def live(self, number: int, text: str = "") -> Revision:
        """Deploy queries that work."""
        result = self.driver.deploy(self.of(number, text))
        assert result.error is None, result.error
        assert result.revision is not None
        return result.revision

    def serves(self) -> str:
        return " ".join(self.cluster.sources.values())

    def answer(self) -> str:
        found = httpx.get(self.gateway)
        return str(found.json()["name"]) if found.is_success else ""

    def running(self) -> list[str]:
        live = Content(files=self.cluster.sources, helix_toml=self.cluster.helix_toml or "")
        return [live.mark.deployment] if live.mark else []

    def remains(self) -> list[str]:
        return [self.cluster_id] if self.cluster.deployments else []

    def remove(self, revision: Revision) -> None:
        """What Helix Cloud had before is kept in our store alone."""
        (self.bundles / f"{revision.deployment}.json").unlink()

    @contextmanager
    def failing(self, rate: float, seed: int) -> Iterator[list[str]]:
        with faulty(self.cloud.address, rate, seed) as line:
            self.endpoint = line.url
            yield line.injected
        self.endpoint = self.cloud.address

    @contextmanager
    def kill_after(self, writes: int) -> Iterator[None]:
        left = writes

        def dying(call: Callable[..., Any]) -> Callable[..., Any]:
            def called(*given: Any) -> None:
                nonlocal left
                call(*given)
                left -= 1
                if left == 0:
                    raise Killed

            return called

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(HelixApi, "deploy", dying(HelixApi.deploy))
            patch.setattr(Bundles, "keep", dying(Bundles.keep))
            yield


@pytest.fixture
def cloud(monkeypatch: pytest.MonkeyPatch) -> Iterator[HelixCloud]:
    monkeypatch.delenv(SETTING, raising=False)
    monkeypatch.setattr("builders.bundle.find_helix", lambda: None)
    monkeypatch.setattr("builders.bundle.shutil.which", lambda name: None)
    with HelixCloud() as found:
        yield found


@pytest.fixture(params=KINDS)
def world(request: pytest.FixtureRequest, cloud: HelixCloud, tmp_path: Path) -> ClusterWorld:
    return ClusterWorld(cloud, tmp_path, request.param)


@pytest.fixture
def standard(cloud: HelixCloud, tmp_path: Path) -> ClusterWorld:
    return ClusterWorld(cloud, tmp_path, "helix")


@pytest.fixture
def enterprise(cloud: HelixCloud, tmp_path: Path) -> ClusterWorld:
    return ClusterWorld(cloud, tmp_path, "enterprise")


class TestCluster(ProviderSuite, FailingSuite, of=HelixCloudProvider):
    """A cluster of either kind, whose gateway is asked whether a release is healthy."""


# --- the life of a release ------------------------------------------------------------------------


def test_other_settings_are_another_release(standard: ClusterWorld) -> None:
    standard.live(1, "same")
    changed = standard.of(2, "same", env={"LEVEL": "debug"})
    result = standard.driver.deploy(changed)
    assert result.revision is not None and result.revision.release == 2
    assert standard.cluster.env == {"LEVEL": "debug"}


def test_queries_that_do_not_compile_change_nothing(world: ClusterWorld) -> None:
    first = world.live(1)
    result = world.driver.deploy(world.of(2, "WRONG"))
    assert isinstance(result.error, BuildFailed) and "WRONG" in result.error.message
    assert result.restored == first and "r1" in world.serves()
    assert world.cluster.deployments == 1


def test_a_first_release_that_is_refused_leaves_nothing(world: ClusterWorld) -> None:
    result = world.driver.deploy(world.of(1, "WRONG"))
    assert isinstance(result.error, BuildFailed)
    assert world.provider().current() is None and world.cluster.deployments == 0


def test_a_promoted_release_is_undone_by_deploying_the_one_before(world: ClusterWorld) -> None:
    first = world.live(1)
    second = world.live(2)
    release = world.of(2).model_copy(update={"deployment": second.deployment})
    assert world.driver.restore(release, first) == first
    assert "r1" in world.serves() and world.provider().current() == first
    if world.kind == "enterprise":
        assert "r1" in world.cluster.queries


def test_an_older_release_is_deployed_again_from_its_bundle(world: ClusterWorld) -> None:
    world.live(1)
    world.live(2)
    again = world.driver.deploy(world.of(3, "r1"))
    assert again.error is None and "r1" in world.serves()


def test_what_another_command_deployed_comes_back(standard: ClusterWorld) -> None:
    standard.cluster.sources = {"schema.hx": "N::Old {}", "old.hx": "QUERY old()"}
    standard.cluster.deployments = 1
    before = standard.provider().current()
    assert before is not None and (before.release, before.deployment) == (0, "")
    release = standard.of(1)
    handle = standard.provider(release.instance).start(release, before)
    assert "r1" in standard.serves() and handle
    assert standard.driver.restore(release, before) == before
    assert standard.cluster.sources == {"schema.hx": "N::Old {}", "old.hx": "QUERY old()"}


def test_compiled_queries_of_another_command_cannot_come_back(enterprise: ClusterWorld) -> None:
    enterprise.cluster.sources, enterprise.cluster.deployments = {"src/main.rs": "old"}, 1
    before = enterprise.provider().current()
    release = enterprise.of(1)
    enterprise.provider(release.instance).start(release, before)
    with pytest.raises(NothingToRestore, match="somebody else's command"):
        enterprise.provider().restore(release.deployment, before)


def test_an_old_deployment_cannot_restore_over_a_newer_one(world: ClusterWorld) -> None:
    late = world.of(2)
    third = world.live(3)
    with pytest.raises(Conflict, match="taken over"):
        world.provider().restore(late.deployment, third.model_copy(update={"release": 1, "id": ""}))
    assert world.provider().current() == third


def test_somebody_elses_deployment_is_not_ours(world: ClusterWorld) -> None:
    release = world.of(1)
    handle = world.provider(release.instance).start(release, None)
    world.cluster.helix_toml, world.cluster.sources = "", {"x.hx": "theirs"}
    assert world.provider().poll(handle).phase is Phase.FAILED
    with pytest.raises(HealthCheckFailed, match="something else"):
        world.provider().promote(handle)


def test_an_enterprise_cluster_is_waited_for(enterprise: ClusterWorld) -> None:
    enterprise.cluster.ready = False
    release = enterprise.of(1)
    handle = enterprise.provider(release.instance).start(release, None)
    rollout = enterprise.provider().poll(handle)
    assert rollout.phase is Phase.STARTING and "db-0 is not healthy" in rollout.detail
    assert "db-0" in enterprise.provider().probe(handle)
    enterprise.cluster.ready = True
    assert enterprise.provider().poll(handle).phase is Phase.RUNNING


def test_a_gateway_can_be_the_health_check(standard: ClusterWorld) -> None:
    address = standard.gateway
    check = HealthCheck(path="/ready", body="true", interval=0.01)
    release = standard.of(1, settings={"gateway_url": address}, health_check=check)
    assert standard.driver.deploy(release).error is None
    assert standard.provider(release.instance).public_url() == address


# --- events, secrets ------------------------------------------------------------------------------


def test_events_are_told_and_the_clusters_key_is_not(standard: ClusterWorld) -> None:
    release = standard.of(1, secrets={"OPENAI_API_KEY": "env:OPENAI"})
    handle = standard.provider(release.instance).start(release, None)
    assert standard.said == [
        "Helix Cloud checks the queries",
        "Helix Cloud builds (40 %)",
        "linking",
        "Helix Cloud deploys",
    ]
    assert standard.cluster.env == {"OPENAI_API_KEY": "hunter2-canary"}
    kept = [path.read_text() for path in standard.bundles.iterdir()]
    revision = standard.provider(release.instance).promote(handle).model_dump_json()
    for text in (handle, revision, *kept, *standard.said, str(standard.cluster.helix_toml)):
        assert not any(one in text for one in (CLUSTER_KEY, KEY, "hunter2-canary"))


@pytest.mark.parametrize("cut", range(5))
def test_a_stream_that_ends_early_is_not_a_success(standard: ClusterWorld, cut: int) -> None:
    standard.live(1)
    release = standard.of(2)
    standard.cloud.faults.append(Fault(match="POST", cut=cut))
    with pytest.raises(Ambiguous, match="ended before it told"):
        standard.provider(release.instance).start(release, None)
    result = standard.driver.deploy(release)
    assert result.error is None and "r2" in standard.serves()


def test_a_cancel_does_not_let_go_of_a_deployment_that_goes_on(standard: ClusterWorld) -> None:
    class Cancelled(Exception):
        pass

    def report(text: str) -> None:
        raise Cancelled(text)

    release = standard.of(1)
    provider = standard.provider(release.instance)
    provider.context = dataclasses.replace(provider.context, report=report)
    handle = provider.start(release, None)
    assert provider.promote(handle).deployment == release.deployment


def test_words_that_are_no_event_are_read_over() -> None:
    assert event_of('"deploying"') == ("deploying", {})
    assert event_of('{"error": "broken"}') == ("error", {"message": "broken"})
    assert event_of("not json") == event_of("[1]") == event_of('{"a": 1, "b": 2}') == ("", {})


# --- faults ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("status", [0, 502])
def test_a_deployment_whose_answer_was_lost_is_found(world: ClusterWorld, status: int) -> None:
    world.live(1)
    world.cloud.faults.append(Fault(status, match="POST", done=True))
    result = world.driver.deploy(world.of(2))
    assert result.error is None and "r2" in world.serves()
    # An enterprise cluster says itself that it is ready; the other is told once more, to be sure.
    assert world.cluster.deployments == (2 if world.kind == "enterprise" else 3)


@pytest.mark.parametrize("status", [0, 429, 503])
def test_a_hiccup_is_tried_again(world: ClusterWorld, status: int) -> None:
    world.cloud.faults += [Fault(status, match=one, times=2) for one in ("sync", "POST")]
    assert world.driver.deploy(world.of(1)).error is None


def test_a_slow_answer_is_waited_for(world: ClusterWorld) -> None:
    world.cloud.faults.append(Fault(200, match="POST", delay=0.3, cut=99))
    assert world.driver.deploy(world.of(1)).error is None


def test_a_key_that_is_revoked_meanwhile_is_told(world: ClusterWorld) -> None:
    world.live(1)
    world.cloud.valid_for = 2
    with pytest.raises(PermissionDenied) as caught:
        world.driver.call(world.of(2), lambda one: [one.current() for _ in range(5)])
    assert "auth login" in caught.value.hint and caught.value.request_id == "req-7"


@pytest.mark.parametrize("status", [*STATUS, 500, 503])
def test_each_status_has_its_class(status: int) -> None:
    cls, _hint = from_status(status, "because")
    assert cls in errors.error_classes()
    assert cls is (Transient if status >= 500 else STATUS[status][0])


def test_sentences_and_events_have_their_class() -> None:
    for status, said, cls, _hint in SENTENCES:
        assert from_status(status, f"key {said.upper()} yesterday")[0] is cls
    assert all(cls in errors.error_classes() for cls, _hint in EVENTS.values())


def test_a_dead_address_is_transient(world: ClusterWorld) -> None:
    release = world.of(1, settings={"endpoint": "http://127.0.0.1:9"})
    with pytest.raises(Transient, match="does not answer"):
        world.provider(release.instance).current()


# --- who we are, what is refused ------------------------------------------------------------------


def test_the_key_is_found_where_helixdbs_command_left_it(
    standard: ClusterWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("HELIX_HOME", raising=False)
    release = standard.of(1, settings={"token": None})
    text = f"# helix\nhelix_user_id=ada\nhelix_user_key={KEY}\n"
    standard.secrets["file:~/.helix/credentials"] = text
    assert standard.provider(release.instance).identity().who == "ada"
    monkeypatch.setenv("HELIX_HOME", "/srv/helix")
    standard.secrets["file:/srv/helix/credentials"] = "nothing of use"
    with pytest.raises(ConfigurationError, match="no key"):
        standard.provider(release.instance).identity()


def test_who_a_key_without_a_name_is(world: ClusterWorld) -> None:
    assert world.provider().identity().who == "a member of acme"
    world.secrets["env:KEY"] = "wrong"
    with pytest.raises(PermissionDenied):
        world.provider().identity()


@pytest.mark.parametrize(
    ("endpoint", "authority", "found"),
    [
        ("", "", "https://cloud.helix-db.com"),
        ("", "cloud.example.com:8443", "https://cloud.example.com:8443"),
        ("", "localhost:3000", "http://localhost:3000"),
        ("http://127.0.0.1:1/", "ignored", "http://127.0.0.1:1"),
    ],
)
def test_where_helix_cloud_is(endpoint: str, authority: str, found: str) -> None:
    assert base_url(endpoint, authority) == found


def test_a_key_is_not_sent_in_the_clear() -> None:
    with pytest.raises(ConfigurationError, match="may be sent"):
        base_url("http://cloud.example.com", "")


def test_an_unknown_cluster_is_refused(enterprise: ClusterWorld) -> None:
    release = enterprise.of(1, settings={"cluster_id": "e9"})
    with pytest.raises(NotFound, match="no such cluster"):
        enterprise.provider(release.instance).preflight()


def test_an_enterprise_cluster_takes_no_environment(enterprise: ClusterWorld) -> None:
    release = enterprise.of(1, env={"LEVEL": "debug"})
    with pytest.raises(ConfigurationError, match="LEVEL"):
        enterprise.provider(release.instance).preflight()


def test_a_cluster_can_be_named_as_a_database(enterprise: ClusterWorld) -> None:
    release = enterprise.of(1, settings={"cluster_id": None, "database": "cluster:e1"})
    assert enterprise.driver.deploy(release).error is None


def test_helix_cloud_runs_no_commands(world: ClusterWorld) -> None:
    with pytest.raises(ConfigurationError, match="no commands"):
        world.provider().run_check("", ["true"], 1)


# --- bundles --------------------------------------------------------------------------------------


def test_equal_queries_are_equal_bundles(world: ClusterWorld) -> None:
    assert world.artifact("x").identity == world.artifact("x").identity
    assert world.artifact("x").identity != world.artifact("y").identity


def test_a_project_without_queries_is_refused(standard: ClusterWorld, tmp_path: Path) -> None:
    (tmp_path / "empty" / "db").mkdir(parents=True)
    with pytest.raises(ConfigurationError, match=r"no \.hx files"):
        prepare_bundle(standard.instance(), tmp_path / "empty")


def test_what_is_too_large_is_refused(standard: ClusterWorld, tmp_path: Path) -> None:
    folder = tmp_path / "large" / "db"
    folder.mkdir(parents=True)
    (folder / "q.hx").write_bytes(b"x" * (21 << 20))
    with pytest.raises(ConfigurationError, match="20 MiB"):
        prepare_bundle(standard.instance(), tmp_path / "large")


def test_a_compiler_finds_a_mistake_before_anything_is_sent(
    standard: ClusterWorld, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    command = tmp_path / "helix"
    command.write_text(
        "#!/bin/sh\necho 'error: unknown type Bok'\necho '  --> queries.hx:3:7'\nexit 1"
    )
    command.chmod(0o755)
    monkeypatch.setattr("builders.bundle.find_helix", lambda: str(command))
    with pytest.raises(BuildFailed, match="queries.hx:3:7"):
        standard.artifact("Bok")
    assert standard.cloud.calls == []


def test_an_enterprise_project_needs_what_cargo_makes(
    enterprise: ClusterWorld, tmp_path: Path
) -> None:
    folder = tmp_path / "rust" / "db"
    folder.mkdir(parents=True)
    with pytest.raises(ConfigurationError, match=r"no Cargo\.toml"):
        prepare_bundle(enterprise.instance(), tmp_path / "rust")
    (folder / "Cargo.toml").touch()
    with pytest.raises(ConfigurationError, match="cargo, which makes it, is not installed"):
        prepare_bundle(enterprise.instance(), tmp_path / "rust")
