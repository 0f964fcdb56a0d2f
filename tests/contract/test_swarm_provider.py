"""The `swarm` kind on a real swarm of one node."""

from __future__ import annotations

import dataclasses
import json
import re
import tempfile
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import docker
import httpx
import pytest
import requests
from docker.errors import APIError
from docker.errors import NotFound as Missing
from pydantic import SecretStr

from helix_deploy.testing import ProviderSuite
from model import names
from model.artifact import Artifact, BuildSettings, Image
from model.errors import (
    ConfigurationError,
    Conflict,
    HealthCheckFailed,
    PlatformUnhealthy,
    error_classes,
)
from model.instance import HealthCheck, Instance, RegistryTarget, Target, Volume
from model.platform import Release, Revision
from model.swarm_errors import API, TASK, hint_of
from providers import swarm as swarm_module
from providers.base import Context, PullCredentials
from providers.engine import from_api
from providers.swarm import SwarmProvider
from providers.swarm_services import Known, Services, Task
from providers.swarm_spec import replicated
from tests.contract.failing_suite import FailingSuite, FailingWorld
from tests.contract.kill import killed_after
from tests.services import engine as engines
from tests.services.bridges import ssh_host, tcp_engine
from tests.services.faults import faulty
from tests.services.swarm import Swarm, swarm
from tests.services.traffic import traffic

pytestmark = pytest.mark.engine


@pytest.fixture(scope="module")
def bed() -> Iterator[Swarm]:
    """One swarm for all tests of this module."""
    with tempfile.TemporaryDirectory(prefix="hx-swarm-") as folder, swarm(Path(folder)) as found:
        for tag in ("1", "2"):
            engines.app_image(found.client, tag=tag)
        yield found


class SwarmWorld(FailingWorld):
    """One instance on the swarm, reached over TCP with TLS."""

    patience = 4.0

    def __init__(self, bed: Swarm, **options: Any) -> None:
        self.bed = bed
        self.project = engines.unique()
        self.settings: dict[str, Any] = {"host": bed.host, "tls": str(bed.tls), "monitor": 0.2}
        self.options = options
        self.secrets: dict[str, str] = {}
        self.context = Context(secret=lambda name: SecretStr(self.secrets[name]))

    def instance(self, name: str, behaviour: str = "serve") -> Instance:
        values: dict[str, Any] = {
            "stop_grace": 2,
            "build": BuildSettings(kind="image", image="app"),
            "health_check": HealthCheck(path="/cgi-bin/answer", deadline=5),
            **self.options,
        }
        return Instance(
            project=self.project,
            name="dev",
            target=Target(kind="swarm", settings=self.settings),
            env={"NAME": name, "MODE": behaviour, "PORT": "8080"},
            **values,
        )

    def artifact(self, tag: str = "1") -> Artifact:
        image = engines.app_image(self.bed.client, tag=tag)
        return Artifact(image=Image(repository=engines.APP_REPOSITORY, id=image))

    def provider(self, instance: Instance) -> SwarmProvider:
        return SwarmProvider(instance, dataclasses.replace(self.context, notes=[]))

    @property
    def services(self) -> Services:
        return Services(self.bed.client, self.instance(""), lambda: None)

    def answer(self) -> str:
        """From the published port if there is one, else from the public service's own task."""
        port = self.options.get("publish")
        if port is None:
            running = [one for one in self.services.tasks(self.services.public_name) if one.runs]
            port = running[0].host_port(8080) if running else None
        if port is None:
            return ""
        try:
            url = f"http://{self.bed.address}:{port}/cgi-bin/answer"
            return httpx.get(url, timeout=5).text.strip()
        except httpx.HTTPError:
            return ""

    def running(self) -> list[str]:
        label = {"label": f"{names.LABEL_INSTANCE}={self.instance('').key}"}
        found = [one["Spec"]["Name"] for one in self.bed.client.api.services(filters=label)]
        tasks = [task for name in found for task in self.services.tasks(name)]
        return [task.deployment for task in tasks if task.runs]

    def remains(self) -> list[str]:
        api = self.bed.client.api
        label = {"label": f"{names.LABEL_INSTANCE}={self.instance('').key}"}
        found = [one["Spec"]["Name"] for one in api.services(filters=label)]
        found += [one["Spec"]["Name"] for one in api.secrets(filters=label)]
        return found + [one["Name"] for one in api.volumes(filters=label)["Volumes"] or ()]

    def kill_after(self, writes: int) -> AbstractContextManager[None]:
        return killed_after(writes)

    def remove(self, revision: Revision) -> None:
        self.bed.client.api.remove_service(revision.id)

    @contextmanager
    def failing(self, rate: float, seed: int) -> Iterator[list[str]]:
        with (
            tcp_engine(socket=self.bed.socket) as port,
            faulty(f"127.0.0.1:{port}", rate, seed) as line,
            self.bed.lent(line.port, self.bed.address),
        ):
            host = f"tcp://{self.bed.address}:{line.port}"
            self.settings = {**self.settings, "host": host, "tls": None}
            yield line.injected


