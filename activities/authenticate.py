"""The step `authenticate`: are our credentials good, whose are they, and until when?"""

from __future__ import annotations

from typing import TYPE_CHECKING

from activities.boundary import step_activity
from model.steps import AuthenticateInput, Identities

if TYPE_CHECKING:
    from activities.services import Services


class AuthenticateActivities:
    """Reads only. The credentials themselves stay on the worker: each later step gets its own."""

    def __init__(self, services: Services) -> None:
        self._services = services

    @step_activity("authenticate")
    def authenticate(self, given: AuthenticateInput) -> Identities:
        """Ask the registry and the platform who we are.

        Raises:
            PermissionDenied: which one refuses us, and what it wants.
            Transient: one of them does not answer.
        """
        instance = given.request.instance
        identities = []
        with self._services.registry(instance) as registry:
            if registry is not None:
                identities.append(registry.authenticate())
        with self._services.provider(instance) as provider:
            identities.append(provider.identity())
        return Identities(identities=tuple(identities))
