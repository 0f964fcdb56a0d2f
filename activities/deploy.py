"""The step `deploy`, and its undo: releases start, get the traffic, and come back."""

from __future__ import annotations

from typing import TYPE_CHECKING

from activities import beat
from activities.boundary import step_activity
from model.errors import HealthCheckFailed, HelixError
from model.platform import Phase, Revision, Rollout
from model.steps import (
    DestroyInput,
    HandleInput,
    Promoted,
    PruneInput,
    ReleaseInput,
    RestoreInput,
)

if TYPE_CHECKING:
    from activities.services import Services
    from providers.base import CloudProvider

POLL_SECONDS = 0.25


def look(provider: CloudProvider, handle: str) -> Rollout:
    """What the platform says of the revision. A call that may succeed if it is made again counts
    as «still starting»: looking is free, so it costs no attempt of the activity."""
    try:
        return provider.poll(handle)
    except HelixError as error:
        if not error.retryable:
            raise
        return Rollout(phase=Phase.STARTING, detail=f"no word of it right now: {error.message}")


class DeployActivities:
    """Every change carries the deployment's id, so a repeated call finds its own half-done work."""

    def __init__(self, services: Services) -> None:
        self._services = services

    @step_activity("start_release")
    def start_release(self, given: ReleaseInput) -> str:
        """Begin to run the release. Returns the provider's handle."""
        with self._services.provider(given.release.instance) as provider:
            if (bucket := provider.bucket()) is not None:
                bucket.ensure()
            return provider.start(given.release, given.previous)

    @step_activity("await_release")
    def await_release(self, given: HandleInput) -> None:
        """Wait until the platform itself says that the release runs.

        Raises:
            HealthCheckFailed: it failed, with its last log lines.
        """
        with self._services.provider(given.instance) as provider:
            while (rollout := look(provider, given.handle)).phase is not Phase.RUNNING:
                if rollout.phase is Phase.FAILED:
                    raise HealthCheckFailed(
                        f"the release did not start: {rollout.detail}",
                        hint=f"read its output: helix logs {given.instance.name}",
                        evidence=rollout.logs,
                    )
                beat.report(rollout.detail or "starting")
                beat.pause(POLL_SECONDS)

    @step_activity("promote_release")
    def promote_release(self, given: HandleInput) -> Promoted:
        """Give the release all traffic."""
        with self._services.provider(given.instance) as provider:
            revision = provider.promote(given.handle)
            return Promoted(revision=revision, url=provider.public_url())

    @step_activity("restore_release")
    def restore_release(self, given: RestoreInput) -> str:
        """Undo what the deployment started. Returns the previous revision's handle, or nothing."""
        with self._services.provider(given.instance) as provider:
            return provider.restore(given.deployment, given.previous) or ""

    @step_activity("prune")
    def prune(self, given: PruneInput) -> None:
        """Remove the revisions that no rollback can ask for any more."""
        instance = given.instance
        kept: list[Revision] = []
        for record in self._services.ledger.releases(instance.key):
            revision = record.progress.revision
            if revision is None or record.retired:
                continue
            if len(kept) < instance.keep_releases:
                kept.append(revision)
            else:
                self._services.ledger.mark_retired(record.deployment)
        with self._services.provider(instance) as provider:
            provider.prune(kept)

    @step_activity("destroy")
    def destroy(self, given: DestroyInput) -> None:
        """Remove the instance from its platform; its data only if that was asked for."""
        with self._services.provider(given.instance) as provider:
            provider.destroy(data=given.data)
            if given.data and (bucket := provider.bucket()) is not None:
                bucket.remove()
