"""An app's secrets: one entry for each value that some revision needs.

Secrets belong to the app and not to a revision. A value that changed in place would therefore be
what the previous release finds when it comes back. So each value has an entry of its own, named for
the deployment that brought it, and one that is equal is used again. Azure takes all of an app's
secrets together, with their values, which are read for that and stay in memory.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping

from azure.mgmt.appcontainers import models as az
from pydantic import SecretStr

from providers import azure_app as aca
from providers.azure_calls import App
from providers.base import PullCredentials

VAULT = re.compile(r"azure-kv:(?P<url>https://[^/#]+/secrets/[^/#]+(?:/[^/#]+)?)")
"""A reference that Container Apps can follow by itself."""


class Secrets:
    """The secrets of one app.

    Args:
        identity: the managed identity that reads vaults; None: values are copied.
    """

    def __init__(self, app: App, identity: str | None) -> None:
        self._app = app
        self._identity = identity
        self.all: dict[str, az.Secret] = {}
        """Name -> secret, values included, as a change of the app must name them all."""

    def load(self) -> None:
        """Read what the app has."""
        self.all = {str(one.name): _writable(one) for one in self._app.secrets()}

    def put(
        self, wanted: Mapping[str, str], deployment: str, resolve: Callable[[str], SecretStr]
    ) -> dict[str, str]:
        """Note the secrets of a release.

        Args:
            wanted: environment name -> reference.

        Returns:
            Environment name -> name of the secret.
        """
        return {
            name: self._put(name, deployment, self._made(reference, resolve))
            for name, reference in wanted.items()
        }

    def put_password(self, pull: PullCredentials, deployment: str) -> az.RegistryCredentials:
        """Note a registry's password. Returns what names it."""
        made = az.Secret(value=pull.password.get_secret_value())
        return az.RegistryCredentials(
            server=pull.registry,
            username=pull.username,
            password_secret_ref=self._put(f"registry {pull.registry}", deployment, made),
        )

    def forget(self, used: Collection[str]) -> bool:
        """Drop our secrets that nothing refers to any more. Returns whether there were any."""
        unused = [name for name in self.all if _ours(name) and name not in used]
        for name in unused:
            del self.all[name]
        return bool(unused)

    def _made(self, reference: str, resolve: Callable[[str], SecretStr]) -> az.Secret:
        found = VAULT.fullmatch(reference)
        if found and self._identity and self._identity != "system-environment":
            return az.Secret(key_vault_url=found["url"], identity=self._identity)
        return az.Secret(value=resolve(reference).get_secret_value())

    def _put(self, name: str, deployment: str, made: az.Secret) -> str:
        stem = aca.secret_stem(name)
        for known, secret in self.all.items():
            if known.startswith(f"{stem}-") and _same(secret, made):
                return known
        made.name = f"{stem}-{aca.suffix(deployment)}"
        self.all[made.name] = made
        return made.name


_OURS = re.compile(r"[a-z0-9-]+-[0-9a-f]{4}-h[a-z0-9]{1,8}")


def _ours(name: str) -> bool:
    return bool(_OURS.fullmatch(name))


def _same(one: az.Secret, other: az.Secret) -> bool:
    return (one.value, one.key_vault_url) == (other.value, other.key_vault_url)


def _writable(one: az.ContainerAppSecret) -> az.Secret:
    if one.key_vault_url:
        return az.Secret(name=one.name, key_vault_url=one.key_vault_url, identity=one.identity)
    return az.Secret(name=one.name, value=one.value)


def names_in(template: az.Template | None) -> set[str]:
    """The secrets that a revision refers to."""
    return {
        str(variable.secret_ref)
        for container in (template.containers if template else None) or ()
        for variable in container.env or ()
        if variable.secret_ref
    }


def password_names(app: az.ContainerApp) -> set[str]:
    """The secrets with which the app's images are pulled."""
    found = aca.configuration(app).registries or ()
    return {str(one.password_secret_ref) for one in found if one.password_secret_ref}
