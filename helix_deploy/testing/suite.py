"""What every provider must do, whatever it runs releases on.

A kind's test module offers a fixture `world` and inherits:

    class TestDocker(ProviderSuite):
        @pytest.fixture
        def world(self) -> Iterator[World]: ...

A kind that cannot do all of it says so in its `capabilities`, and its class names it; what they
exclude is then not among its tests, and what they promise instead is:

    class TestHelix(ProviderSuite, of=HelixCloudProvider): ...
"""

from __future__ import annotations

import itertools
import threading
import uuid
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from datetime import UTC, datetime, timedelta
from typing import Any, ClassVar, TypeVar

import pytest

from helix_deploy.testing.drive import Driver
from model.artifact import Artifact
from model.errors import (
    ConfigurationError,
    Conflict,
    HealthCheckFailed,
    HelixError,
    NothingToRestore,
)
from model.instance import Instance
from model.platform import Capabilities, Phase, Release, Revision
from providers.base import CloudProvider

Case = TypeVar("Case", bound=Callable[..., Any])


def where(**declared: bool) -> Callable[[Case], Case]:
    """A case for the kinds alone whose `capabilities` say this."""

    def mark(case: Case) -> Case:
        case.__dict__["where"] = declared
        return case

    return mark


class Killed(BaseException):
    """The process is gone: nothing may catch this."""


class World(ABC):
    """One platform, and one instance on it that nobody has used yet."""

    patience: float = 4.0
    """Seconds within which the platform runs a tiny release, and finds that one is broken."""

    @abstractmethod
    def instance(self, name: str, behaviour: str = "serve") -> Instance:
        """The instance, configured so that its release answers with `name`.

        Args:
            behaviour: `serve`; or `exit` at once, `hang` without an answer, be `sick` (answer 500).
        """

    @abstractmethod
    def artifact(self, tag: str = "1") -> Artifact:
        """A tiny image that the platform can run; another tag is another image."""

    @abstractmethod
    def provider(self, instance: Instance) -> CloudProvider:
        """A new provider, as another worker would make it."""

    @abstractmethod
    def answer(self) -> str:
        """What the instance's public address answers; empty if nothing does."""

    @abstractmethod
    def running(self) -> list[str]:
        """The deployments whose releases run at this moment."""

    @abstractmethod
    def remains(self) -> list[str]:
        """Everything that is on the platform because of the instance."""

    @abstractmethod
    def kill_after(self, writes: int) -> AbstractContextManager[None]:
        """In this block, right after so many calls that change something, raise `Killed`."""

    @abstractmethod
    def remove(self, revision: Revision) -> None:
        """Remove a revision behind our back."""

    def means(self, handle: str) -> str:
        """What a handle stands for, without what it notes beside that."""
        return handle

    @property
    def driver(self) -> Driver:
        """Deploys here."""
        return Driver(self._open, patience=self.patience)

    def _open(self, release: Release | None) -> CloudProvider:
        return self.provider(release.instance if release else self.instance("r0"))

    @contextmanager
    def opened(self, instance: Instance | None = None) -> Iterator[CloudProvider]:
        """A provider for the block."""
        provider = self.provider(instance or self.instance("r0"))
        try:
            yield provider
        finally:
            provider.close()

    def release(self, number: int, behaviour: str = "serve", tag: str = "1") -> Release:
        """Release `number`, which answers with «r<number>»."""
        return Release(
            number=number,
            deployment=str(uuid.uuid4()),
            instance=self.instance(f"r{number}", behaviour),
            artifact=self.artifact(tag),
        )

    def deployed(self, number: int, tag: str = "1") -> Revision:
        """Deploy a release that works."""
        result = self.driver.deploy(self.release(number, tag=tag))
        assert result.error is None, result.error
        assert result.revision is not None
        return result.revision

    def current(self) -> Revision | None:
        """What the platform says serves."""
        with self.opened() as provider:
            return provider.current()


