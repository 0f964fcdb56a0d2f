"""The `ecr` kind: Amazon's Elastic Container Registry."""

from __future__ import annotations

import base64
import re
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cached_property
from typing import Any, ClassVar

import boto3
import botocore.session
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError
from botocore.loaders import create_loader
from pydantic import SecretStr

from model.aws_errors import translate
from model.errors import ConfigurationError, Conflict, NotFound
from model.platform import Identity
from registries.base import Credentials
from registries.oci import OciRegistry, OciSettings

NO_RETRIES = Config(
    connect_timeout=5, read_timeout=9, retries={"mode": "standard", "total_max_attempts": 1}
)
MODELS = create_loader()
"""Reads AWS's service models from disk once for all sessions."""
MARGIN = timedelta(minutes=5)
"""How long before its end a token is replaced."""
HOST = re.compile(
    r"(?P<account>[0-9]{12})\.dkr[.-]ecr(?:-fips)?\.(?P<region>[a-z0-9-]+)\.(amazonaws\.com|on\.aws)"
    r"(\.cn)?"
)
"""A registry's own host: account and region."""


class EcrSettings(OciSettings):
    """`[cloud.<instance>.ecr]`, as HelixDB's own command writes it, and what we add."""

    repository_name: str = ""
    """The repository in the registry; taken from the target's repository if empty."""
    region: str = ""
    """The AWS region; that of the registry's host, else AWS's own configuration, if empty."""
    registry_url: str | None = None
    """The registry's host; that of the account in use if absent."""
    auth_type: str = "AwsCli"
    """Credentials always come from AWS's own chain, whatever this says."""
    profile: str | None = None
    """The profile of AWS's configuration to use."""
    endpoint_url: str | None = None
    """Another address of the AWS API."""


@dataclass(frozen=True)
class _Token:
    credentials: Credentials
    host: str
    expires_at: datetime


class EcrRegistry(OciRegistry):
    """One repository of Amazon ECR, created by the first push, with a scan of every image.

    Tags may be moved in it (MUTABLE), as HelixDB's own command leaves it: a release is named by its
    digest anyway.
    """

    kind: ClassVar[str] = "ecr"
    Settings: ClassVar[type[EcrSettings]] = EcrSettings
    denied_hint: ClassVar[str] = (
        "it takes ecr:BatchCheckLayerAvailability, ecr:BatchGetImage, ecr:GetDownloadUrlForLayer, "
        "ecr:InitiateLayerUpload, ecr:UploadLayerPart, ecr:CompleteLayerUpload and ecr:PutImage on "
        "the repository: see docs/providers/ecr.md"
    )

    settings: EcrSettings

    def _repository(self) -> str:
        own = self.settings
        if self.target.repository:
            return self.target.repository
        if not own.repository_name:
            raise ConfigurationError(
                "the registry of kind «ecr» names no repository",
                hint='set repository_name = "…" in its table, or repository in '
                "[deploy.<instance>.registry]",
            )
        return f"{self._host()}/{own.repository_name}"

    def _host(self) -> str:
        own = self.settings
        if own.registry_host:
            return own.registry_host
        if not own.registry_url:
            return self._token().host
        host = own.registry_url.removeprefix("https://").strip("/")
        found = HOST.fullmatch(host)
        if found and own.region and found["region"] != own.region:
            raise ConfigurationError(
                f"registry_url is in {found['region']}, but region is {own.region}",
                hint="correct one of them in [cloud.<instance>.ecr]",
            )
        return host

    @property
    def repository_name(self) -> str:
        """The repository's name inside the registry."""
        return self.settings.repository_name or self.reference.path

    def authenticate(self) -> Identity:
        """Get a token, learn whose it is, and see that the registry takes it."""
        identity = super().authenticate()
        caller = self._call("sts", "get_caller_identity")
        return identity.model_copy(
            update={"who": caller["Arn"], "expires_at": self._token().expires_at}
        )

    def credentials(self) -> Credentials:
        """A token of AWS's, good for twelve hours."""
        return self._token().credentials

    def ensure_repository(self) -> None:
        """Create the repository if it is missing. Another caller may do the same at once."""
        try:
            self._call("ecr", "describe_repositories", repositoryNames=[self.repository_name])
        except NotFound:
            try:
                self._call(
                    "ecr",
                    "create_repository",
                    repositoryName=self.repository_name,
                    imageTagMutability="MUTABLE",
                    imageScanningConfiguration={"scanOnPush": True},
                )
            except Conflict:
                return

    def _remove(self, tag: str) -> None:
        """By ECR's own call: it takes a tag alone, and the image stays under its other tags."""
        self._call(
            "ecr",
            "batch_delete_image",
            repositoryName=self.repository_name,
            imageIds=[{"imageTag": tag}],
        )

    # AWS ------------------------------------------------------------------------------------------

    _kept: _Token | None = None

    def _token(self) -> _Token:
        if self._kept is None or self._kept.expires_at - MARGIN < datetime.now(UTC):
            answer = self._call("ecr", "get_authorization_token")["authorizationData"][0]
            pair = base64.b64decode(answer["authorizationToken"]).decode()
            user, _, password = pair.partition(":")
            self._kept = _Token(
                Credentials(user, SecretStr(password)),
                answer["proxyEndpoint"].removeprefix("https://"),
                answer["expiresAt"].astimezone(UTC),
            )
        return self._kept

    @cached_property
    def _session(self) -> boto3.session.Session:
        core = botocore.session.Session()
        core.register_component("data_loader", MODELS)
        return boto3.session.Session(
            profile_name=self.settings.profile,
            region_name=self._region() or None,
            botocore_session=core,
        )

    def _region(self) -> str:
        """The region that is set, or that the registry's host names."""
        place = self.target.repository or self.settings.registry_url or ""
        found = HOST.match(place.removeprefix("https://"))
        return self.settings.region or (found["region"] if found else "")

    def _call(self, service: str, operation: str, **arguments: Any) -> Any:
        try:
            if service not in self._clients:
                self._clients[service] = self._session.client(
                    service, config=NO_RETRIES, endpoint_url=self.settings.endpoint_url
                )
            return getattr(self._clients[service], operation)(**arguments)
        except (ClientError, BotoCoreError) as error:
            name = "".join(part.title() for part in operation.split("_"))
            raise translate(error, service, name) from None

    @cached_property
    def _clients(self) -> dict[str, Any]:
        return {}

    def close(self) -> None:
        super().close()
        for client in self._clients.values():
            client.close()
