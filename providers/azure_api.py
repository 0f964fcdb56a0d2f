"""Azure Resource Manager for one activity: clients, credentials, and one way to call.

The SDK's own retries are off, every call has a time limit, and none of the SDK's errors gets out.
Nor does the SDK register a resource provider by itself, as it would: that changes a subscription,
and waits for minutes.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime
from functools import cached_property
from typing import Any
from urllib.parse import quote, urlsplit

from azure.core.credentials import AccessToken
from azure.core.exceptions import AzureError
from azure.core.paging import ItemPaged
from azure.core.pipeline import policies
from azure.core.rest import HttpRequest
from azure.core.settings import settings
from azure.identity import DefaultAzureCredential
from azure.mgmt.appcontainers import ContainerAppsAPIClient
from azure.mgmt.core import ARMPipelineClient
from azure.mgmt.core.policies import ARMChallengeAuthenticationPolicy
from azure.mgmt.core.tools import get_arm_endpoints

from model.azure_errors import translate
from model.errors import ConfigurationError, HelixError
from model.tokens import entra_name

CONNECT_TIMEOUT, READ_TIMEOUT = 5.0, 30.0
"""Seconds for one call: until there is a connection, and between two pieces of the answer."""
POLL_SECONDS = 1.0
"""Between two looks at a change, where Azure does not say how long to wait."""
PERMISSIONS_VERSION = "2022-04-01"
"""The version of Microsoft.Authorization's API."""


class Api:
    """Opens what is used, and closes it all.

    Args:
        subscription: its id.
        endpoint: another address of Azure Resource Manager, with https://; None: the cloud's own.

    Raises:
        ConfigurationError: the endpoint would send a token in the clear.
    """

    def __init__(self, subscription: str, endpoint: str | None) -> None:
        if endpoint and urlsplit(endpoint).scheme != "https":
            raise ConfigurationError(
                f"the endpoint {endpoint} of Azure has no TLS",
                hint="write https:// before it; REQUESTS_CA_BUNDLE names a private authority",
            )
        self._subscription = subscription
        self._endpoint = endpoint

    @cached_property
    def client(self) -> ContainerAppsAPIClient:
        """Container Apps."""
        return ContainerAppsAPIClient(
            self._credential,
            self._subscription,
            base_url=self._endpoint,
            policies=self._policies(),
            polling_interval=POLL_SECONDS,
            **self._timeouts,
        )

    def call(
        self,
        method: Callable[..., Any],
        *arguments: Any,
        doing: str,
        reads: bool = False,
        **more: Any,
    ) -> Any:
        """Make one call; a paged answer is read to its end.

        Args:
            doing: the permission it needs, for error messages.
            reads: it changes nothing.

        Raises:
            HelixError: by the tables of `model.azure_errors`.
        """

        def work() -> Any:
            answer = method(*arguments, **more)
            return list(answer) if isinstance(answer, ItemPaged) else answer

        return self._translated(work, doing, reads=reads)

    def read(self, method: Callable[..., Any], *arguments: Any, doing: str) -> Any:
        """`call` for what changes nothing."""
        return self.call(method, *arguments, doing=doing, reads=True)

    def finish(
        self, method: Callable[..., Any], *arguments: Any, doing: str, report: Callable[[], None]
    ) -> None:
        """Begin a change, and wait for the platform's word on it. How to go on with it is known to
        this process alone: the SDK's token for that holds the whole answer.

        Args:
            report: called again and again; may raise to give up the wait.

        Raises:
            HelixError: also for a change that fails, which Azure says with HTTP 200.
        """
        poller = self.call(method, *arguments, doing=doing)
        while not poller.done():
            report()
            self._translated(lambda: poller.wait(0.5), doing)
        self._translated(poller.result, doing)

    def who(self) -> tuple[str, datetime | None]:
        """Whose credentials these are, and until when the token they gave is good.

        Raises:
            PermissionDenied, AuthExpired: there are none, or they give no token.
        """
        token: AccessToken = self._translated(
            lambda: self._credential.get_token(*self._scopes), "log in to Azure", reads=True
        )
        return entra_name(token.token), datetime.fromtimestamp(token.expires_on, UTC)

    def allowed(self, scope: str) -> list[tuple[list[str], list[str]]]:
        """What the credentials may do at a scope: pairs of actions and of what is excepted.

        Args:
            scope: the path of a resource group, or of a resource.
        """
        url = (
            f"{quote(scope)}/providers/Microsoft.Authorization/permissions"
            f"?api-version={PERMISSIONS_VERSION}"
        )

        def work() -> Any:
            request = HttpRequest("GET", self._raw.format_url(url))
            response = self._raw.send_request(request)
            response.raise_for_status()
            return response.json()

        found = self._translated(work, "Microsoft.Authorization/permissions/read", reads=True)
        return [(one.get("actions", []), one.get("notActions", [])) for one in found["value"]]

    def close(self) -> None:
        """Give back all connections."""
        for name in ("client", "_raw", "_credential"):
            if name in self.__dict__:
                with suppress(AzureError):
                    self.__dict__[name].close()

    @cached_property
    def _raw(self) -> ARMPipelineClient[HttpRequest, Any]:
        base = self._endpoint or str(self._cloud["resource_manager"])
        return ARMPipelineClient(base_url=base, policies=self._policies(), **self._timeouts)

    @cached_property
    def _credential(self) -> DefaultAzureCredential:
        return DefaultAzureCredential()

    @property
    def _cloud(self) -> dict[str, Any]:
        return get_arm_endpoints(settings.azure_cloud())

    @property
    def _scopes(self) -> list[str]:
        return list(self._cloud["credential_scopes"])

    @property
    def _timeouts(self) -> dict[str, Any]:
        return {"connection_timeout": CONNECT_TIMEOUT, "read_timeout": READ_TIMEOUT}

    def _policies(self) -> list[Any]:
        return [
            policies.RequestIdPolicy(),
            policies.HeadersPolicy(),
            policies.UserAgentPolicy(sdk_moniker="helix-deploy"),
            policies.ContentDecodePolicy(),
            policies.RetryPolicy.no_retries(),
            ARMChallengeAuthenticationPolicy(self._credential, *self._scopes),
            policies.DistributedTracingPolicy(),
        ]

    @staticmethod
    def _translated(work: Callable[[], Any], doing: str, *, reads: bool = False) -> Any:
        try:
            return work()
        except HelixError:
            raise
        except AzureError as error:
            raise translate(error, doing, reads=reads) from None