class ProviderSuite:
    """Tests that need nothing but a world.

    Args:
        of: the kind, if there is something that it cannot do.
    """

    capabilities: ClassVar[Capabilities] = Capabilities()
    """What the cases are chosen by."""

    def __init_subclass__(cls, of: type[CloudProvider] | None = None, **more: Any) -> None:
        super().__init_subclass__(**more)
        if of is not None:
            cls.capabilities = of.capabilities
        for name, declared in cls.cases().items():
            if any(getattr(cls.capabilities, one) is not said for one, said in declared.items()):
                setattr(cls, name, None)

    @classmethod
    def cases(cls) -> dict[str, dict[str, bool]]:
        """The names of the tests, and what each wants a kind's `capabilities` to say."""
        found = {name: getattr(cls, name) for name in dir(cls) if name.startswith("test_")}
        return {name: getattr(case, "where", {}) for name, case in sorted(found.items()) if case}

    def test_the_cases_are_those_of_the_kind(self, world: World) -> None:
        chosen_by = {one for declared in ProviderSuite.cases().values() for one in declared}
        with world.opened() as provider:
            assert {one: getattr(provider.capabilities, one) for one in chosen_by} == {
                one: getattr(self.capabilities, one) for one in chosen_by
            }, f"write: class {type(self).__name__}(ProviderSuite, of={type(provider).__name__})"

    def test_nothing_is_current_before_the_first_release(self, world: World) -> None:
        assert world.current() is None
        assert world.remains() == []

    def test_a_first_and_a_second_release_serve(self, world: World) -> None:
        first = world.deployed(1)
        assert world.answer() == "r1"
        assert world.current() == first

        second = world.deployed(2, tag="2")
        assert world.answer() == "r2"
        assert world.current() == second
        assert (second.release, second.artifact) == (2, world.artifact("2").identity)
        assert world.running() == [second.deployment]

    def test_an_unchanged_release_restarts_nothing(self, world: World) -> None:
        first = world.deployed(1)
        again = world.release(2).model_copy(update={"instance": world.instance("r1")})
        result = world.driver.deploy(again)
        assert result.revision == first
        assert world.running() == [first.deployment]
        assert world.answer() == "r1"

    @where(promotes=True)
    def test_the_previous_release_is_current_until_promote(self, world: World) -> None:
        first = world.deployed(1)
        release = world.release(2)
        with world.opened(release.instance) as provider:
            handle = provider.start(release, first)
            assert provider.current() == first
            world.driver.wait(release, handle)
            world.driver.check(release, handle)
            assert provider.current() == first
            assert len(handle.encode()) <= 2048
            promoted = provider.promote(handle)
            assert provider.current() == promoted
            assert provider.promote(handle) == promoted

    @where(promotes=False)
    def test_a_release_is_current_as_soon_as_it_is_started(self, world: World) -> None:
        first = world.deployed(1)
        release = world.release(2)
        with world.opened(release.instance) as provider:
            handle = provider.start(release, first)
            assert len(handle.encode()) <= 2048
            started = provider.current()
            assert started is not None and started.deployment == release.deployment
            world.driver.wait(release, handle)
            world.driver.check(release, handle)
            for _ in range(2):
                assert provider.promote(handle) == provider.current() == started

    @where(runtime=True)
    @pytest.mark.parametrize("behaviour", ["hang", "sick"])
    def test_an_unhealthy_release_is_replaced_by_the_one_before(
        self, world: World, behaviour: str
    ) -> None:
        self._replaced_by_the_one_before(world, behaviour)

    @where(programs=True)
    def test_a_release_that_exits_is_replaced_by_the_one_before(self, world: World) -> None:
        self._replaced_by_the_one_before(world, "exit")

    def _replaced_by_the_one_before(self, world: World, behaviour: str) -> None:
        first = world.deployed(1)
        result = world.driver.deploy(world.release(2, behaviour))
        assert isinstance(result.error, HealthCheckFailed)
        assert result.restored == first
        assert world.current() == first
        assert world.running() == [first.deployment]
        assert world.answer() == "r1"

    @where(programs=True)
    def test_a_release_that_exits_shows_its_last_words(self, world: World) -> None:
        release = world.release(1, "exit")
        with world.opened(release.instance) as provider:
            handle = provider.start(release, None)
            with pytest.raises(HealthCheckFailed, match="3"):
                world.driver.wait(release, handle)
            rollout = provider.poll(handle)
            assert rollout.phase is Phase.FAILED
            assert "it is broken" in rollout.logs
            assert provider.restore(release.deployment, None) is None

    @where(removes=True, programs=True)
    @pytest.mark.parametrize("behaviour", ["exit", "sick"])
    def test_a_first_release_that_fails_leaves_nothing(self, world: World, behaviour: str) -> None:
        result = world.driver.deploy(world.release(1, behaviour))
        assert isinstance(result.error, HealthCheckFailed)
        assert world.current() is None
        assert [one for one in world.remains() if not self.holds_data(one)] == []

    @where(removes=False)
    def test_a_first_release_that_fails_stays_and_that_is_said(self, world: World) -> None:
        release = world.release(1, "sick")
        with world.opened(release.instance) as provider:
            provider.preflight()
            assert provider.context.notes, "who pushes is told before"
        with pytest.raises(NothingToRestore, match="1") as caught:
            world.driver.deploy(release)
        assert caught.value.hint
        assert world.running() == [release.deployment]

    def holds_data(self, name: str) -> bool:
        """Whether what remains is a volume that a failed release wrote to."""
        return False

    def test_a_promoted_release_can_still_be_undone(self, world: World) -> None:
        first = world.deployed(1)
        second = world.deployed(2)
        release = world.release(2).model_copy(update={"deployment": second.deployment})
        assert world.driver.restore(release, first) == first
        assert world.answer() == "r1"
        assert world.running() == [first.deployment]

    def test_restoring_what_is_gone_says_so(self, world: World) -> None:
        first = world.deployed(1)
        second = world.deployed(2)
        world.remove(first)
        with world.opened() as provider, pytest.raises(NothingToRestore):
            provider.restore(second.deployment, first)

    def test_restoring_what_was_never_started_changes_nothing(self, world: World) -> None:
        first = world.deployed(1)
        with world.opened() as provider:
            handle = provider.restore(str(uuid.uuid4()), first)
            assert handle is not None
            assert provider.poll(handle).phase is Phase.RUNNING
            assert provider.promote(handle) == first
        assert world.answer() == "r1"

    def test_an_old_deployment_cannot_replace_a_newer_one(self, world: World) -> None:
        late = world.release(2)
        third = world.deployed(3)
        with world.opened(late.instance) as provider, pytest.raises(Conflict, match="3"):
            provider.start(late, None)
        assert world.current() == third
        assert world.answer() == "r3"

    def test_two_callers_at_once_make_one_release(self, world: World) -> None:
        first = world.deployed(1)
        release = world.release(2)
        handles: list[str] = []
        errors: list[HelixError] = []

        def start() -> None:
            try:
                handles.append(
                    world.driver.call(release, lambda provider: provider.start(release, first))
                )
            except HelixError as error:
                errors.append(error)

        threads = [threading.Thread(target=start) for _ in range(2)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert [str(error) for error in errors] == []
        assert len({world.means(handle) for handle in handles}) == 1
        world.driver.check(release, handles[0])
        with world.opened(release.instance) as provider:
            provider.promote(handles[0])
        assert world.running() == [release.deployment]
        assert world.answer() == "r2"

    def test_a_deployment_killed_anywhere_is_finished_by_the_next_attempt(
        self, world: World
    ) -> None:
        world.deployed(1)
        numbers = itertools.count(2)

        def attempt(release: Release, previous: Revision | None) -> None:
            with world.opened(release.instance) as provider:
                handle = provider.start(release, previous)
                world.driver.check(release, handle)
                provider.promote(handle)

        def after(release: Release) -> None:
            assert world.running() == [release.deployment]
            assert world.answer() == f"r{release.number}"

        self._killed_everywhere(world, lambda: world.release(next(numbers)), attempt, after)

    @where(runtime=True)
    def test_a_restore_killed_anywhere_is_finished_by_the_next_attempt(self, world: World) -> None:
        first = world.deployed(1)
        numbers = itertools.count(2)

        def half_done() -> Release:
            release = world.release(next(numbers), "hang")
            with world.opened(release.instance) as provider:
                provider.start(release, first)
            return release

        def attempt(release: Release, previous: Revision | None) -> None:
            with world.opened(release.instance) as provider:
                handle = provider.restore(release.deployment, previous)
                assert handle is not None
                world.driver.check(release, handle)
                provider.promote(handle)

        def after(release: Release) -> None:
            assert world.running() == [first.deployment]
            assert world.answer() == "r1"
            assert world.current() == first

        self._killed_everywhere(world, half_done, attempt, after)

    def _killed_everywhere(
        self,
        world: World,
        prepare: Callable[[], Release],
        attempt: Callable[[Release, Revision | None], None],
        after: Callable[[Release], None],
    ) -> None:
        for writes in range(1, 60):
            previous = world.current()
            release = prepare()
            try:
                with world.kill_after(writes):
                    attempt(release, previous)
                assert writes > 1, "nothing was killed"
                return
            except Killed:
                attempt(release, previous)
            after(release)
        raise AssertionError("there is no end to the calls")

    @where(removes=True, runtime=True)
    def test_a_first_deployment_killed_anywhere_can_be_removed(self, world: World) -> None:
        for writes in range(1, 60):
            release = world.release(writes, "hang")
            try:
                with world.kill_after(writes), world.opened(release.instance) as provider:
                    provider.start(release, None)
                done = True
            except Killed:
                done = False
            with world.opened(release.instance) as provider:
                assert provider.restore(release.deployment, None) is None
                assert provider.restore(release.deployment, None) is None
            assert [one for one in world.remains() if not self.holds_data(one)] == []
            if done:
                return

    @where(logs=True)
    def test_logs_are_those_of_the_current_release(self, world: World) -> None:
        world.deployed(1)
        world.deployed(2)
        with world.opened() as provider:
            lines = list(provider.logs())
            assert "starting r2" in lines
            assert list(provider.logs(tail=1)) == lines[-1:]
            later = datetime.now(UTC) + timedelta(hours=1)
            assert list(provider.logs(since=later)) == []
            assert next(provider.logs(follow=True)) == lines[0]

    @where(keeps_revisions=True)
    def test_prune_keeps_what_it_is_told_to_keep(self, world: World) -> None:
        revisions = [world.deployed(number) for number in (1, 2, 3)]
        with world.opened() as provider:
            provider.prune(revisions[1:])
            provider.prune(revisions[1:])
            assert provider.current() == revisions[2]
        release = world.release(3).model_copy(update={"deployment": revisions[2].deployment})
        assert world.driver.restore(release, revisions[1]) == revisions[1]
        with world.opened() as provider, pytest.raises(NothingToRestore):
            provider.restore(str(uuid.uuid4()), revisions[0])
        assert world.answer() == "r2"

    @where(removes=False)
    def test_what_cannot_be_destroyed_is_left_as_it_is_and_that_is_said(self, world: World) -> None:
        first = world.deployed(1)
        for data in (False, True):
            with world.opened() as provider, pytest.raises(ConfigurationError) as caught:
                provider.destroy(data=data)
            assert caught.value.hint
        assert world.current() == first
        assert world.answer() == "r1"

    @where(removes=True)
    def test_destroy_leaves_nothing_and_can_be_repeated(self, world: World) -> None:
        world.deployed(1)
        world.deployed(2)
        for _ in range(2):
            with world.opened() as provider:
                provider.destroy(data=True)
        assert world.remains() == []
        assert world.answer() == ""
        assert world.current() is None

    def test_the_platform_says_who_we_are(self, world: World) -> None:
        with world.opened() as provider:
            provider.preflight()
            identity = provider.identity()
        assert identity.where
        assert identity.who
