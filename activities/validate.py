"""The step `validate`: everything that can be known to fail before anything is changed."""

from __future__ import annotations

from typing import TYPE_CHECKING

from activities.boundary import step_activity
from activities.policy import check_settings
from model.deployment import Trigger
from model.errors import ConfigurationError, HelixError
from model.freeze import frozen
from model.notice import is_url
from model.steps import Validated, ValidateInput

if TYPE_CHECKING:
    from collections.abc import Iterator

    from activities.services import Services
    from model.instance import HealthCheck, Instance
    from model.platform import Capabilities, Revision


class ValidateActivities:
    """Reads only."""

    def __init__(self, services: Services) -> None:
        self._services = services

    @step_activity("validate")
    def validate(self, given: ValidateInput) -> Validated:
        """Check the request, the source, the secrets and the platform; read what runs now.

        Raises:
            Frozen: a freeze window holds.
            PolicyViolation: the instance's policy forbids it.
            ConfigurationError, NotFound, Conflict, QuotaExceeded, PermissionDenied,
            PlatformUnhealthy: nothing was changed.
        """
        request, instance = given.request, given.request.instance
        services = self._services
        note = check_freeze(given, services)
        check_settings(instance, services)
        for reference in {**instance.secrets, **instance.build.secrets}.values():
            services.secret(instance, reference)
        builder = ""
        if request.artifact is None and instance.build.kind != "image":
            from activities.build import check_build

            builder = check_build(request, services)
        with services.provider(instance) as provider:
            check_capabilities(instance, provider.capabilities)
            provider.preflight()
            if (bucket := provider.bucket()) is not None:
                bucket.check()
            previous = provider.current()
            notes = (*note, *provider.context.notes, *self._untellable(instance))
        return Validated(
            queue=services.queue,
            builder=builder,
            previous=previous,
            previous_health=self._health_of(instance, previous),
            notes=notes,
        )

    def _untellable(self, instance: Instance) -> Iterator[str]:
        """Which notifications lack a secret. The deployment does not depend on them."""
        for channel in instance.notifications:
            for reference in (channel.url, channel.secret):
                if not reference or is_url(reference):
                    continue
                try:
                    self._services.secret(instance, reference)
                except HelixError as error:
                    yield f"nobody will be told by «{channel.name}»: {error.message}"

    def _health_of(self, instance: Instance, previous: Revision | None) -> HealthCheck | None:
        """How the previous release was found healthy: the new one may be checked otherwise."""
        record = self._services.ledger.current_release(instance.key)
        if record is None or previous is None or record.progress.revision is None:
            return None
        same = record.progress.revision.is_same(previous)
        return record.request.instance.health_check if same else None


def check_freeze(given: ValidateInput, services: Services) -> tuple[str, ...]:
    """Refuse a deployment that was started while a freeze window holds. A rollback is let through:
    it is what a freeze is for. Returns what a person should know.

    Raises:
        Frozen: until when, and why.
        ConfigurationError: a window's time zone is not known here.
    """
    request = given.request
    if not request.instance.freeze or request.trigger is Trigger.ROLLBACK:
        return ()
    started = services.ledger.get(given.deployment).started_at
    refusal = frozen(request.instance.freeze, started)
    if refusal is None:
        return ()
    if not request.override_freeze:
        raise refusal
    return (f"{refusal.message}; overridden: {request.override_freeze}",)


def check_capabilities(instance: Instance, capabilities: Capabilities) -> None:
    """Refuse what the kind cannot do.

    Raises:
        ConfigurationError: which setting asks for it.
    """
    where = f"[deploy.{instance.name}]"
    takes = "bundle" if instance.build.kind == "bundle" else "image"
    if takes not in capabilities.takes:
        raise ConfigurationError(
            f"the kind «{instance.target.kind}» does not run a {takes}",
            hint=f"choose another build kind in {where}",
        )
    if not capabilities.runtime:
        return  # nothing runs, so nothing needs a volume either
    if instance.volumes and not capabilities.volumes:
        raise ConfigurationError(
            f"the kind «{instance.target.kind}» has no volume that a database can trust",
            hint=f'remove volumes from {where} and add object_storage = "<bucket>": '
            "see docs/concepts/data.md",
        )
    if instance.strategy == "start-first" and instance.single_writer:
        raise ConfigurationError(
            "two releases would have the same data open at once: HelixDB has a single writer",
            hint=f'set strategy = "stop-first" in {where}, or leave it out',
        )
    if instance.strategy == "start-first" and not capabilities.start_first:
        raise ConfigurationError(
            f"the kind «{instance.target.kind}» cannot run two releases side by side",
            hint=f'set strategy = "stop-first" in {where}, or leave it out',
        )
