"""What every registry must do, whoever runs it.

A kind's test module offers a fixture `world` and inherits:

    class TestAcr(RegistrySuite):
        @pytest.fixture
        def world(self, ...) -> RegistryWorld: ...
"""

from __future__ import annotations

import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
from pydantic import JsonValue, SecretStr
from temporalio.testing import WorkflowEnvironment

from model.artifact import Artifact, Image
from model.deployment import Outcome
from model.errors import HelixError, NotFound, PermissionDenied
from model.instance import HealthCheck, Instance, RegistryTarget, Target
from registries.base import RegistryContext
from registries.catalog import REGISTRIES
from registries.oci import OciRegistry
from tests.contract.pipeline import pipeline
from tests.fakes.stores import SECRETS, Store, secret
from tests.services.faults import FaultyLine, faulty
from tests.services.images import put_image, put_index
from tests.services.registry import TestRegistry

RELEASES = 8
"""How many follow each other while calls fail."""


@dataclass(frozen=True)
class RegistryWorld:
    """One repository that nobody has used yet."""

    store: Store
    plain: TestRegistry
    """Another registry, to copy from."""
    name: str
    host: str = ""
    """Where the images are reached; empty: where they are."""

    @property
    def target(self) -> RegistryTarget:
        return self.store.target(self.name, self.host)

    @contextmanager
    def opened(self) -> Iterator[OciRegistry]:
        """The registry, as one activity has it."""
        registry = REGISTRIES.load(self.store.kind)(self.target, RegistryContext(secret=secret))
        try:
            yield registry
        finally:
            registry.close()

    @contextmanager
    def ready(self) -> Iterator[OciRegistry]:
        """With its repository made."""
        with self.opened() as registry:
            registry.ensure_repository()
            yield registry

    def digest(self, version: str) -> str | None:
        """The real registry's own word."""
        return self.store.digest(self.name, version)

    @contextmanager
    def origin(self, tag: str, content: bytes) -> Iterator[str]:
        """The reference of an image in another registry."""
        place = OciRegistry(self.plain.target("origin"), self.plain.context)
        try:
            yield f"{self.plain.host}/origin@{put_image(place.api, tag, content)}"
        finally:
            place.close()

    def failing(self, rate: float, seed: int) -> AbstractContextManager[FaultyLine]:
        """A line to the registry on which this part of all requests fails."""
        return faulty(self.store.host, rate, seed, self.store.tls)

    @contextmanager
    def refused(self, password: str) -> Iterator[tuple[OciRegistry, str]]:
        """The registry as it is for somebody whom it does not let in, and who that is."""
        settings: dict[str, JsonValue] = {"username": "eve", "password": "env:WRONG"}
        with self.store.lock() if self.store.lock else nullcontext("eve") as who:
            ours = {**self.target.settings, **({} if self.store.lock else settings)}
            target = self.target.model_copy(update={"settings": ours})
            context = RegistryContext(secret=lambda reference: SecretStr(password))
            registry = REGISTRIES.load(target.kind)(target, context)
            try:
                yield registry, who
            finally:
                registry.close()


