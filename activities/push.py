"""The step `push`: the artifact goes to the registry, and is read back by its digest."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from activities import beat
from activities.boundary import step_activity
from model.artifact import Artifact
from model.errors import ConfigurationError, PlatformUnhealthy
from model.steps import PushInput

if TYPE_CHECKING:
    from activities.services import Services
    from model.deployment import DeployRequest
    from registries.base import Registry


class PushActivities:
    """Content-addressed, so a second push of the same image moves nothing."""

    def __init__(self, services: Services) -> None:
        self._services = services

    @step_activity("push")
    def push(self, given: PushInput) -> Artifact:
        """Store the artifact's image in the instance's registry.

        Returns:
            The artifact, its image by the digest that was read back.

        Raises:
            PermissionDenied, AuthExpired, QuotaExceeded, Transient, PlatformUnhealthy.
        """
        from registries.push import push_from_engine

        artifact, image = given.artifact, given.artifact.image
        with self._services.registry(given.request.instance) as registry:
            if registry is None or image is None:
                raise ConfigurationError("there is no image to push, or no registry to push it to")
            registry.ensure_repository()
            if image.digest and image.repository != registry.repository:
                with self._origin(given.request) as origin:
                    pushed = registry.copy(image.reference, origin)
                registry.tag(pushed.digest, artifact.tag)
            elif image.digest and registry.find(image.digest):
                pushed = image
                registry.tag(image.digest, artifact.tag)
            else:
                pushed = push_from_engine(registry, None, image, artifact.tag, beat.report)
            if not pushed.digest:
                raise PlatformUnhealthy(f"{registry.host} took the image but names no digest")
        return artifact.model_copy(update={"image": pushed})

    @contextmanager
    def _origin(self, request: DeployRequest) -> Iterator[Registry | None]:
        """The registry that a promoted image lies in, opened with its instance's own login."""
        if request.origin is None:
            yield None
            return
        with self._services.registry(request.origin.instance) as origin:
            yield origin
