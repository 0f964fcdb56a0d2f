"""Where secrets are kept besides files: each store through its own SDK, imported when it is used.

SDK retries are off, every call has a time limit, and whatever an SDK raises is translated by
`project.secrets`, which never lets its text out.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import import_module
from typing import Any

from model.errors import ConfigurationError

SDK_TIMEOUT = 15
"""Seconds a secret store may take."""
GCP_ENDPOINT = "HELIX_SECRET_MANAGER_ENDPOINT"
"""The variable with another address of Google's Secret Manager: HOST[:PORT]; with http:// before
it, a stand-in on loopback, without TLS and credentials."""
LOOPBACK = {"127.0.0.1", "localhost", "[::1]"}


@dataclass(frozen=True)
class Lookup:
    """One reference, about to be resolved."""

    reference: str
    parts: Mapping[str, str]
    """The named groups of the scheme's pattern."""
    environ: Mapping[str, str]

    def missing(self, message: str, hint: str) -> ConfigurationError:
        """The error for a reference that leads nowhere."""
        return ConfigurationError(f"the secret {self.reference} {message}", hint=hint)

    def field_of(self, value: str) -> str:
        """The field that `#key` names in a JSON secret, or the whole if there is no key."""
        key = self.parts.get("key")
        if not key:
            return value
        try:
            found = json.loads(value)[key]
        except (ValueError, KeyError, TypeError):
            raise self.missing(
                f"has no field «{key}»", "check the secret's keys; it must be a JSON object"
            ) from None
        return found if isinstance(found, str) else json.dumps(found)


def read_keyring(lookup: Lookup) -> str:
    """From the system's keyring, or the one that PYTHON_KEYRING_BACKEND names."""
    keyring = import_module("keyring")
    service, user = lookup.parts["service"], lookup.parts["user"]
    found = keyring.get_password(service, user)
    if found is None:
        raise lookup.missing("is not in the keyring", f"run: keyring set {service} {user}")
    return str(found)


def _aws(service: str, lookup: Lookup) -> Any:
    boto3, config = import_module("boto3"), import_module("botocore.config")
    region = re.match(r"arn:aws[\w-]*:\w+:([\w-]+):", lookup.parts["id"])
    # A session of its own: the shared one is not safe in threads, and keeps old credentials.
    return boto3.Session().client(
        service,
        region_name=region[1] if region else None,
        config=config.Config(
            retries={"mode": "standard", "total_max_attempts": 1},
            connect_timeout=SDK_TIMEOUT,
            read_timeout=SDK_TIMEOUT,
        ),
    )


def read_aws_sm(lookup: Lookup) -> str:
    """From AWS Secrets Manager, as the worker's AWS account."""
    answer = _aws("secretsmanager", lookup).get_secret_value(SecretId=lookup.parts["id"])
    return lookup.field_of(answer.get("SecretString") or answer["SecretBinary"].decode())


def read_aws_ssm(lookup: Lookup) -> str:
    """From the SSM Parameter Store, decrypted."""
    answer = _aws("ssm", lookup).get_parameter(Name=lookup.parts["id"], WithDecryption=True)
    return lookup.field_of(answer["Parameter"]["Value"])


def read_gcp_sm(lookup: Lookup) -> str:
    """From Google's Secret Manager; a secret of one location from that location's own endpoint."""
    name = f"{lookup.parts['id']}/versions/{lookup.parts.get('version', 'latest')}"
    with _secret_manager(lookup) as client:
        answer = client.access_secret_version(name=name, timeout=SDK_TIMEOUT, retry=None)
    return lookup.field_of(answer.payload.data.decode())


def _secret_manager(lookup: Lookup) -> Any:
    secretmanager = import_module("google.cloud.secretmanager")
    endpoint = lookup.environ.get(GCP_ENDPOINT, "")
    location = lookup.parts.get("location")
    if not endpoint and location:
        endpoint = f"secretmanager.{location}.rep.googleapis.com"
    if not endpoint.startswith("http://"):
        options = {"api_endpoint": endpoint} if endpoint else None
        return secretmanager.SecretManagerServiceClient(client_options=options)
    host = endpoint.removeprefix("http://")
    if host.rpartition(":")[0] not in LOOPBACK:
        raise lookup.missing(
            f"cannot be read: {GCP_ENDPOINT} has no TLS and is not on this machine",
            "write the host alone: its connection is encrypted",
        )
    grpc = import_module("grpc")
    transports = import_module("google.cloud.secretmanager_v1.services.secret_manager_service")
    transport = transports.transports.SecretManagerServiceGrpcTransport
    return secretmanager.SecretManagerServiceClient(
        transport=transport(channel=grpc.insecure_channel(host))
    )


def read_azure_kv(lookup: Lookup) -> str:
    """From an Azure Key Vault of any Azure cloud: the reference holds its address."""
    identity = import_module("azure.identity")
    keyvault = import_module("azure.keyvault.secrets")
    with (
        identity.DefaultAzureCredential() as credential,
        keyvault.SecretClient(lookup.parts["vault"], credential, retry_total=0) as client,
    ):
        secret = client.get_secret(lookup.parts["name"], lookup.parts.get("version"))
    return lookup.field_of(secret.value or "")


def read_vault(lookup: Lookup) -> str:
    """From HashiCorp Vault or OpenBao: VAULT_ADDR, VAULT_TOKEN, VAULT_NAMESPACE, VAULT_CACERT."""
    hvac = import_module("hvac")
    client = hvac.Client(
        url=lookup.environ.get("VAULT_ADDR"),
        token=lookup.environ.get("VAULT_TOKEN"),
        namespace=lookup.environ.get("VAULT_NAMESPACE"),
        verify=lookup.environ.get("VAULT_CACERT") or None,
        timeout=SDK_TIMEOUT,
    )
    mount, _, path = lookup.parts["path"].partition("/")
    # The second version of the key-value engine puts `data` into the path and around the answer.
    for place, nested in ((f"{mount}/data/{path}", True), (lookup.parts["path"], False)):
        answer = _vault_read(client, place, last=not nested)
        if answer is None:
            continue
        data = answer["data"]["data"] if nested else answer["data"]
        if lookup.parts["key"] in (data or {}):
            return str(data[lookup.parts["key"]])
    raise lookup.missing(
        "is not in the vault", f"run: vault kv get {lookup.parts['path']}, and check the key"
    )


def _vault_read(client: Any, path: str, *, last: bool) -> Any:
    from hvac.exceptions import Forbidden

    try:
        return client.read(path)
    except Forbidden:
        # A policy for the one form of the path refuses the other one.
        if last:
            raise
        return None
