"""Drives a provider through a deployment as the workflow does, without Temporal around it.

Every call is made by a provider of its own, as by another worker, and repeated where the class of
its error says that this may help.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

from activities.health_check import probe_for
from model.errors import HealthCheckFailed, HelixError, NothingToRestore
from model.platform import Phase, Release, Revision
from providers.base import CloudProvider

T = TypeVar("T")

ATTEMPTS = 40
PAUSE = 0.01
"""Seconds between attempts and between looks; what a platform asks for is not waited for."""


@dataclass
class Result:
    """How a deployment ended."""

    revision: Revision | None
    """What it promoted; None if it failed."""
    error: HelixError | None = None
    previous: Revision | None = None
    restored: Revision | None = None


@dataclass
class Driver:
    """Deploys to what `provider` opens."""

    provider: Callable[[Release | None], CloudProvider]
    patience: float = 5.0
    """Seconds to wait for a release to run, and to be healthy."""

    def call(
        self,
        release: Release | None,
        work: Callable[[CloudProvider], T],
        retry: Callable[[HelixError], bool] = lambda error: error.retryable,
    ) -> T:
        """One activity: tried until it succeeds or cannot."""
        for attempt in range(ATTEMPTS):
            provider = self.provider(release)
            try:
                return work(provider)
            except HelixError as error:
                if not retry(error) or attempt == ATTEMPTS - 1:
                    raise
            finally:
                provider.close()
            time.sleep(PAUSE)
        raise AssertionError("not reached")

    def deploy(self, release: Release) -> Result:
        """As `workflows.deploy` does it, the way back included."""
        self.call(release, lambda one: one.preflight())
        previous = self.call(release, lambda one: one.current())
        try:
            handle = self.call(release, lambda one: one.start(release, previous))
            self.wait(release, handle)
            self.check(release, handle)
        except HelixError as error:
            return Result(None, error, previous, self.restore(release, previous))
        return Result(self.call(release, lambda one: one.promote(handle)), previous=previous)

    def wait(self, release: Release, handle: str) -> None:
        """`await_release`."""
        end = time.monotonic() + self.patience
        while True:
            rollout = self.call(release, lambda one: one.poll(handle))
            if rollout.phase is Phase.RUNNING:
                return
            if rollout.phase is Phase.FAILED or time.monotonic() > end:
                raise HealthCheckFailed(rollout.detail, evidence=rollout.logs)
            time.sleep(PAUSE)

    def check(self, release: Release, handle: str) -> None:
        """`check_health`."""
        check = release.instance.health_check
        runs = self.call(release, lambda one: one.capabilities.runtime)
        if check.kind == "none" or not runs:
            return
        end = time.monotonic() + self.patience
        while wrong := self.call(release, lambda one: probe_for(check, one, handle)()):
            if time.monotonic() > end:
                raise HealthCheckFailed(wrong)
            time.sleep(PAUSE)

    def restore(self, release: Release, previous: Revision | None) -> Revision | None:
        """The compensation: tried through everything but a lack of something to restore."""

        def again(error: HelixError) -> bool:
            return not isinstance(error, NothingToRestore)

        handle = self.call(release, lambda one: one.restore(release.deployment, previous), again)
        if handle is None:
            return None
        self.wait(release, handle)
        return self.call(release, lambda one: one.promote(handle), again)
