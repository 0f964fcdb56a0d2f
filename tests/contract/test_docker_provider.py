"""The `docker` and `local` kinds on a real engine."""

from __future__ import annotations

import dataclasses
import itertools
import json
import socket
import tempfile
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path
from typing import Any

import docker
import httpx
import pytest
from docker.errors import ImageNotFound
from pydantic import SecretStr

from helix_deploy.testing import Killed, ProviderSuite, Result
from model import names
from model.artifact import Artifact, Image
from model.errors import (
    ConfigurationError,
    Conflict,
    HealthCheckFailed,
    NotFound,
    PermissionDenied,
    PlatformUnhealthy,
)
from model.instance import HealthCheck, Instance, Target, Volume
from model.platform import Release, Revision
from providers import traffic as routing
from providers.base import CloudProvider, Context, PullCredentials
from providers.docker import DockerProvider, LocalProvider
from tests.contract.failing_suite import FailingSuite, FailingWorld
from tests.contract.kill import killed_after
from tests.services import engine as engines
from tests.services.bridges import tcp_engine, unix_socket
from tests.services.faults import faulty
from tests.services.registry import secured_registry
from tests.services.traffic import Traffic, traffic

pytestmark = pytest.mark.engine


@pytest.fixture(scope="module")
def engine() -> Iterator[docker.DockerClient]:
    found = engines.client()
    engines.ensure_edge_image()
    yield found
    found.close()


class DockerWorld(FailingWorld):
    """One instance on this machine's engine."""

    def __init__(self, engine: docker.DockerClient, **options: Any) -> None:
        self.engine = engine
        self.project = engines.unique()
        self.port = engines.free_port()
        self.kind = "docker"
        self.settings: dict[str, Any] = {}
        self.options = options
        self.secrets: dict[str, str] = {}
        self.context = Context(secret=lambda name: SecretStr(self.secrets[name]))

    def instance(self, name: str, behaviour: str = "serve") -> Instance:
        values: dict[str, Any] = {
            "publish": self.port,
            "stop_grace": 2,
            "health_check": HealthCheck(path="/cgi-bin/answer", deadline=5),
            **self.options,
        }
        return Instance(
            project=self.project,
            name="dev",
            target=Target(kind=self.kind, settings=self.settings),
            env={"NAME": name, "MODE": behaviour, "PORT": "8080"},
            **values,
        )

    def artifact(self, tag: str = "1") -> Artifact:
        return Artifact(
            image=Image(
                repository=engines.APP_REPOSITORY, id=engines.app_image(self.engine, tag=tag)
            )
        )

    def provider(self, instance: Instance) -> DockerProvider:
        cls = LocalProvider if self.kind == "local" else DockerProvider
        # As in every activity: a context of its own, with the same ways to secrets.
        return cls(instance, dataclasses.replace(self.context, notes=[]))

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/cgi-bin/answer"

    def answer(self) -> str:
        try:
            return httpx.get(self.url, timeout=20).text.strip()
        except httpx.HTTPError:
            return ""

    def running(self) -> list[str]:
        label = f"{names.LABEL_INSTANCE}={self.instance('').key}"
        found = self.engine.containers.list(filters={"label": [label, f"{names.LABEL_ROLE}=app"]})
        return [str(one.labels[names.LABEL_DEPLOYMENT]) for one in found]

    def remains(self) -> list[str]:
        return engines.remains(self.engine, self.instance(""))

    def remove(self, revision: Revision) -> None:
        self.engine.containers.get(revision.detail["container"]).remove(force=True)

    def kill_after(self, writes: int) -> AbstractContextManager[None]:
        return killed_after(writes)

    @contextmanager
    def failing(self, rate: float, seed: int) -> Iterator[list[str]]:
        with (
            tempfile.TemporaryDirectory(prefix="hx") as folder,
            tcp_engine() as port,
            faulty(f"127.0.0.1:{port}", rate, seed) as line,
            unix_socket(Path(folder, "engine.sock"), line.port),
        ):
            self.settings = {**self.settings, "host": f"unix://{folder}/engine.sock"}
            yield line.injected