class RegistrySuite:
    """Tests that need nothing but a world."""

    def test_a_new_repository_is_made_and_is_empty(self, world: RegistryWorld) -> None:
        with world.opened() as registry:
            assert registry.find("latest") is None
            identity = registry.authenticate()
            assert identity.where == registry.host and identity.who
            registry.ensure_repository()
            registry.ensure_repository()
            assert registry.find("latest") is None
            assert registry.authenticate().who == identity.who.removesuffix(", a new repository")

    def test_a_tag_moves_and_moves_back(self, world: RegistryWorld) -> None:
        with world.ready() as registry:
            one = put_image(registry.api, "src-1", b"one")
            two = put_image(registry.api, "src-2", b"two")
            assert registry.tag(one, "latest") is None
            assert registry.tag(one, "latest") == one
            assert registry.tag(two, "latest") == one
            assert world.digest("latest") == registry.find("latest") == two
            for _ in range(2):
                registry.untag("latest", one)
                assert world.digest("latest") == one
            for _ in range(2):
                registry.untag("latest", None)
                assert world.digest("latest") is None
            assert registry.find(one) == registry.find("src-1") == one, "the image itself stays"

    def test_an_index_is_moved_whole(self, world: RegistryWorld) -> None:
        with world.ready() as registry:
            digest = put_index(registry.api, "src-1")
            registry.tag(digest, "latest")
            assert world.digest("latest") == digest
            assert registry.api.manifest("latest").is_index()

    def test_an_image_is_copied_from_elsewhere(self, world: RegistryWorld) -> None:
        with world.origin("1", b"from elsewhere") as reference, world.ready() as registry:
            for _ in range(2):
                image = registry.copy(reference)
                assert image.repository == registry.repository
                assert reference.endswith(image.digest)
            assert world.digest(image.digest) == image.digest

    def test_what_is_not_there_is_said_to_be_missing(self, world: RegistryWorld) -> None:
        missing = f"sha256:{'0' * 64}"
        with world.ready() as registry:
            put_image(registry.api, "src-1", b"one")
            assert registry.find(missing) is None
            with pytest.raises(NotFound):
                registry.tag(missing, "latest")
            with pytest.raises(NotFound):
                registry.copy(f"{world.plain.host}/origin@{missing}")
            assert world.digest("latest") is None

    def test_two_callers_at_once_make_one_repository_and_one_tag(
        self, world: RegistryWorld
    ) -> None:
        errors: list[HelixError] = []
        digests: list[str] = []

        def release() -> None:
            for _ in range(20):
                try:
                    with world.ready() as registry:
                        digest = put_image(registry.api, "src-1", b"one")
                        registry.tag(digest, "latest")
                        digests.append(digest)
                        return
                except HelixError as error:
                    if not error.retryable:
                        errors.append(error)
                        return
                time.sleep(0.02)

        threads = [threading.Thread(target=release) for _ in range(3)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert errors == []
        assert len(digests) == len(threads) and len(set(digests)) == 1
        assert world.digest("latest") == digests[0]

    def test_who_is_refused_learns_by_whom_and_what_to_do(self, world: RegistryWorld) -> None:
        wrong = "canary-wrong-password"
        with world.ready() as registry:
            put_image(registry.api, "src-1", b"one")
        with world.refused(wrong) as (registry, who), pytest.raises(PermissionDenied) as caught:
            registry.authenticate()
        text = str(caught.value)
        assert world.store.host in text and who in text and caught.value.hint
        assert wrong not in text

    @pytest.mark.parametrize(("rate", "seed"), [(0.01, 3), (0.1, 4)])
    async def test_every_push_ends_well_although_calls_fail(
        self,
        world: RegistryWorld,
        skipping: WorkflowEnvironment,
        tmp_path: Path,
        rate: float,
        seed: int,
    ) -> None:
        folder = tmp_path / "worker"
        folder.mkdir()
        with world.failing(rate, seed) as line:
            target = replace(world, host=line.host).target
            instance = Instance(
                project="shop",
                name=world.name,
                target=Target(kind=world.store.kind),
                registry=target,
                health_check=HealthCheck(kind="none"),
            )
            async with pipeline(skipping, folder, SECRETS) as worker:
                for number in range(1, RELEASES + 1):
                    with world.origin(str(number), f"content {number}".encode()) as reference:
                        repository, _, digest = reference.partition("@")
                        image = Image(repository=repository, digest=digest)
                        artifact = Artifact(image=image, tag=f"src-{number}")
                        ended = await worker.deploy(instance, artifact, pushed=False)
                        told = f"{number}: {ended.failure}; injected: {line.injected}"
                        assert ended.outcome is Outcome.SUCCEEDED, told
                        assert world.digest("latest") == world.digest(f"src-{number}") == digest
                lost = Artifact(image=Image(repository=repository, digest=f"sha256:{'0' * 64}"))
                ended = await worker.deploy(instance, lost, pushed=False)
                assert ended.outcome is Outcome.ROLLED_BACK, ended
                assert world.digest("latest") == digest, "no tag was moved"
                await worker.destroy(instance)
            assert world.digest("latest") is None
            assert world.digest(digest) == digest
        assert rate < 0.1 or line.injected, "nothing failed: the test proves nothing"


def a_world(store: Store, plain: TestRegistry) -> RegistryWorld:
    """With a repository of its own."""
    return RegistryWorld(store, plain, f"shop{uuid.uuid4().hex[:8]}")
