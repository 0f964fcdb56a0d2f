"""Google's APIs for one activity: clients, credentials, and one way to call.

The SDK's own retries are off, every call has a time limit, and none of the SDK's errors gets out.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from functools import cache, cached_property
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import google.auth
import grpc
from google.api_core.client_options import ClientOptions
from google.api_core.exceptions import GoogleAPIError
from google.auth.exceptions import GoogleAuthError
from google.auth.transport.requests import Request
from google.cloud.logging_v2.services.logging_service_v2 import LoggingServiceV2Client
from google.cloud.run_v2 import RevisionsClient, ServicesClient
from google.cloud.secretmanager_v1 import SecretManagerServiceClient
from google.oauth2 import id_token

from model.errors import ConfigurationError, HelixError
from model.gcp_errors import translate

if TYPE_CHECKING:
    from google.cloud.storage import Client

SCOPE = "https://www.googleapis.com/auth/cloud-platform"
TIMEOUT = 9.0
"""Seconds one call may take."""
LOOPBACK = {"127.0.0.1", "localhost", "::1"}


class Api:
    """Opens clients when they are first used, and closes them all.

    Args:
        endpoint: another address for all of Google's APIs: host[:port]. `http://` before it means a
            stand-in on loopback, without TLS and credentials. None: each API's own.
    """

    def __init__(self, endpoint: str | None) -> None:
        self._endpoint = endpoint
        self._channels: list[grpc.Channel] = []
        self.plain = bool(endpoint and endpoint.startswith("http://"))
        if self.plain and urlsplit(endpoint or "").hostname not in LOOPBACK:
            raise ConfigurationError(
                f"the endpoint {endpoint} has no TLS and is not on this machine",
                hint="write the host alone: its connection is encrypted",
            )

    @cached_property
    def services(self) -> ServicesClient:
        """Cloud Run's services."""
        client: ServicesClient = self._client(ServicesClient)
        return client

    @cached_property
    def revisions(self) -> RevisionsClient:
        """Cloud Run's revisions."""
        client: RevisionsClient = self._client(RevisionsClient)
        return client

    @cached_property
    def secrets(self) -> SecretManagerServiceClient:
        """Secret Manager."""
        client: SecretManagerServiceClient = self._client(SecretManagerServiceClient)
        return client

    @cached_property
    def logs(self) -> LoggingServiceV2Client:
        """Cloud Logging."""
        client: LoggingServiceV2Client = self._client(LoggingServiceV2Client)
        return client

    @cached_property
    def storage(self) -> Callable[[str], Client]:
        """Cloud Storage's client for a project; `STORAGE_EMULATOR_HOST`, which the SDK knows,
        sends it elsewhere."""

        @cache
        def open_client(project: str) -> Client:
            from google.cloud.storage import Client

            own: Any = _anonymous() if self.plain else self._credentials
            return Client(project=project, credentials=own)

        return open_client

    def call(
        self, method: Callable[..., Any], request: Any, doing: str, *, reads: bool = False
    ) -> Any:
        """Make one call; a paged answer is read to its end.

        Args:
            doing: the permission it needs, for error messages.
            reads: it changes nothing.

        Raises:
            HelixError: by the tables of `model.gcp_errors`.
        """
        try:
            answer = method(request=request, retry=None, timeout=TIMEOUT)
            return list(answer) if hasattr(answer, "pages") else answer
        except (GoogleAPIError, GoogleAuthError, grpc.RpcError) as error:
            raise translate(error, doing, reads=reads) from None

    def read(self, method: Callable[..., Any], request: Any, doing: str) -> Any:
        """`call` for what changes nothing."""
        return self.call(method, request, doing, reads=True)

    def page(self, method: Callable[..., Any], request: Any, doing: str) -> Any:
        """`read`, but of a paged answer only the first page."""

        def first(**arguments: Any) -> Any:
            return next(iter(method(**arguments).pages))

        return self.read(first, request, doing)

    def who(self) -> tuple[str, datetime | None]:
        """Whose credentials these are, and until when the token they gave is good.

        Raises:
            PermissionDenied, AuthExpired: there are none, or they give no token.
        """
        if self.plain:
            return "anonymous", None
        try:
            self._credentials.refresh(Request())
        except GoogleAuthError as error:
            raise translate(error, "log in to Google Cloud") from None
        names = ("service_account_email", "account", "signer_email")
        found = (getattr(self._credentials, name, "") for name in names)
        federation = (getattr(self._credentials, "info", None) or {}).get("audience")
        who = next(filter(None, found), federation or type(self._credentials).__name__)
        expiry: datetime | None = getattr(self._credentials, "expiry", None)
        return who, expiry.replace(tzinfo=UTC) if expiry else None

    def id_token(self, audience: str) -> str | None:
        """A token that proves to a private service who calls; None if the credentials give none,
        such as those of a person."""
        try:
            credentials = id_token.fetch_id_token_credentials(  # type: ignore[no-untyped-call]
                audience, request=Request()
            )
            credentials.refresh(Request())
        except (GoogleAuthError, ValueError):
            return None
        token: str | None = credentials.token
        return token

    def close(self) -> None:
        """Give back all connections."""
        for name in ("services", "revisions", "secrets", "logs"):
            if name in self.__dict__:
                self.__dict__[name].transport.close()
        for channel in self._channels:
            channel.close()

    @cached_property
    def _credentials(self) -> Any:
        try:
            credentials, _ = google.auth.default(scopes=[SCOPE])
        except GoogleAuthError as error:
            raise translate(error, "log in to Google Cloud") from None
        return credentials

    def _client(self, cls: Any) -> Any:
        try:
            if self.plain:
                channel = grpc.insecure_channel(urlsplit(self._endpoint or "").netloc)
                self._channels.append(channel)
                return cls(transport=cls.get_transport_class("grpc")(channel=channel))
            options = ClientOptions(api_endpoint=self._endpoint) if self._endpoint else None
            return cls(credentials=self._credentials, client_options=options)
        except HelixError:
            raise
        except (GoogleAPIError, GoogleAuthError) as error:
            raise translate(error, "connect to Google Cloud") from None


def _anonymous() -> Any:
    from google.auth.credentials import AnonymousCredentials

    return AnonymousCredentials()  # type: ignore[no-untyped-call]
