"""The `acr` kind: Azure Container Registry.

Entra's token is exchanged at the registry itself for one of its own («ACR and Entra», the pages of
azure.github.io/acr/AAD-OAuth): `POST /oauth2/exchange` gives a refresh token, which is the password
of the user 00000000-0000-0000-0000-000000000000, as `az acr login` uses it. The SDK shows that to
nobody, and the engine needs it, so this is done by hand; ACR's own calls are the SDK's.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from functools import cached_property
from typing import Any, ClassVar

import httpx
from azure.containerregistry import ContainerRegistryClient
from azure.core.exceptions import AzureError
from azure.identity import DefaultAzureCredential
from pydantic import SecretStr

from model.azure_errors import translate
from model.errors import ConfigurationError, PermissionDenied
from model.platform import Identity
from model.tokens import claims, entra_name
from registries.base import Credentials
from registries.distribution import TIMEOUT, tls_context
from registries.errors import from_response, from_transport
from registries.oci import OciRegistry

USER = "00000000-0000-0000-0000-000000000000"
"""The user name that says: the password is a refresh token."""
AUDIENCE = "https://containerregistry.azure.net"
SCOPE = f"{AUDIENCE}/.default"
MARGIN = timedelta(minutes=5)
"""How long before its end a token is replaced."""
LIFE = timedelta(hours=1)
"""How long a token is used that does not say when it ends; Azure's live for three hours."""
NAME = re.compile(r"(?P<registry>[a-z0-9-]{5,64}\.azurecr\.(?:io|cn|us))/.+")
"""<registry>.azurecr.io/<name>."""


class AcrRegistry(OciRegistry):
    """One repository of an Azure Container Registry, created by the first push. The registry itself
    must be there.

    The password is what Entra's default credentials are exchanged for, unless the settings name a
    user: a token of the registry's own, or its admin.
    """

    kind: ClassVar[str] = "acr"
    denied_hint: ClassVar[str] = (
        "it takes the role AcrPush on the registry or, where it gives permissions by repository, "
        "Container Registry Repository Writer: see docs/providers/acr.md"
    )

    _kept: tuple[Credentials, datetime] | None = None

    def _repository(self) -> str:
        name = self.target.repository
        if not NAME.fullmatch(name):
            raise ConfigurationError(
                f"«{name}» is no repository of Azure Container Registry",
                hint="write <registry>.azurecr.io/<name>",
            )
        return name

    def authenticate(self) -> Identity:
        """As any registry; tells Entra's name for us, and when the registry's token ends."""
        identity = super().authenticate()
        if self.settings.username or self._kept is None:
            return identity
        return identity.model_copy(update={"who": self._who, "expires_at": self._kept[1]})

    def credentials(self) -> Credentials | None:
        """A token of the registry's, good for some hours."""
        if self.settings.username:
            return super().credentials()
        if self._kept is None or self._kept[1] - MARGIN < datetime.now(UTC):
            self._kept = self._exchanged()
        return self._kept[0]

    def close(self) -> None:
        super().close()
        if "_entra" in self.__dict__:
            self._entra.close()

    def _remove(self, tag: str) -> None:
        """By ACR's own call: it takes a tag alone, and the image stays under its other tags. The
        SDK makes it, but for a token of the registry's own, which it cannot log in with."""
        path = self.reference.path
        if self.settings.username:
            with self._open(self.reference, actions=("pull", "push", "delete")) as api:
                api.delete_tag(tag, f"/acr/v1/{path}/_tags/{tag}")
            return
        try:
            with self._client() as client:
                client.delete_tag(path, tag)
        except AzureError as error:
            doing = f"remove the tag {tag} of {path} (permission: repository content delete)"
            raise translate(error, doing) from None

    def _client(self) -> ContainerRegistryClient:
        """Of the SDK; a new one each time, as it goes on using a token that has ended."""
        trust = self._trust(self.host)
        return ContainerRegistryClient(
            f"https://{self.host}",
            self._entra,
            audience=AUDIENCE,
            retry_total=0,
            connection_verify=str(trust.ca) if trust.ca else not trust.insecure,
        )

    # Entra ----------------------------------------------------------------------------------------

    @cached_property
    def _entra(self) -> DefaultAzureCredential:
        return DefaultAzureCredential()

    def _exchanged(self) -> tuple[Credentials, datetime]:
        """The registry's own token, and when it ends.

        Raises:
            PermissionDenied: Entra knows us, and the registry does not.
        """
        try:
            token = self._entra.get_token(SCOPE).token
        except AzureError as error:
            raise translate(error, "log in to Azure", reads=True) from None
        self._who = entra_name(token)
        form = {
            "grant_type": "access_token",
            "service": self.target.repository.split("/", 1)[0],
            "access_token": token,
        }
        answer = self._post("/oauth2/exchange", form)
        refresh = str(answer.get("refresh_token") or "")
        if not refresh:
            raise PermissionDenied(f"{self.host} gave {self._who} no token", hint=self.denied_hint)
        end = claims(refresh).get("exp")
        ends = datetime.fromtimestamp(end, UTC) if end else datetime.now(UTC) + LIFE
        return Credentials(USER, SecretStr(refresh)), ends

    def _post(self, path: str, form: dict[str, str]) -> dict[str, Any]:
        host = self.host
        try:
            response = httpx.post(
                f"https://{host}{path}",
                data=form,
                timeout=TIMEOUT,
                verify=tls_context(host, self._trust(host)),
            )
        except httpx.TransportError as error:
            raise from_transport(error, host) from None
        if response.is_error:
            refused = from_response(response, f"log in to {host} as {self._who}")
            if isinstance(refused, PermissionDenied):
                refused.hint = f"az login to the registry's own tenant; {self.denied_hint}"
            raise refused
        answer: dict[str, Any] = response.json()
        return answer
