"""Pushing from a real engine to real registries."""

from __future__ import annotations

import io
import os
import tarfile
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

import docker
import pytest
from docker.errors import DockerException
from pydantic import SecretStr

from model.artifact import Image
from model.errors import AuthExpired, NotFound, PermissionDenied, Transient
from registries.base import RegistryContext
from registries.oci import OciRegistry
from registries.push import push_from_engine
from tests.services.need import missing
from tests.services.registry import (
    USERNAME,
    TestRegistry,
    plain_registry,
    secured_registry,
    token_registry,
)

pytestmark = [pytest.mark.registry, pytest.mark.engine]
NAME = f"helix-test-push-{uuid.uuid4().hex[:8]}"


@pytest.fixture(scope="module")
def engine() -> Iterator[docker.DockerClient]:
    try:
        client = docker.from_env(use_context=False)
        client.ping()
    except DockerException:
        missing("engine", "no Docker engine answers", "start dockerd")
    yield client
    client.close()


@pytest.fixture(scope="module")
def image(engine: docker.DockerClient) -> Iterator[Image]:
    yield from _image(engine, f"{NAME}:small", os.urandom(1000))


@pytest.fixture(scope="module")
def large(engine: docker.DockerClient) -> Iterator[Image]:
    """Larger than the buffers between here and the registry, and of no use to compression."""
    yield from _image(engine, f"{NAME}:large", os.urandom(64 << 20))


def _image(engine: docker.DockerClient, name: str, content: bytes) -> Iterator[Image]:
    layer = io.BytesIO()
    with tarfile.open(fileobj=layer, mode="w") as archive:
        entry = tarfile.TarInfo("content")
        entry.size = len(content)
        archive.addfile(entry, io.BytesIO(content))
    repository, tag = name.split(":")
    engine.api.import_image_from_data(layer.getvalue(), repository=repository, tag=tag)
    yield Image(repository=repository, id=engine.images.get(name).id or "")
    engine.images.remove(name)


@pytest.fixture(autouse=True)
def no_docker_configuration(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path / "docker"))


def silent(text: str, done: int, of: int) -> None:
    """Takes reports."""


def opened(service: TestRegistry) -> OciRegistry:
    return OciRegistry(service.target("team/shop"), service.context)


def names(engine: docker.DockerClient, service: TestRegistry) -> list[str]:
    """What the engine still calls by the registry's name."""
    return [tag for found in engine.images.list() for tag in found.tags if service.host in tag]


@pytest.mark.parametrize("form", [plain_registry, secured_registry, token_registry])
def test_what_was_pushed_is_read_back_by_its_digest(
    form: type, tmp_path: Path, engine: docker.DockerClient, image: Image
) -> None:
    with form(tmp_path) as service:
        registry = opened(service)
        pushed = [push_from_engine(registry, None, image, "v1", silent) for _ in range(2)]
        assert pushed[0] == pushed[1]
        assert pushed[0].digest == registry.find("v1")
        assert pushed[0].repository == registry.repository
        assert pushed[0].id == image.id
        assert names(engine, service) == []
    assert engine.images.get(image.id).tags == [f"{NAME}:small"]
    assert not (tmp_path / "docker").exists(), "credentials were written to a file"


def test_progress_grows_to_the_whole_and_is_not_told_too_often(
    tmp_path: Path, large: Image
) -> None:
    reports: list[tuple[str, int, int]] = []
    with plain_registry(tmp_path) as service:
        began = time.monotonic()
        push_from_engine(opened(service), None, large, "v1", lambda *report: reports.append(report))
        took = time.monotonic() - began
    assert {text for text, _, _ in reports} == {"pushing"}
    done = [done for _, done, _ in reports]
    assert done == sorted(done)
    assert reports[-1][1] == reports[-1][2] >= 64 << 20
    assert len(reports) <= took * 5 + 3


