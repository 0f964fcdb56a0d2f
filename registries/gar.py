"""The `gar` kind: Google's Artifact Registry."""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from functools import cached_property
from typing import Any, ClassVar
from urllib.parse import urlsplit

import google.auth
import grpc
from google.api_core.client_options import ClientOptions
from google.api_core.exceptions import GoogleAPIError
from google.auth.exceptions import GoogleAuthError
from google.auth.transport.requests import Request
from google.cloud import artifactregistry_v1 as ar
from pydantic import BaseModel, SecretStr

from model.errors import Busy, ConfigurationError, Conflict, NotFound, PermissionDenied
from model.gcp_errors import translate
from model.platform import Identity
from registries.base import Credentials
from registries.oci import OciRegistry, OciSettings
from registries.reference import is_loopback

USER = "oauth2accesstoken"
"""The user name that says: the password is an access token."""
SCOPE = "https://www.googleapis.com/auth/cloud-platform"
TIMEOUT = 9.0
"""Seconds one call may take."""
MARGIN = timedelta(minutes=5)
"""How long before its end a token is replaced."""
READY_SECONDS = 20.0
"""How long a new repository may take before the attempt ends; the next one goes on waiting."""
LOOK_SECONDS = 0.5
NAME = re.compile(r"(?P<location>[a-z0-9-]+)-docker\.pkg\.dev/(?P<project>[^/]+)/(?P<id>[^/]+)/.+")
"""<location>-docker.pkg.dev/<project>/<repository>/<image>."""


class GarSettings(OciSettings):
    """What the registry's table may say besides kind and repository."""

    endpoint: str | None = None
    """Another address of the Artifact Registry API; with http:// before it a stand-in on
    loopback, without TLS and credentials."""


