"""An instance's secrets in Google's Secret Manager, referred to by numbered version."""

from __future__ import annotations

import re
from collections.abc import Collection
from typing import NamedTuple

from google.cloud import secretmanager_v1 as sm
from pydantic import SecretStr

from model.errors import ConfigurationError, Conflict, NotFound
from providers.gcp_api import Api

LABEL = "helix_service"
"""The label that says which service's secret it is."""
NUMBERED = re.compile(r"gcp-sm:(?P<secret>projects/[^/#]+/secrets/[^/#]+)/versions/(?P<number>\d+)")
"""A reference that Cloud Run can follow by itself."""


class Version(NamedTuple):
    """One version of one secret, as Cloud Run refers to it."""

    secret: str
    """Its id, or projects/…/secrets/… for one that is not ours."""
    number: str


class Secrets:
    """The secrets of one service. Each is called `<service>-<environment name>`."""

    def __init__(self, api: Api, project: str, service: str) -> None:
        self._api = api
        self._project = project
        self._service = service

    @staticmethod
    def linked(reference: str) -> Version | None:
        """The version that a reference names already, so that nothing need be copied."""
        found = NUMBERED.fullmatch(reference)
        return Version(found["secret"], found["number"]) if found else None

    def put(self, name: str, value: SecretStr) -> Version:
        """Store a value, unless the latest version is equal. Returns its numbered version."""
        secret = f"{self._service}-{name}"
        path = f"projects/{self._project}/secrets/{secret}"
        data = value.get_secret_value().encode()
        number = self._equal(path, data)
        if number is None:
            self._create(secret)
            added = self._api.call(
                self._api.secrets.add_secret_version,
                sm.AddSecretVersionRequest(parent=path, payload=sm.SecretPayload(data=data)),
                "secretmanager.versions.add",
            )
            number = added.name.rsplit("/", 1)[-1]
        return Version(secret, number)

    def prune(self, used: Collection[Version]) -> None:
        """Destroy the versions that nothing refers to any more. Idempotent."""
        for secret in self._ours():
            name = secret.rsplit("/", 1)[-1]
            enabled = self._api.read(
                self._api.secrets.list_secret_versions,
                sm.ListSecretVersionsRequest(parent=secret, filter="state:ENABLED"),
                "secretmanager.versions.list",
            )
            for version in enabled:
                if Version(name, version.name.rsplit("/", 1)[-1]) not in used:
                    self._api.call(
                        self._api.secrets.destroy_secret_version,
                        sm.DestroySecretVersionRequest(name=version.name),
                        "secretmanager.versions.destroy",
                    )

    def destroy(self) -> None:
        """Remove all of the service's secrets. Idempotent."""
        for secret in self._ours():
            try:
                self._api.call(
                    self._api.secrets.delete_secret,
                    sm.DeleteSecretRequest(name=secret),
                    "secretmanager.secrets.delete",
                )
            except NotFound:
                continue

    def _ours(self) -> list[str]:
        found = self._api.read(
            self._api.secrets.list_secrets,
            sm.ListSecretsRequest(
                parent=f"projects/{self._project}", filter=f"labels.{LABEL}={self._service}"
            ),
            "secretmanager.secrets.list",
        )
        return [secret.name for secret in found]

    def _equal(self, path: str, data: bytes) -> str | None:
        """The number of the latest version, if it holds this value."""
        try:
            latest = self._api.read(
                self._api.secrets.access_secret_version,
                sm.AccessSecretVersionRequest(name=f"{path}/versions/latest"),
                "secretmanager.versions.access",
            )
        except (NotFound, ConfigurationError):
            return None  # there is none, or the latest was destroyed
        number: str = latest.name.rsplit("/", 1)[-1]
        return number if latest.payload.data == data else None

    def _create(self, secret: str) -> None:
        replication = sm.Replication(automatic=sm.Replication.Automatic())
        request = sm.CreateSecretRequest(
            parent=f"projects/{self._project}",
            secret_id=secret,
            secret=sm.Secret(replication=replication, labels={LABEL: self._service}),
        )
        try:
            self._api.call(self._api.secrets.create_secret, request, "secretmanager.secrets.create")
        except Conflict:
            return