@contextmanager
def a_world(bed: Swarm, **options: Any) -> Iterator[SwarmWorld]:
    world = SwarmWorld(bed, **options)
    try:
        yield world
    finally:
        label = {"label": f"{names.LABEL_INSTANCE}={world.instance('').key}"}
        api = bed.client.api
        for service in api.services(filters=label):
            with suppress(Missing, APIError):
                api.remove_service(service["ID"])


class TestStartFirst(ProviderSuite, FailingSuite):
    """A service without a volume, checked beside the one that serves."""

    @pytest.fixture
    def world(self, bed: Swarm) -> Iterator[SwarmWorld]:
        with a_world(bed) as found:
            yield found


class TestStopFirst(ProviderSuite, FailingSuite):
    """A service with a volume, and a port of its node: what is special about it."""

    @pytest.fixture
    def world(self, bed: Swarm) -> Iterator[SwarmWorld]:
        with a_stateful_world(bed) as found:
            yield found

    def holds_data(self, name: str) -> bool:
        return name.endswith("-data")


ALIKE = {
    "test_a_bad_release_is_replaced_by_the_one_before",
    "test_a_first_release_that_fails_leaves_nothing",
    "test_a_promoted_release_can_still_be_undone",
    "test_nothing_is_current_before_the_first_release",
    "test_a_release_that_exits_shows_its_last_words",
    "test_restoring_what_is_gone_says_so",
    "test_restoring_what_was_never_started_changes_nothing",
    "test_an_old_deployment_cannot_replace_a_newer_one",
    "test_logs_are_those_of_the_current_release",
    "test_prune_keeps_what_it_is_told_to_keep",
    "test_the_platform_says_who_we_are",
}
"""A volume makes no difference to these, and a task takes three seconds to end."""
for name in ALIKE:
    setattr(TestStopFirst, name, None)


@contextmanager
def a_stateful_world(bed: Swarm) -> Iterator[SwarmWorld]:
    volume = Volume(mount="/data", name=f"{engines.unique('v')}-data")
    with a_world(bed, volumes=(volume,), publish=engines.free_port()) as world:
        world.settings["publish_mode"] = "host"
        yield world


@pytest.fixture
def plain(bed: Swarm) -> Iterator[SwarmWorld]:
    with a_world(bed) as found:
        yield found


@pytest.fixture
def stateful(bed: Swarm) -> Iterator[SwarmWorld]:
    with a_stateful_world(bed) as found:
        yield found


def missing_image(world: SwarmWorld, number: int) -> Release:
    release = world.release(number)
    image = Image(repository="127.0.0.1:9/nowhere", digest=f"sha256:{'0' * 64}")
    return release.model_copy(update={"artifact": Artifact(image=image)})


# --- Swarm's word is verified ---------------------------------------------------------------------


def test_an_update_that_swarm_rolled_back_is_a_failure(plain: SwarmWorld) -> None:
    first = plain.deployed(1)
    plain.settings["monitor"] = 3
    bad = plain.release(2, "exit")
    with plain.opened(bad.instance) as provider:
        handle = provider.start(bad, first)
        with pytest.raises(HealthCheckFailed, match=r"went back|rollback|exited with code 3"):
            provider.promote(handle)

        def went_back() -> bool:
            public = plain.services.public()
            return public is not None and public.deployment == first.deployment

        assert provider._until(went_back, 20, "")
        assert provider.current() == first
        assert plain.driver.restore(bad, first) == first
    public = plain.services.public()
    assert public is not None
    assert public.update[0] in ("rollback_started", "rollback_completed")  # «success», for Swarm
    assert plain.answer() == "r1"


def test_an_image_that_no_node_can_pull_is_a_failure(plain: SwarmWorld) -> None:
    first = plain.deployed(1)
    result = plain.driver.deploy(missing_image(plain, 2))
    assert isinstance(result.error, HealthCheckFailed)
    assert "no node can run it" in result.error.message and "registry" in result.error.message
    assert result.restored == first