@contextmanager
def a_world(engine: docker.DockerClient, **options: Any) -> Iterator[DockerWorld]:
    world = DockerWorld(engine, **options)
    with engines.swept(engine, world.instance("")):
        yield world


class TestStartFirst(ProviderSuite, FailingSuite):
    """A service without a volume."""

    @pytest.fixture
    def world(self, engine: docker.DockerClient) -> Iterator[DockerWorld]:
        with a_world(engine) as found:
            yield found


class TestStopFirst(ProviderSuite, FailingSuite):
    """A service with a volume."""

    @pytest.fixture
    def world(self, engine: docker.DockerClient) -> Iterator[DockerWorld]:
        volume = Volume(mount="/data", name=f"{engines.unique('v')}-data")
        with a_world(engine, volumes=(volume,)) as found:
            yield found

    def holds_data(self, name: str) -> bool:
        # A release that serves wrote to the volume before it failed: that is kept.
        return name.endswith("-data")


class TestWithoutEdge(ProviderSuite):
    """Where no edge can be had: the container publishes the port itself."""

    @pytest.fixture
    def world(self, engine: docker.DockerClient) -> Iterator[DockerWorld]:
        with a_world(engine) as found:
            found.settings = {"edge": ""}
            yield found

    def test_it_says_that_a_swap_interrupts(self, world: DockerWorld) -> None:
        with world.opened() as provider:
            provider.preflight()
            assert "interrupt" in provider.context.notes[0]


@pytest.fixture
def plain(engine: docker.DockerClient) -> Iterator[DockerWorld]:
    """An instance without a volume."""
    with a_world(engine) as found:
        yield found


@pytest.fixture
def stateful(engine: docker.DockerClient) -> Iterator[DockerWorld]:
    """An instance with a volume."""
    volume = Volume(mount="/data", name=f"{engines.unique('v')}-data")
    with a_world(engine, volumes=(volume,)) as found:
        yield found


def inspect(world: DockerWorld, revision: Revision) -> dict[str, Any]:
    return dict(world.engine.api.inspect_container(revision.detail["container"]))


# --- no request is lost ---------------------------------------------------------------------------


@contextmanager
def kept_connections(url: str) -> Iterator[list[str]]:
    """Two clients that keep their connections, and POST bodies that must come back whole."""
    problems: list[str] = []
    stop = threading.Event()

    def ask(number: int) -> None:
        with httpx.Client(timeout=60) as client:
            count = itertools.count()
            while not stop.wait(0.02):
                body = f"{number}-{next(count)}-" + "x" * 2000
                try:
                    answer = client.post(url, content=body)
                except httpx.HTTPError as error:
                    problems.append(repr(error))
                    continue
                if answer.status_code != 200 or body not in answer.text:
                    problems.append(f"{answer.status_code} {answer.text[:60]}")

    threads = [threading.Thread(target=ask, args=(number,), daemon=True) for number in range(2)]
    for thread in threads:
        thread.start()
    try:
        yield problems
    finally:
        stop.set()
        for thread in threads:
            thread.join()


@pytest.mark.parametrize("kind", ["plain", "stateful"])
def test_swaps_and_rollbacks_drop_no_request(kind: str, request: pytest.FixtureRequest) -> None:
    world: DockerWorld = request.getfixturevalue(kind)
    world.deployed(1)
    with kept_connections(world.url) as problems, traffic(world.url) as seen:
        answered(seen, 1)
        for number in (2, 3, 4):
            world.deployed(number)
            answered(seen, number)
        for number, behaviour in ((5, "exit"), (6, "sick")):
            result = world.driver.deploy(world.release(number, behaviour))
            assert result.restored is not None
            assert result.restored.release == 4
        world.deployed(7)
        answered(seen, 7)
    assert problems == []
    assert seen.failed == []