def test_a_name_that_was_there_before_is_there_after(
    tmp_path: Path, engine: docker.DockerClient, image: Image, large: Image
) -> None:
    with plain_registry(tmp_path) as service:
        registry = opened(service)
        name = f"{registry.repository}:v1"
        engine.images.get(large.id).tag(name)
        push_from_engine(registry, None, image, "v1", silent)
        assert engine.images.get(name).id == large.id
        assert engine.images.get(image.id).attrs["RepoDigests"] == []
        engine.images.remove(name)


def test_an_image_known_by_this_name_only_is_not_lost(
    tmp_path: Path, engine: docker.DockerClient
) -> None:
    making = _image(engine, f"{NAME}:lonely", os.urandom(100))
    lonely = next(making)
    engine.api.tag(lonely.id, f"{NAME}-other", "v1")
    engine.images.remove(f"{NAME}:lonely")
    with plain_registry(tmp_path) as service:
        registry = opened(service)
        engine.images.get(lonely.id).tag(f"{registry.repository}:v1")
        engine.images.remove(f"{NAME}-other:v1")
        push_from_engine(registry, None, lonely, "v1", silent)
        assert engine.images.get(lonely.id).tags == [f"{registry.repository}:v1"]
        engine.images.remove(lonely.id, force=True)


def test_a_wrong_password_fails_at_once_and_says_what_to_do(
    tmp_path: Path, engine: docker.DockerClient, image: Image
) -> None:
    with secured_registry(tmp_path) as service:
        context = RegistryContext(secret=lambda reference: SecretStr("wrong-canary"))
        registry = OciRegistry(service.target("team/shop"), context)
        with pytest.raises(PermissionDenied) as caught:
            push_from_engine(registry, None, image, "v1", silent)
        assert f"docker login {service.host}" in str(caught.value)
        assert "wrong-canary" not in str(caught.value)
        assert names(engine, service) == []


def test_a_token_that_expires_during_the_push_asks_for_a_new_login(
    tmp_path: Path, image: Image
) -> None:
    with token_registry(tmp_path) as service:
        assert service.tokens
        registry = opened(service)
        registry.authenticate()
        # The engine gets a token that is dead on arrival; the next login is good again.
        service.tokens.stale = 1
        with pytest.raises(AuthExpired):
            push_from_engine(registry, None, image, "v1", silent)
        assert push_from_engine(registry, None, image, "v1", silent).digest
        assert {user for _, user, _ in service.tokens.requests} == {USERNAME}


def test_a_registry_that_is_down_is_transient(tmp_path: Path, image: Image) -> None:
    with plain_registry(tmp_path) as service:
        registry = opened(service)
        service.stop()
        with pytest.raises(Transient, match="team/shop:v1"):
            push_from_engine(registry, None, image, "v1", silent)
        service.start()
        assert push_from_engine(registry, None, image, "v1", silent).digest


def test_giving_up_ends_the_push(tmp_path: Path, engine: docker.DockerClient, large: Image) -> None:
    class GivenUp(Exception):
        pass

    def give_up(text: str, done: int, of: int) -> None:
        if done:
            raise GivenUp

    with plain_registry(tmp_path) as service:
        registry = opened(service)
        with pytest.raises(GivenUp):
            push_from_engine(registry, None, large, "v1", give_up)
        time.sleep(1.5)
        assert registry.find("v1") is None
        assert names(engine, service) == []


def test_an_engine_without_the_image_says_so(tmp_path: Path) -> None:
    with plain_registry(tmp_path) as service, pytest.raises(NotFound, match="build it again"):
        unknown = Image(repository="nothing", id="sha256:" + "1" * 64)
        push_from_engine(opened(service), None, unknown, "v1", silent)


def test_an_engine_that_is_not_there_says_so(tmp_path: Path, image: Image) -> None:
    with plain_registry(tmp_path) as service, pytest.raises(Transient, match="engine"):
        push_from_engine(opened(service), f"unix://{tmp_path}/none.sock", image, "v1", silent)