def test_a_task_that_no_node_takes_is_a_failure(
    plain: SwarmWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(swarm_module, "UNPLACED_SECONDS", 0.5)
    plain.settings["constraints"] = ["node.labels.disk==none"]
    release = plain.release(1)
    with plain.opened(release.instance) as provider:
        with pytest.raises(ConfigurationError, match="no node of the swarm fits"):
            provider.preflight()
        handle = provider.start(release, None)
        with pytest.raises(HealthCheckFailed, match="no node takes it"):
            plain.driver.wait(release, handle)
        assert provider.restore(release.deployment, None) is None


def test_a_change_that_others_came_before_is_begun_anew(plain: SwarmWorld) -> None:
    plain.deployed(1)
    services, seen = plain.services, []

    def how(service: Any) -> Any:
        seen.append(service.attrs["Version"]["Index"])
        if len(seen) == 1:  # somebody else is faster
            label = {**service.spec, "Labels": {**service.labels, "theirs": "1"}}
            services.change(service.name, lambda found: label)
        return {**service.spec, "Labels": {**service.labels, "ours": "1"}}

    assert services.change(services.public_name, how)
    changed = services.public()
    assert changed is not None and len(set(seen)) == 2
    assert {"ours", "theirs"} <= changed.labels.keys()


def test_who_was_away_while_the_tasks_before_ended_does_not_bring_an_old_release_back(
    stateful: SwarmWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = stateful.deployed(1)
    late = stateful.release(2)
    third: list[Revision] = []
    empty = SwarmProvider._empty

    def held_up(provider: SwarmProvider, *given: Any) -> None:
        """Others carry out this deployment meanwhile, and the next one."""
        monkeypatch.undo()
        empty(provider, *given)
        assert stateful.driver.deploy(late).error is None
        third.append(stateful.deployed(3))

    monkeypatch.setattr(SwarmProvider, "_empty", held_up)
    with stateful.opened(late.instance) as provider, pytest.raises(Conflict, match="release 3"):
        provider.start(late, first)
    assert stateful.current() == third[0]
    assert stateful.running() == [third[0].deployment]


def test_a_failed_update_leaves_the_volume_with_the_release_before(stateful: SwarmWorld) -> None:
    first = stateful.deployed(1)
    url = f"http://{stateful.bed.address}:{stateful.options['publish']}/cgi-bin/answer"
    assert "precious" in httpx.post(url, content="precious").text
    result = stateful.driver.deploy(stateful.release(2, "exit"))
    assert isinstance(result.error, HealthCheckFailed) and result.restored == first
    with stateful.opened() as provider:
        handle = swarm_module._handle(first.deployment)
        assert provider.run_check(handle, ["cat", "/data/log"], 5) == (0, "precious\n")
        provider.destroy(data=False)
    assert stateful.remains() == [stateful.instance("").volumes[0].name]
    second = stateful.deployed(3)
    with stateful.opened() as provider:
        handle = swarm_module._handle(second.deployment)
        assert provider.run_check(handle, ["cat", "/data/log"], 5) == (0, "precious\n")
        provider.destroy(data=True)
    assert stateful.remains() == []


def test_a_faster_caller_with_the_same_release_is_not_waited_for(
    stateful: SwarmWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = stateful.deployed(1)
    release = stateful.release(2)
    faster: list[str] = []

    def meanwhile(seconds: float) -> None:
        """After the slower one scaled the service to none, before it looks at its tasks."""
        monkeypatch.undo()
        with stateful.opened(release.instance) as provider:
            faster.append(provider.start(release, first))
        stateful.driver.wait(release, faster[0])

    halted = SimpleNamespace(sleep=meanwhile, monotonic=time.monotonic)
    monkeypatch.setattr(swarm_module, "time", halted)
    began = time.monotonic()
    with stateful.opened(release.instance) as provider:
        assert provider.start(release, first) == faster[0]
        assert time.monotonic() - began < swarm_module.STOP_MARGIN
        stateful.driver.check(release, faster[0])
        provider.promote(faster[0])
    assert stateful.running() == [release.deployment]
    assert stateful.answer() == "r2"


def test_the_next_release_waits_for_a_task_that_does_not_end(
    stateful: SwarmWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = stateful.deployed(1)
    monkeypatch.setattr(swarm_module, "STOP_MARGIN", -1.0)
    monkeypatch.setattr(Task, "is_open", True)  # as on a node that does not answer any more
    release = stateful.release(2)
    with (
        stateful.opened(release.instance) as provider,
        pytest.raises(PlatformUnhealthy, match="does not end"),
    ):
        provider.start(release, first)
    assert stateful.running() == []
    monkeypatch.undo()
    assert stateful.driver.restore(release, first) == first


@pytest.mark.parametrize("order", ["start-first", "stop-first"])
def test_what_swarm_is_told(bed: Swarm, order: str) -> None:
    volume = Volume(mount="/data", name="v-data")
    more: dict[str, Any] = {"volumes": (volume,)} if order == "stop-first" else {"publish": 8099}
    with a_world(bed, **more) as world:
        release = world.release(1)
        with world.opened(release.instance) as provider:
            spec = provider._spec(release, Known(None, []))
            node = f"node.id=={provider._own_node}"
    assert json.loads(spec["Labels"]["helix.shape"])["order"] == order
    assert (node in spec["TaskTemplate"]["Placement"]["Constraints"]) is (order == "stop-first")
    assert spec["Mode"] == replicated(0 if order == "stop-first" else 1)


def test_swaps_through_the_mesh_drop_no_request(bed: Swarm) -> None:
    if not bed.has_mesh:
        pytest.skip("this kernel has no IPVS, which Swarm's routing mesh needs")
    with a_world(bed, publish=engines.free_port()) as world:
        world.deployed(1)
        url = f"http://{bed.address}:{world.options['publish']}/cgi-bin/answer"
        with traffic(url) as seen:
            world.deployed(2)
        assert seen.failed == []


# --- secrets and credentials ----------------------------------------------------------------------


@pytest.mark.parametrize("files", [False, True])
def test_secrets_reach_the_task(plain: SwarmWorld, files: bool) -> None:
    plain.secrets = {"env:PASSWORD": "hunter2-canary"}
    plain.options["secrets"] = {"PASSWORD": "env:PASSWORD"}
    plain.settings["secret_files"] = files
    first = plain.deployed(1)
    attrs = plain.bed.client.api.inspect_service(plain.services.public_name)
    env = attrs["Spec"]["TaskTemplate"]["ContainerSpec"].pop("Env")
    assert ("PASSWORD=hunter2-canary" in env) is not files
    seen = [json.dumps(attrs), first.model_dump_json(), *([json.dumps(env)] if files else [])]
    assert not any("hunter2" in text for text in seen)
    if files:
        with plain.opened() as provider:
            handle = swarm_module._handle(first.deployment)
            code, output = provider.run_check(handle, ["sh", "-c", "cat $PASSWORD_FILE"], 5)
            assert (code, output) == (0, "hunter2-canary")
            provider.destroy(data=False)
        assert plain.remains() == []


def test_the_registrys_credentials_go_along_with_every_new_image(
    plain: SwarmWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[tuple[str, bool]] = []
    send = requests.Session.send

    def listening(session: Any, request: Any, **options: Any) -> Any:
        if found := re.search(r"/services/\w+/?(create|update)?", request.path_url):
            seen.append((found[1] or "create", "X-Registry-Auth" in request.headers))
        return send(session, request, **options)

    account = PullCredentials("127.0.0.1:9", "helix", SecretStr("hunter2-canary"))
    services = Services(plain.bed.client, plain.instance(""), lambda: account)
    with plain.opened() as provider:
        spec = {**provider._spec(missing_image(plain, 1), None), "Mode": replicated(0)}
    monkeypatch.setattr(requests.Session, "send", listening)
    services.create(spec)
    template = {**spec["TaskTemplate"], "ForceUpdate": 1}
    services.change(spec["Name"], lambda found: {**found.spec, "TaskTemplate": template})
    writes = {one for one in seen if one[1] or one[0] == "update"}
    assert writes == {("create", True), ("update", True)}


# --- ways to it, and what is refused --------------------------------------------------------------


def test_a_manager_behind_ssh(plain: SwarmWorld, tmp_path: Path) -> None:
    with ssh_host(tmp_path) as host:
        plain.settings = {
            "host": f"{host.url}{plain.bed.socket}",
            "ssh_key": str(host.key),
            "known_hosts": str(host.known_hosts),
        }
        with plain.opened() as provider:
            provider.preflight()
            assert "manager" in provider.identity().who
            assert provider.current() is None


def test_an_engine_that_is_no_manager_is_refused(plain: SwarmWorld) -> None:
    engines.client().close()
    plain.settings = {"host": "unix:///var/run/docker.sock"}
    with plain.opened() as provider:
        with pytest.raises(ConfigurationError, match="not a manager") as caught:
            provider.preflight()
        assert "docker swarm init" in caught.value.hint
        release = plain.release(1)
        with pytest.raises(ConfigurationError, match="swarm"):
            provider.start(release, None)


def test_a_port_that_another_service_has_is_refused(stateful: SwarmWorld, bed: Swarm) -> None:
    stateful.deployed(1)
    port = stateful.options["publish"]
    with (
        a_world(bed, publish=port) as other,
        other.opened() as provider,
        pytest.raises(Conflict, match=f"port {port} is held by"),
    ):
        provider.preflight()


@pytest.mark.parametrize(
    ("options", "settings", "text"),
    [
        ({"volumes": (Volume(mount="/d", name="v"),)}, {"replicas": 2}, "only one may have open"),
        ({"name": "x" * 60}, {}, "Swarm's limit"),
        ({"build": BuildSettings()}, {}, "no registry is named"),
        ({}, {"network": "bridge"}, "one node's own"),
        ({}, {"constraints": ["node.role==worker"]}, "no node of the swarm fits"),
    ],
)
def test_preflight_refuses(
    bed: Swarm, options: dict[str, Any], settings: dict[str, Any], text: str
) -> None:
    named = options.pop("name", "dev")
    with a_world(bed, **options) as world:
        world.settings |= settings
        instance = world.instance("r1").model_copy(update={"name": named})
        with world.opened(instance) as provider, pytest.raises(ConfigurationError) as caught:
            provider.preflight()
        assert text in caught.value.message and caught.value.hint


def scaled_to_none(service: Any) -> Any:
    """As `docker service scale` does it."""
    return {**service.spec, "Mode": replicated(0)}


def test_replicas_are_all_started_and_started_again(plain: SwarmWorld) -> None:
    plain.settings["replicas"] = 3
    first = plain.deployed(1)
    assert plain.running() == [first.deployment] * 3
    plain.services.change(plain.services.public_name, scaled_to_none)
    seen = plain.current()
    assert seen is not None and seen.down == "is scaled to no task"
    again = plain.release(2).model_copy(update={"instance": plain.instance("r1")})
    assert plain.driver.deploy(again).revision == first
    assert plain.running() == [first.deployment] * 3
    with plain.opened() as provider:
        plain.options["registry"] = RegistryTarget(repository="127.0.0.1:9/x")
        provider.preflight()


def test_a_command_is_swarms_own_health_check(plain: SwarmWorld) -> None:
    check = HealthCheck(kind="command", command=("true",), interval=0.1)
    plain.options["health_check"] = check
    first = plain.deployed(1)
    attrs = plain.bed.client.api.inspect_service(plain.services.public_name)
    test = attrs["Spec"]["TaskTemplate"]["ContainerSpec"]["Healthcheck"]["Test"]
    assert test == ["CMD", "true"]
    plain.options["health_check"] = check.model_copy(update={"command": ("false",)})
    result = plain.driver.deploy(plain.release(2))
    assert isinstance(result.error, HealthCheckFailed) and result.restored == first


# --- errors ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("said", "code"),
    [
        ("This node is not a swarm manager. Use docker swarm init", "ConfigurationError"),
        ("rpc error: code = Unknown desc = update out of sequence", "Busy"),
        ("rpc error: code = InvalidArgument desc = port '80' is already in use by service 'x' "
         "(1) as an ingress port", "Conflict"),
        ("rpc error: code = AlreadyExists desc = name conflicts with an existing object: service "
         "x already exists", "Conflict"),
        ("rpc error: code = Unknown desc = The swarm does not have a leader. It's possible that "
         "too few managers are online", "PlatformUnhealthy"),
        ("rpc error: code = DeadlineExceeded desc = context deadline exceeded", "Transient"),
        ("network web not found", "NotFound"),
        ("The network web cannot be used with services. Only networks scoped to the swarm can be "
         "used, such as those created with the overlay driver.", "ConfigurationError"),
        ("rpc error: code = InvalidArgument desc = secret 's' is in use by the following service",
         "Busy"),
    ],
)  # fmt: skip
def test_each_answer_has_its_class(said: str, code: str) -> None:
    answer = requests.Response()
    answer.status_code = 500
    error = from_api(docker.errors.APIError(said, response=answer, explanation=said), API)
    assert error.code == code and said in error.message


def test_rows_are_sound() -> None:
    for pattern, cls, _hint in (*API, *TASK):
        assert re.compile(pattern) and cls in error_classes()
    assert "registry" in hint_of("No such image: nothere:1")
    assert hint_of("task: non-zero exit (3)") == ""