class GarRegistry(OciRegistry):
    """One repository of Artifact Registry, created by the first push.

    The password is an access token of Google's default credentials, unless the settings name a
    user.
    """

    kind: ClassVar[str] = "gar"
    Settings: ClassVar[type[BaseModel]] = GarSettings
    denied_hint: ClassVar[str] = (
        "it takes roles/artifactregistry.writer on the repository: see docs/providers/gar.md"
    )

    settings: GarSettings

    def _repository(self) -> str:
        name = self.target.repository
        if not NAME.fullmatch(name):
            raise ConfigurationError(
                f"«{name}» is no repository of Artifact Registry",
                hint="write <location>-docker.pkg.dev/<project>/<repository>/<image>",
            )
        return name

    @cached_property
    def parent(self) -> str:
        """projects/…/locations/… of the repository."""
        part = self._parts
        return f"projects/{part['project']}/locations/{part['location']}"

    @cached_property
    def name(self) -> str:
        """The repository as Google's API names it."""
        return f"{self.parent}/repositories/{self._parts['id']}"

    @cached_property
    def _parts(self) -> dict[str, str]:
        found = NAME.fullmatch(self.target.repository)
        assert found is not None  # _repository has checked it
        return found.groupdict()

    def authenticate(self) -> Identity:
        """As any registry, once the repository is there: to a stranger and for a missing one the
        registry gives the same answer. Before that, only the token is looked at."""
        credentials = self.credentials()
        if self._exists():
            identity = super().authenticate()
        else:
            who = credentials.username if credentials else "anonymous"
            identity = Identity(where=self.host, who=f"{who}, a new repository")
        if self.settings.username:
            return identity
        return identity.model_copy(update={"who": self._who(), "expires_at": self._expiry()})

    def credentials(self) -> Credentials | None:
        """An access token, good for an hour."""
        if self.settings.username:
            return super().credentials()
        end = self._expiry()
        if not self._google.token or (end is not None and end - MARGIN < datetime.now(UTC)):
            self._translated(lambda: self._google.refresh(Request()), "log in to Google Cloud")
        return Credentials(USER, SecretStr(self._google.token))

    def ensure_repository(self) -> None:
        """Create the repository if it is missing. Another caller may do the same at once.

        Raises:
            PermissionDenied: it is missing, and these credentials may not create it.
            Busy: Google is still at it.
        """
        if self._exists():
            return
        request = ar.CreateRepositoryRequest(
            parent=self.parent,
            repository_id=self._parts["id"],
            repository=ar.Repository(
                format_=ar.Repository.Format.DOCKER, labels={"managed-by": "helix-deploy"}
            ),
        )
        try:
            self._call("create_repository", request, "artifactregistry.repositories.create")
        except Conflict:
            pass  # another caller was faster, or the answer to our own call was lost
        except PermissionDenied as error:
            part = self._parts
            raise PermissionDenied(
                error.message,
                hint="let somebody who may create it: gcloud artifacts repositories create "
                f"{part['id']} --repository-format=docker --location={part['location']} "
                f"--project={part['project']}",
                request_id=error.request_id,
            ) from None
        end = time.monotonic() + READY_SECONDS
        while not self._exists():
            if time.monotonic() > end:
                raise Busy(f"the repository {self.name} is still being created")
            self.context.report("creating the repository", 0, 0)
            time.sleep(LOOK_SECONDS)

    def find(self, reference: str) -> str | None:
        """None too where there is no repository yet, whatever the registry says to that."""
        try:
            return super().find(reference)
        except (NotFound, PermissionDenied):
            if not self._exists():
                return None
            raise

    def close(self) -> None:
        super().close()
        if "_client" in self.__dict__:
            transport: Any = self._client.transport
            transport.close()

    # Google ---------------------------------------------------------------------------------------

    def _exists(self) -> bool:
        request = ar.GetRepositoryRequest(name=self.name)
        try:
            found = self._call(
                "get_repository", request, "artifactregistry.repositories.get", reads=True
            )
        except NotFound:
            return False
        if found.format_ not in (
            ar.Repository.Format.DOCKER,
            ar.Repository.Format.FORMAT_UNSPECIFIED,
        ):
            raise ConfigurationError(
                f"the repository {self.name} stores {found.format_.name.lower()} packages",
                hint="name another repository: one of format docker",
            )
        return True

    def _who(self) -> str:
        names = ("service_account_email", "account", "signer_email")
        found = (getattr(self._google, name, "") for name in names)
        return next((name for name in found if name), type(self._google).__name__)

    def _expiry(self) -> datetime | None:
        end: datetime | None = self._google.expiry
        return end.replace(tzinfo=UTC) if end is not None else None

    @cached_property
    def _google(self) -> Any:
        credentials, _ = self._translated(
            lambda: google.auth.default(scopes=[SCOPE]), "log in to Google Cloud"
        )
        return credentials

    @cached_property
    def _client(self) -> ar.ArtifactRegistryClient:
        endpoint = self.settings.endpoint
        if endpoint and endpoint.startswith("http://"):
            place = urlsplit(endpoint).netloc
            if not is_loopback(place):
                raise ConfigurationError(
                    f"the endpoint {endpoint} has no TLS and is not on this machine",
                    hint="write the host alone: its connection is encrypted",
                )
            kind = ar.ArtifactRegistryClient.get_transport_class("grpc")
            return ar.ArtifactRegistryClient(transport=kind(channel=grpc.insecure_channel(place)))
        options = ClientOptions(api_endpoint=endpoint) if endpoint else None
        return ar.ArtifactRegistryClient(credentials=self._google, client_options=options)

    def _call(self, method: str, request: object, doing: str, *, reads: bool = False) -> Any:
        def work() -> Any:
            return getattr(self._client, method)(request=request, retry=None, timeout=TIMEOUT)

        return self._translated(work, doing, reads=reads)

    @staticmethod
    def _translated(work: Callable[[], Any], doing: str, *, reads: bool = False) -> Any:
        try:
            return work()
        except (GoogleAPIError, GoogleAuthError, grpc.RpcError) as error:
            raise translate(error, doing, reads=reads) from None
