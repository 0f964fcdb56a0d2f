"""The step `build`, on a real engine and a real registry."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any, cast
from uuid import uuid4

import docker
import pytest
from docker.errors import DockerException
from pydantic import SecretStr
from temporalio.exceptions import ApplicationError, CancelledError
from temporalio.testing import ActivityEnvironment

from activities.build import LABEL_BUILT_FROM, BuildActivities, check_build
from activities.services import Services
from model.artifact import Artifact, BuildSettings, Source
from model.deployment import DeployRequest
from model.errors import ConfigurationError, HelixError, PlatformUnhealthy
from model.instance import Instance, RegistryTarget, Target
from model.names import docker_name
from model.steps import BuildInput
from project.source import snapshot
from project.store import Store
from registries.base import RegistryContext
from registries.oci import OciRegistry
from registries.push import push_from_engine
from tests.integration.test_builders import _running
from tests.services.contexts import with_shell
from tests.services.need import missing
from tests.services.registry import TestRegistry, plain_registry, secured_registry

pytestmark = pytest.mark.engine


@pytest.fixture(scope="module")
def engine() -> Iterator[docker.DockerClient]:
    try:
        client = docker.from_env()
        client.ping()
    except DockerException as error:
        missing("engine", f"no engine answers: {error}", "run: make tools")
    yield client
    client.close()


class World:
    """One project, one worker, and the engine of this machine."""

    def __init__(self, folder: Path, engine: docker.DockerClient) -> None:
        self.engine = engine
        self.project = f"t{uuid4().hex[:10]}"
        self.context = with_shell(folder / "context", f"RUN echo {self.project}\n")
        self.services = Services(
            store=Store(f"file://{folder}/store"),
            ledger=cast(Any, None),
            queue="test",
            logs_dir=folder / "logs",
            scratch_dir=folder / "scratch",
            secret=lambda instance, reference: SecretStr(reference),
        )
        self.services.scratch_dir.mkdir()
        self.beats: list[Any] = []

    def request(
        self,
        registry: RegistryTarget | None = None,
        source: Source | None = None,
        **build: Any,
    ) -> DeployRequest:
        settings = BuildSettings(**build)
        if source is None and settings.kind != "image":
            source = snapshot(self.context, self.services.store, dockerfile=settings.dockerfile)
        instance = Instance(
            project=self.project,
            name="dev",
            target=Target(kind="docker"),
            registry=registry,
            build=settings,
        )
        return DeployRequest(instance=instance, source=source)

    def environment(self) -> ActivityEnvironment:
        environment = ActivityEnvironment()
        environment.info = replace(environment.info, heartbeat_timeout=timedelta(seconds=4))
        environment.on_heartbeat = lambda *details: self.beats.extend(details)
        return environment

    def build(
        self, request: DeployRequest, environment: ActivityEnvironment | None = None
    ) -> Artifact:
        given = BuildInput(deployment=f"d-{uuid4().hex[:8]}", request=request)
        step = BuildActivities(self.services).build
        found = (environment or self.environment()).run(step, given)
        assert isinstance(found, Artifact)
        assert not list(self.services.scratch_dir.iterdir())
        return found

    def clean(self) -> None:
        for image in self.engine.images.list(f"{docker_name(self.project, 'dev')}"):
            with suppress(DockerException):
                self.engine.images.remove(str(image.id), force=True)


@pytest.fixture
def world(tmp_path: Path, engine: docker.DockerClient) -> Iterator[World]:
    found = World(tmp_path, engine)
    yield found
    found.clean()


@pytest.fixture
def registry(tmp_path: Path) -> Iterator[TestRegistry]:
    with plain_registry(tmp_path / "registry") as found:
        yield found


def push(target: RegistryTarget, artifact: Artifact) -> str:
    assert artifact.image is not None
    registry = OciRegistry(target, RegistryContext())
    try:
        quiet: Callable[[str, int, int], None] = lambda text, done, of: None  # noqa: E731
        return push_from_engine(registry, None, artifact.image, artifact.tag, quiet).digest
    finally:
        registry.close()


def test_a_dockerfile_becomes_an_image_with_its_names_labels_and_log(world: World) -> None:
    artifact = world.build(world.request())
    assert artifact.image is not None
    assert artifact.image.repository == docker_name(world.project, "dev")
    assert not artifact.reused
    assert artifact.builder in ("buildx", "docker-cli", "engine", "classic")
    image = world.engine.images.get(artifact.image.reference)
    assert image.labels[LABEL_BUILT_FROM] == artifact.built_from
    assert image.labels["helix.deployment"].startswith("d-")
    assert set(image.tags) == {
        f"{artifact.image.repository}:{tag}" for tag in (artifact.tag, "latest")
    }
    assert world.project in world.services.store.read_text(artifact.log_url)
    assert world.beats


def test_the_same_source_is_not_built_again(world: World) -> None:
    first = world.build(world.request())
    second = world.build(world.request(context="elsewhere"))
    assert second.reused
    assert second.image == first.image
    (world.context / "new").write_text("x")
    third = world.build(world.request())
    assert not third.reused
    assert third.built_from != first.built_from
    assert not world.build(world.request(args={"A": "1"})).reused


def test_what_is_in_the_registry_is_neither_built_nor_pushed_again(
    world: World, registry: TestRegistry
) -> None:
    target = registry.target("shop")
    first = world.build(world.request(target))
    assert first.image is not None
    assert first.image.repository == f"{registry.host}/shop"
    assert not first.image.digest
    again = world.build(world.request(target))
    assert again.reused
    assert again.image is not None
    assert not again.image.digest  # not pushed yet: the push must not be skipped
    digest = push(target, first)
    world.clean()
    found = world.build(world.request(target))
    assert found.reused
    assert found.image is not None
    assert (found.image.repository, found.image.digest) == (f"{registry.host}/shop", digest)


def test_a_failed_build_shows_its_cause_and_keeps_its_log(world: World) -> None:
    with_shell(world.context, "RUN echo the-cause && exit 7\n")
    with pytest.raises(ApplicationError) as caught:
        world.build(world.request())
    assert caught.value.type == "BuildFailed"
    assert "the-cause" in str(caught.value)
    assert "Dockerfile line 4" in str(caught.value)
    (log,) = world.services.logs_dir.rglob("build.log")
    assert "the-cause" in log.read_text()
    assert not list(world.services.scratch_dir.iterdir())


def test_a_cancelled_build_ends_and_leaves_nothing(world: World) -> None:
    seconds = str(random.randint(10**6, 10**7))
    with_shell(world.context, f"RUN /bin/busybox sleep {seconds}\n")
    environment = world.environment()

    def cancel() -> None:
        deadline = time.monotonic() + 30
        while not _running(f"sleep {seconds}") and time.monotonic() < deadline:
            time.sleep(0.1)
        environment.cancel()

    canceller = threading.Thread(target=cancel)
    request = world.request()
    canceller.start()
    started = time.monotonic()
    with pytest.raises(CancelledError):
        world.build(request, environment)
    canceller.join()
    assert time.monotonic() - started < 20
    assert not list(world.services.scratch_dir.iterdir())
    deadline = time.monotonic() + 12
    scratch = str(world.services.scratch_dir)
    while left := _running(f"sleep {seconds}") + _running(scratch):
        assert time.monotonic() < deadline, left
        time.sleep(0.1)
    assert not world.engine.images.list(docker_name(world.project, "dev"))


def test_a_secret_of_the_build_is_in_no_log_and_no_heartbeat(world: World) -> None:
    with_shell(
        world.context,
        f"RUN --mount=type=secret,id=k /bin/busybox cat /run/secrets/k; echo {world.project}\n",
    )
    secret = f"env:{uuid4().hex}"
    try:
        check = check_build(world.request(secrets={"k": secret}), world.services)
    except ConfigurationError:
        pytest.skip("no builder with secrets here")
    artifact = world.build(world.request(secrets={"k": secret}))
    log = world.services.store.read_text(artifact.log_url)
    assert check == artifact.builder
    assert "***" in log
    assert secret not in log + str(world.beats)


def test_a_wrong_password_is_said_at_once(world: World, tmp_path: Path) -> None:
    with secured_registry(tmp_path / "secured") as registry:
        target = registry.target("shop")
        wrong = target.model_copy(update={"settings": {**target.settings, "password": "env:WRONG"}})
        with pytest.raises(ApplicationError, match=registry.host) as caught:
            world.build(world.request(wrong))
    assert caught.value.type == "PermissionDenied"


def test_a_private_base_in_our_own_registry_is_fetched_with_its_credentials(
    world: World, tmp_path: Path
) -> None:
    with secured_registry(tmp_path / "secured") as registry:
        world.services.secret = lambda instance, reference: registry.context.secret(reference)
        target = registry.target("base")
        base = world.build(world.request(target))
        assert base.image is not None
        context = RegistryContext(secret=registry.context.secret)
        where = OciRegistry(target, context)
        push_from_engine(where, None, base.image, "1", lambda text, done, of: None)
        where.close()
        world.clean()
        (world.context / "Dockerfile").write_text(f"FROM {registry.host}/base:1\nENV OWN=1\n")
        try:
            artifact = world.build(world.request(registry.target("shop")))
        finally:
            with suppress(DockerException):
                world.engine.images.remove(f"{registry.host}/base:1", force=True)
        assert artifact.image is not None


def test_a_prebuilt_image_is_resolved_to_its_digest(world: World, registry: TestRegistry) -> None:
    origin = registry.target("origin")
    built = world.build(world.request(origin))
    digest = push(origin, built)
    reference = f"{registry.host}/origin:{built.tag}"
    world.clean()
    with suppress(DockerException):
        world.engine.images.remove(reference, force=True)

    elsewhere = world.build(world.request(registry.target("shop"), kind="image", image=reference))
    assert elsewhere.image is not None
    assert elsewhere.image.reference == f"{registry.host}/origin@{digest}"
    assert not elsewhere.reused

    here = world.build(world.request(kind="image", image=reference))
    assert here.image is not None
    assert here.image.digest == digest
    try:
        assert world.engine.images.get(here.image.reference).id == here.image.id
    finally:
        world.engine.images.remove(here.image.id, force=True)


def test_an_image_that_only_this_engine_has_is_taken_by_its_id(
    world: World, registry: TestRegistry
) -> None:
    built = world.build(world.request())
    assert built.image is not None
    name = f"{built.image.repository}:latest"
    for target in (None, registry.target("shop")):
        taken = world.build(world.request(target, kind="image", image=name))
        assert taken.image is not None
        assert taken.image.id == built.image.id
        assert not taken.image.digest


def test_an_image_that_does_not_exist_is_not_found(world: World, registry: TestRegistry) -> None:
    for target in (None, registry.target("shop")):
        request = world.request(target, kind="image", image=f"{registry.host}/nothing:1")
        with pytest.raises(ApplicationError, match="nothing:1") as caught:
            world.build(request)
        assert caught.value.type == "NotFound"


def test_validate_refuses_what_cannot_be_built(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refusal(kind: type[HelixError]) -> str:
        with pytest.raises(kind) as caught:
            check_build(world.request(), world.services)
        assert caught.value.hint
        return str(caught.value)

    assert check_build(world.request(), world.services)
    with_shell(world.context, "COPY app/main.py /\n")
    assert "line 4 copies app/main.py" in refusal(ConfigurationError)
    with_shell(world.context)
    monkeypatch.setattr("activities.build.MIN_FREE", 1 << 60)
    assert "MB are free" in refusal(PlatformUnhealthy)
    monkeypatch.undo()
    monkeypatch.setenv("DOCKER_HOST", "unix:///nonexistent/docker.sock")
    assert "no engine answers" in refusal(PlatformUnhealthy)


def test_a_source_without_its_dockerfile_is_refused(world: World) -> None:
    source = snapshot(world.context, world.services.store)
    request = world.request(source=source, dockerfile="Other")
    with pytest.raises(ConfigurationError, match="no Other"):
        check_build(request, world.services)
    with pytest.raises(ApplicationError, match="no Other"):
        world.build(request)