def answered(seen: Traffic, release: int) -> None:
    """Returns when a release has answered one of the requests."""
    end = time.monotonic() + 10
    while not seen.seen(f"r{release} "):
        assert time.monotonic() < end, seen
        time.sleep(0.02)


def test_a_slow_request_inside_the_old_release_is_answered_by_it(plain: DockerWorld) -> None:
    slow = plain.instance("r1").model_copy(update={"env": {"NAME": "r1", "SLOW": "1.5"}})
    first = plain.release(1).model_copy(update={"instance": slow})
    assert plain.driver.deploy(first).error is None
    answers: list[str] = []
    asking = threading.Thread(target=lambda: answers.append(plain.answer()))
    asking.start()
    time.sleep(0.2)
    plain.deployed(2)
    asking.join()
    assert answers == ["r1"]
    assert plain.answer() == "r2"


def test_requests_held_for_a_release_that_never_comes_reach_the_old_one(
    stateful: DockerWorld,
) -> None:
    first = stateful.deployed(1)
    bad = stateful.release(2, "hang")
    with stateful.opened(bad.instance) as provider:
        provider.start(bad, first)
    answers: list[str] = []
    asking = threading.Thread(target=lambda: answers.append(stateful.answer()))
    asking.start()
    asking.join(1)
    assert asking.is_alive()
    assert stateful.driver.restore(bad, first) == first
    asking.join(10)
    assert answers == ["r1"]


# --- one writer -----------------------------------------------------------------------------------


def test_the_volume_is_never_open_twice(stateful: DockerWorld) -> None:
    label = f"{names.LABEL_INSTANCE}={stateful.instance('').key}"
    # The engine remembers its last 256 events only, and others use it too: listen from the start.
    stream = stateful.engine.events(
        filters={"label": [label, f"{names.LABEL_ROLE}=app"], "event": ["start", "die"]},
        decode=True,
    )
    seen: list[tuple[str, str]] = []

    def listen() -> None:
        seen.extend((event["Action"], event["id"]) for event in stream)

    listening = threading.Thread(target=listen, daemon=True)
    listening.start()
    for number, behaviour in ((1, "serve"), (2, "serve"), (3, "sick"), (4, "exit"), (5, "serve")):
        stateful.driver.deploy(stateful.release(number, behaviour))
    time.sleep(0.5)
    stream.close()
    listening.join(5)

    open_now: set[str] = set()
    for action, box in seen:
        if action == "start":
            open_now.add(box)
        else:
            open_now.discard(box)
        assert len(open_now) <= 1, seen
    assert sum(action == "start" for action, _box in seen) == 7  # five, and one restored twice


def test_acknowledged_writes_outlive_swaps_and_a_failed_release(stateful: DockerWorld) -> None:
    stateful.deployed(1)
    written = []
    for number, behaviour in ((2, "serve"), (3, "exit"), (4, "serve")):
        body = f"write {number}"
        assert body in httpx.post(stateful.url, content=body).text
        written.append(body)
        stateful.driver.deploy(stateful.release(number, behaviour))
    current = stateful.current()
    assert current is not None
    with stateful.opened() as provider:
        _code, output = provider.run_check(current.detail["container"], ["cat", "/data/log"], 5)
    assert output.splitlines() == written


def test_nothing_starts_while_a_stranger_has_the_volume_open(stateful: DockerWorld) -> None:
    volume = stateful.instance("").volumes[0].name
    stranger = stateful.engine.containers.run(
        engines.app_image(stateful.engine),
        detach=True,
        name=f"{volume}-stranger",
        volumes=[f"{volume}:/data"],
    )
    try:
        result = stateful.driver.deploy(stateful.release(1))
        assert isinstance(result.error, Conflict)
        assert f"{volume}-stranger" in str(result.error)
        assert stateful.running() == []
    finally:
        stranger.remove(force=True)
        stateful.engine.volumes.get(volume).remove()


