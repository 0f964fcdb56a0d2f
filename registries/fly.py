"""The `fly` kind: Fly.io's own registry, in which every app has one repository."""

from __future__ import annotations

import os
from functools import cached_property
from typing import Any, ClassVar, Literal

import httpx
from pydantic import BaseModel, Field, SecretStr

from model.errors import Conflict, NotFound, PermissionDenied
from model.fly import (
    API_ADDRESS,
    API_VARIABLE,
    REGISTRY_VARIABLE,
    authorization,
    fly_token,
)
from model.platform import Identity
from registries.base import Credentials
from registries.errors import from_response, from_transport
from registries.oci import OciRegistry, OciSettings

USER = "x"
"""Fly's registry takes any name; flyctl sends this one."""
TIMEOUT = httpx.Timeout(9, connect=5)


class FlyRegistrySettings(OciSettings):
    """What the registry needs of `[cloud.<instance>.fly]`."""

    auth_type: Literal["Cli", "ApiKey"] = "Cli"
    token: str | None = None
    """A secret reference."""
    org: str | None = None
    """The organisation of a new app; personal if None."""
    registry_host: str | None = Field(default_factory=lambda: os.environ.get(REGISTRY_VARIABLE))


class FlyRegistry(OciRegistry):
    """registry.fly.io/<app>: the token is the password. The repository is there once the app is."""

    kind: ClassVar[str] = "fly"
    Settings: ClassVar[type[BaseModel]] = FlyRegistrySettings
    denied_hint: ClassVar[str] = (
        "the token must be allowed to deploy this app: fly tokens create deploy --app <app>"
    )

    settings: FlyRegistrySettings

    @cached_property
    def token(self) -> SecretStr:
        return fly_token(self.settings.auth_type, self.settings.token, self.context.secret)

    @property
    def app(self) -> str:
        """The app whose repository it is."""
        return self.reference.path.split("/")[0]

    def credentials(self) -> Credentials | None:
        return super().credentials() if self.settings.username else Credentials(USER, self.token)

    def authenticate(self) -> Identity:
        """As any registry, once the app is there. Before that, the token itself is looked at."""
        if self._call("GET", f"/apps/{self.app}").status_code != 404:
            return super().authenticate()
        answer = self._call("GET", "/tokens/current")
        if answer.is_error:
            raise from_response(answer, "ask Fly.io whose token it is")
        return Identity(where=self.host, who=f"a new app {self.app}")

    def ensure_repository(self) -> None:
        """Create the app, and with it the repository, if there is none.

        Raises:
            Conflict: another organisation has an app of this name.
        """
        answer = self._call("GET", f"/apps/{self.app}")
        if answer.status_code == 404:
            body = {"name": self.app, "org_slug": self.settings.org or "personal"}
            answer = self._call("POST", "/apps", body)
            if answer.status_code == 422 and "taken" in answer.text:
                raise Conflict(
                    f"the app «{self.app}» exists, and this token may not see it",
                    hint="app names are shared by all of Fly.io: rename the instance, or use a "
                    "token of the organisation that has the app",
                    request_id=answer.headers.get("fly-request-id", ""),
                )
        if answer.is_error:
            raise from_response(answer, f"create the app {self.app}")

    def find(self, reference: str) -> str | None:
        """None too where there is no app yet, whatever the registry says to that."""
        try:
            return super().find(reference)
        except (NotFound, PermissionDenied):
            if self._call("GET", f"/apps/{self.app}").status_code == 404:
                return None
            raise

    def _call(self, method: str, path: str, body: dict[str, Any] | None = None) -> httpx.Response:
        base = os.environ.get(API_VARIABLE, API_ADDRESS).rstrip("/")
        try:
            return httpx.request(
                method,
                f"{base}/v1{path}",
                json=body,
                headers={"authorization": authorization(self.token)},
                timeout=TIMEOUT,
            )
        except (httpx.TransportError, httpx.InvalidURL) as error:
            raise from_transport(error, base) from None