def test_who_was_away_while_the_one_before_ended_starts_nothing_beside_what_came_after(
    plain: DockerWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain.options["strategy"] = "stop-first"
    first = plain.deployed(1)
    late = plain.release(2)
    third: list[Revision] = []
    hold = routing.Traffic.hold

    def held_up(traffic: routing.Traffic, *boxes: Any) -> None:
        """Others carry out this deployment meanwhile, and the next one."""
        monkeypatch.undo()
        hold(traffic, *boxes)
        assert plain.driver.deploy(late).error is None
        third.append(plain.deployed(3))

    monkeypatch.setattr(routing.Traffic, "hold", held_up)
    with plain.opened(late.instance) as provider, pytest.raises(Conflict, match="release 3"):
        provider.start(late, first)
    assert plain.running() == [third[0].deployment]
    assert plain.answer() == "r3"


def test_destroy_keeps_the_data_unless_told(stateful: DockerWorld) -> None:
    stateful.deployed(1)
    httpx.post(stateful.url, content="precious")
    with stateful.opened() as provider:
        provider.destroy(data=False)
    assert stateful.remains() == [stateful.instance("").volumes[0].name]
    stateful.deployed(2)
    current = stateful.current()
    assert current is not None
    with stateful.opened() as provider:
        _code, output = provider.run_check(current.detail["container"], ["cat", "/data/log"], 5)
        assert output == "precious\n"
        provider.destroy(data=True)
    assert stateful.remains() == []


def test_a_folder_made_for_a_first_release_that_fails_goes_with_it(
    engine: docker.DockerClient, tmp_path: Path
) -> None:
    made, there = tmp_path / "made", tmp_path / "there"
    there.mkdir()
    volumes = (Volume(mount="/a", path=str(made)), Volume(mount="/b", path=str(there)))
    with a_world(engine, volumes=volumes) as world:
        result = world.driver.deploy(world.release(1, "exit"))
        assert isinstance(result.error, HealthCheckFailed)
        assert not made.exists()
        assert there.is_dir()
        assert world.remains() == []


# --- what was there before us ---------------------------------------------------------------------


@pytest.mark.parametrize("suffix", ["", "_app"])
def test_a_container_of_helixdbs_own_command_is_taken_over(
    stateful: DockerWorld, suffix: str
) -> None:
    instance = stateful.instance("")
    old = stateful.engine.containers.run(
        engines.app_image(stateful.engine),
        detach=True,
        name=f"helix-{instance.project}-{instance.name}{suffix}",
        environment={"NAME": "r0"},
        ports={"8080/tcp": stateful.port},
        volumes=[f"{instance.volumes[0].name}:/data"],
        restart_policy={"Name": "unless-stopped"},  # type: ignore[typeddict-item]
    )
    previous = stateful.current()
    assert previous is not None
    assert (previous.release, previous.detail["container"]) == (0, old.id)

    result = stateful.driver.deploy(stateful.release(1, "sick"))
    assert result.restored == previous
    assert stateful.answer() == "r0"
    assert [one.status for one in stateful.engine.containers.list() if one.id == old.id]

    stateful.deployed(2)
    assert stateful.answer() == "r2"
    old.reload()
    assert old.status == "exited"
    with stateful.opened() as provider:
        current = provider.current()
        assert current is not None
        provider.prune([current])
        old.reload()  # one release of ours is not enough to forget it
    third = stateful.deployed(3)
    with stateful.opened() as provider:
        provider.prune([third, current])
    assert "_app" not in {one.name for one in stateful.engine.containers.list(all=True)}
    with pytest.raises(docker.errors.NotFound):
        old.reload()


def test_the_published_port_can_change(plain: DockerWorld) -> None:
    plain.deployed(1)
    before = plain.url
    plain.port = engines.free_port()
    plain.deployed(2)
    assert plain.answer() == "r2"
    with pytest.raises(httpx.HTTPError):
        httpx.get(before, timeout=2)
    bad = plain.driver.deploy(plain.release(3, "exit"))
    assert bad.restored is not None
    assert plain.answer() == "r2"


def test_the_edge_outlives_releases_and_comes_back_if_removed(plain: DockerWorld) -> None:
    def edge() -> str:
        found = plain.engine.containers.list(filters={"name": f"{plain.project}-dev_edge"})
        return found[0].id if found else ""

    plain.deployed(1)
    first = edge()
    plain.deployed(2)
    assert edge() == first
    plain.engine.containers.get(first).remove(force=True)
    plain.deployed(3)
    assert plain.answer() == "r3"


def test_the_edge_takes_new_settings_although_whoever_brings_them_dies(plain: DockerWorld) -> None:
    def settings() -> str:
        (edge,) = plain.engine.containers.list(filters={"name": f"{plain.project}-dev_edge"})
        said: bytes = plain.engine.containers.run(
            engines.app_image(plain.engine),
            ["/bin/busybox", "wget", "-qO-", "http://127.0.0.1:2019/config/"],
            network_mode=f"container:{edge.id}",
            remove=True,
        )
        return said.decode()

    plain.deployed(1)
    for writes in range(1, 5):
        path = f"/cgi-bin/answer?{writes}"
        plain.options["health_check"] = HealthCheck(path=path, deadline=5)
        release = plain.release(writes + 1)
        with plain.opened(release.instance) as provider:
            handle = provider.start(release, None)
            plain.driver.check(release, handle)
            with killed_after(writes), suppress(Killed):
                provider.promote(handle)
        with plain.opened(release.instance) as provider:
            provider.promote(handle)
        assert path in settings()
        assert plain.answer() == f"r{writes + 1}"


def test_a_release_that_is_stopped_by_hand_is_started_by_an_unchanged_push(
    plain: DockerWorld,
) -> None:
    first = plain.deployed(1)
    plain.engine.containers.get(first.detail["container"]).stop(timeout=1)
    again = plain.release(2).model_copy(update={"instance": plain.instance("r1")})
    assert plain.driver.deploy(again).revision == first
    assert plain.answer() == "r1"


def test_a_promoted_release_restarts_with_the_engine_and_a_candidate_does_not(
    plain: DockerWorld,
) -> None:
    first = plain.deployed(1)
    release = plain.release(2)
    with plain.opened(release.instance) as provider:
        candidate = provider.start(release, first)
    policies = [
        plain.engine.api.inspect_container(one)["HostConfig"]["RestartPolicy"]["Name"]
        for one in (first.detail["container"], candidate)
    ]
    assert policies == ["unless-stopped", "no"]


# --- checks ---------------------------------------------------------------------------------------


def test_a_health_check_can_be_a_command(plain: DockerWorld) -> None:
    first = plain.deployed(1)
    box = first.detail["container"]
    with plain.opened() as provider:
        assert provider.run_check(box, ["sh", "-c", "echo fine"], 5) == (0, "fine\n")
        assert provider.run_check(box, ["sh", "-c", "echo bad; exit 4"], 5) == (4, "bad\n")
        code, output = provider.run_check(box, ["sleep", "5"], 0.3)
        assert (code, "0.3 s" in output) == (124, True)


def test_another_port_can_be_probed(plain: DockerWorld) -> None:
    plain.options["health_check"] = HealthCheck(port=8080, path="/cgi-bin/answer")
    plain.options["port"] = 9999
    release = plain.release(1)
    with plain.opened(release.instance) as provider:
        handle = provider.start(release, None)
        plain.driver.check(release, handle)
        endpoint = provider.endpoint(handle)
    assert endpoint is not None
    ports = plain.engine.api.inspect_container(handle)["NetworkSettings"]["Ports"]
    assert endpoint.url.endswith(ports["8080/tcp"][0]["HostPort"])


def test_secrets_reach_the_container_and_nothing_else(plain: DockerWorld) -> None:
    plain.secrets = {"env:PASSWORD": "hunter2-canary"}
    plain.options["secrets"] = {"PASSWORD": "env:PASSWORD"}
    first = plain.deployed(1)
    seen = inspect(plain, first)
    assert "PASSWORD=hunter2-canary" in seen["Config"].pop("Env")
    assert "hunter2-canary" not in json.dumps(seen)
    with plain.opened() as provider:
        assert "hunter2-canary" not in "\n".join(provider.logs())


def test_a_port_that_a_container_holds_is_refused_by_name(plain: DockerWorld) -> None:
    stranger = plain.engine.containers.run(
        engines.app_image(plain.engine),
        detach=True,
        name=f"{plain.project}-stranger",
        ports={"8080/tcp": plain.port},
    )
    try:
        with plain.opened() as provider, pytest.raises(Conflict, match=f"{plain.project}-stranger"):
            provider.preflight()
    finally:
        stranger.remove(force=True)


def test_a_port_that_a_program_holds_is_refused(plain: DockerWorld) -> None:
    with socket.create_server(("127.0.0.1", plain.port)):
        with plain.opened() as provider, pytest.raises(Conflict, match=str(plain.port)):
            provider.preflight()
        # Seen too late, it is a conflict all the same, and leaves nothing.
        release = plain.release(1)
        with plain.opened(release.instance) as provider:
            handle = provider.start(release, None)
            plain.driver.wait(release, handle)
            with pytest.raises(Conflict):
                provider.promote(handle)
            assert provider.restore(release.deployment, None) is None
    assert plain.remains() == []


def test_an_image_that_is_nowhere_is_said_to_be(plain: DockerWorld) -> None:
    release = plain.release(1).model_copy(
        update={"artifact": Artifact(image=Image(repository="nowhere", id="sha256:" + "0" * 64))}
    )
    with plain.opened() as provider, pytest.raises(NotFound, match="nowhere"):
        provider.start(release, None)
    assert plain.remains() == []


def test_a_command_that_is_not_in_the_image_is_a_mistake_of_configuration(
    plain: DockerWorld,
) -> None:
    plain.options["command"] = ("/nothing",)
    result = plain.driver.deploy(plain.release(1))
    assert isinstance(result.error, ConfigurationError)
    assert "command" in result.error.hint
    assert plain.remains() == []


def test_images_of_pruned_releases_go_and_those_of_kept_ones_stay(plain: DockerWorld) -> None:
    repository = names.docker_name(plain.project, "dev")
    ids = {
        tag: engines.app_image(plain.engine, tag=f"{plain.project}{tag}", repository=repository)
        for tag in "123"
    }

    def deploy(number: int) -> Revision:
        artifact = Artifact(image=Image(repository=repository, id=ids[str(number)]))
        release = plain.release(number).model_copy(update={"artifact": artifact})
        result = plain.driver.deploy(release)
        assert result.revision is not None
        return result.revision

    revisions = [deploy(number) for number in (1, 2, 3)]
    with plain.opened() as provider:
        provider.prune(revisions[1:])
        with pytest.raises(ImageNotFound):
            plain.engine.images.get(ids["1"])
        plain.engine.images.get(ids["2"])
        provider.destroy(data=False)
    for tag in "23":
        with pytest.raises(ImageNotFound):
            plain.engine.images.get(ids[tag])


@pytest.mark.parametrize("kind", ["local", "docker"])
def test_each_kind_says_where_it_can_be_reached(plain: DockerWorld, kind: str) -> None:
    plain.kind = kind
    with plain.opened() as provider:
        assert provider.kind == kind
        assert provider.public_url() == f"http://127.0.0.1:{plain.port}"
        assert provider.capabilities.holds_requests


def test_an_engine_that_is_not_there_fails_at_once() -> None:
    instance = Instance(
        project="p",
        name="dev",
        target=Target(kind="docker", settings={"host": "unix:///nowhere/docker.sock"}),
    )
    provider: CloudProvider = DockerProvider(instance, Context())
    with pytest.raises(PlatformUnhealthy, match="/nowhere/docker.sock"):
        provider.preflight()
    provider.close()


def test_a_remote_engine_needs_a_registry() -> None:
    release = Release(
        number=1,
        deployment=str(uuid.uuid4()),
        instance=Instance(
            project="p",
            name="dev",
            target=Target(kind="docker", settings={"host": "tcp://127.0.0.1:1"}),
        ),
        artifact=Artifact(),
    )
    provider = DockerProvider(release.instance, Context())
    with pytest.raises(ConfigurationError, match="registry"):
        provider.preflight()
    provider.close()


@pytest.mark.parametrize(
    "address", ["ftp://nowhere", "ssh://-oProxyCommand=x", "ssh://a:b@host", "ssh://host:x"]
)
def test_an_address_that_is_none_is_refused(address: str) -> None:
    instance = Instance(
        project="p", name="dev", target=Target(kind="docker", settings={"host": address})
    )
    provider = DockerProvider(instance, Context())
    with pytest.raises(ConfigurationError):
        provider.preflight()
    provider.close()


# --- edge or no edge ------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["plain", "stateful"])
def test_an_edge_can_come_and_go(kind: str, request: pytest.FixtureRequest) -> None:
    world: DockerWorld = request.getfixturevalue(kind)
    world.settings = {"edge": ""}
    world.deployed(1)
    world.settings = {}
    failed = world.driver.deploy(world.release(2, "sick"))
    assert failed.restored is not None
    assert world.answer() == "r1"
    world.deployed(3)
    assert world.answer() == "r3"
    world.settings = {"edge": ""}
    failed = world.driver.deploy(world.release(4, "exit"))
    assert failed.restored is not None
    assert world.answer() == "r3"
    fifth = world.deployed(5)
    assert world.answer() == "r5"
    with world.opened() as provider:
        provider.prune([fifth])
    edges = [name for name in world.remains() if "_edge_" in name or name.endswith("_net")]
    assert edges == []


def test_without_an_image_for_the_edge_it_says_what_that_means(plain: DockerWorld) -> None:
    plain.settings = {"edge": "127.0.0.1:1/no-such-edge:1"}
    release = plain.release(1)
    with plain.opened(release.instance) as provider:
        handle = provider.start(release, None)
        assert "no-such-edge" in provider.context.notes[0]
        assert "interrupt" in provider.context.notes[0]
        plain.driver.check(release, handle)
        provider.promote(handle)
    assert plain.answer() == "r1"


# --- images from a registry -----------------------------------------------------------------------


def test_an_image_is_pulled_by_digest_with_the_credentials_of_this_call(
    plain: DockerWorld, tmp_path: Path
) -> None:
    with secured_registry(tmp_path) as registry:
        repository = f"{registry.host}/{plain.project}"
        engines.app_image(plain.engine, tag="1", repository=repository)
        auth = {"username": registry.username, "password": registry.password}
        pushed = [
            event["aux"]["Digest"]
            for event in plain.engine.api.push(
                repository, tag="1", auth_config=auth, stream=True, decode=True
            )
            if "aux" in event
        ]
        plain.engine.images.remove(f"{repository}:1")
        artifact = Artifact(image=Image(repository=repository, digest=pushed[-1]))

        def deploy(number: int, password: str) -> Result:
            credentials = PullCredentials(registry.host, registry.username, SecretStr(password))
            plain.context = Context(pull=lambda: credentials)
            release = plain.release(number).model_copy(update={"artifact": artifact})
            return plain.driver.deploy(release)

        wrong = deploy(1, "wrong-canary")
        assert isinstance(wrong.error, PermissionDenied)
        assert registry.host in str(wrong.error)
        assert "wrong-canary" not in str(wrong.error)
        assert plain.remains() == []
        right = deploy(2, registry.password)
        assert right.error is None
        assert plain.answer() == "r2"
        registry.stop()
        again = deploy(3, registry.password)  # the engine has it: nothing is pulled
        assert again.error is None
        with plain.opened() as provider:
            provider.destroy(data=True)
        for reference in plain.engine.images.list(name=repository):
            plain.engine.images.remove(str(reference.id), force=True)
