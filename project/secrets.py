"""Secret references: where a secret is, written down instead of the secret.

    resolve("env:DATABASE_PASSWORD")
    resolve("vault:kv/shop#password")

A reference is `scheme:rest`. It is checked anywhere (`check`), and resolved only on the worker,
only when the secret is used. No message here ever contains a value, nor a text that may be one.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from difflib import get_close_matches
from importlib import import_module
from pathlib import Path
from typing import Any

from pydantic import SecretStr

from model.errors import (
    AuthExpired,
    ConfigurationError,
    HelixError,
    PermissionDenied,
    Throttled,
    Transient,
)

FILE_LIMIT = 1 << 20
"""Bytes of the largest secret file."""
SDK_TIMEOUT = 15
"""Seconds a secret store may take."""


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


@dataclass(frozen=True)
class Scheme:
    """One kind of reference, as data."""

    example: str
    pattern: str
    """Of what follows the colon."""
    read: Callable[[Lookup], str]
    extra: str = ""
    """The extra of helix-deploy that brings what `read` imports."""
    compiled: re.Pattern[str] = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "compiled", re.compile(self.pattern))


def check(reference: str) -> None:
    """Check the form of a reference, without resolving it.

    Raises:
        ConfigurationError: it has none of the known forms. The text is not repeated, since people
            do write the secret itself here.
    """
    _parse(reference)


def resolve(
    reference: str,
    *,
    environ: Mapping[str, str] | None = None,
    extra_env_file: Path | None = None,
) -> SecretStr:
    """The secret that a reference leads to. Reads only.

    Args:
        environ: where `env:` looks first; this process's own if None.
        extra_env_file: a `.env` file where `env:` looks next, if it exists.

    Raises:
        ConfigurationError: the reference leads nowhere; says which one and what to do.
        PermissionDenied, AuthExpired: the secret store refused us.
        Transient, Throttled: it does not answer now.
    """
    scheme, parts = _parse(reference)
    found = dict(os.environ if environ is None else environ)
    if extra_env_file is not None:
        found = {**read_env_file(extra_env_file), **found}
    lookup = Lookup(reference, parts, found)
    try:
        value = scheme.read(lookup)
    except HelixError:
        raise
    except ModuleNotFoundError as error:
        raise lookup.missing(
            f"needs {error.name}, which is not installed",
            f"pip install 'helix-deploy[{scheme.extra}]'",
        ) from None
    except Exception as error:
        # SDK errors may carry headers and bodies: only their name goes on.
        raise _translate(error, lookup) from None
    if not value:
        raise lookup.missing("is empty", "give it a value where it is kept")
    return SecretStr(value)


def _parse(reference: str) -> tuple[Scheme, dict[str, str]]:
    name, colon, rest = reference.partition(":")
    scheme = SCHEMES.get(name)
    if scheme is None:
        near = get_close_matches(name, SCHEMES, n=1, cutoff=0.6) if colon else []
        raise ConfigurationError(
            f"«{name}:…» is not a kind of secret reference"
            if near
            else "this is not a secret reference (the text is not shown, as it may be a secret)",
            hint=f"did you mean «{SCHEMES[near[0]].example}»?"
            if near
            else "write one of: " + ", ".join(row.example for row in SCHEMES.values()),
        )
    match = scheme.compiled.fullmatch(rest)
    if match is None:
        raise ConfigurationError(
            f"the secret reference «{reference}» is not complete",
            hint=f"write it like this: {scheme.example}",
        )
    return scheme, {key: value for key, value in match.groupdict().items() if value is not None}


def read_env_file(path: Path) -> dict[str, str]:
    """The values in a `.env` file; none if there is no such file.

    Raises:
        ConfigurationError: it cannot be read.
    """
    from dotenv import dotenv_values

    try:
        found = dotenv_values(path, interpolate=False)
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigurationError(
            f"cannot read {path}: {type(error).__name__}", hint="mend or remove the file"
        ) from None
    return {key: value for key, value in found.items() if value is not None}


def _env(lookup: Lookup) -> str:
    name = lookup.parts["name"]
    if name not in lookup.environ:
        raise lookup.missing(
            "leads nowhere: the worker's environment has no such variable",
            f"put {name}=… into the .env file beside helix.toml, or set it where the worker starts",
        )
    return lookup.environ[name]


def _file(lookup: Lookup) -> str:
    path = Path(lookup.parts["path"]).expanduser()
    try:
        with path.open("rb") as file:
            content = file.read(FILE_LIMIT + 1)
        if len(content) > FILE_LIMIT:
            raise lookup.missing("is larger than 1 MiB", "name the file that holds the secret only")
        text = content.decode()
    except OSError as error:
        raise lookup.missing(
            f"cannot be read on the worker's machine: {error.strerror}",
            "create the file there, readable by the worker alone (chmod 600)",
        ) from None
    except UnicodeDecodeError:
        raise lookup.missing("is not text", "encode it, for example as base64") from None
    # Editors and `echo` end a file with a line end that is no part of the secret.
    return text.removesuffix("\n").removesuffix("\r")


def _keyring(lookup: Lookup) -> str:
    keyring = import_module("keyring")
    service, user = lookup.parts["service"], lookup.parts["user"]
    found = keyring.get_password(service, user)
    if found is None:
        raise lookup.missing("is not in the keyring", f"run: keyring set {service} {user}")
    return str(found)


def _aws(service: str, lookup: Lookup) -> Any:
    boto3, config = import_module("boto3"), import_module("botocore.config")
    region = re.match(r"arn:aws[\w-]*:\w+:([\w-]+):", lookup.parts["id"])
    return boto3.client(
        service,
        region_name=region[1] if region else None,
        config=config.Config(
            retries={"mode": "standard", "total_max_attempts": 1},
            connect_timeout=SDK_TIMEOUT,
            read_timeout=SDK_TIMEOUT,
        ),
    )


def _aws_sm(lookup: Lookup) -> str:
    answer = _aws("secretsmanager", lookup).get_secret_value(SecretId=lookup.parts["id"])
    return lookup.field_of(answer.get("SecretString") or answer["SecretBinary"].decode())


def _aws_ssm(lookup: Lookup) -> str:
    answer = _aws("ssm", lookup).get_parameter(Name=lookup.parts["id"], WithDecryption=True)
    return lookup.field_of(answer["Parameter"]["Value"])


def _gcp_sm(lookup: Lookup) -> str:
    secretmanager = import_module("google.cloud.secretmanager")
    name = f"{lookup.parts['id']}/versions/{lookup.parts.get('version', 'latest')}"
    client = secretmanager.SecretManagerServiceClient()
    answer = client.access_secret_version(name=name, timeout=SDK_TIMEOUT, retry=None)
    return lookup.field_of(answer.payload.data.decode())


def _azure_kv(lookup: Lookup) -> str:
    identity = import_module("azure.identity")
    keyvault = import_module("azure.keyvault.secrets")
    with (
        identity.DefaultAzureCredential() as credential,
        keyvault.SecretClient(lookup.parts["vault"], credential, retry_total=0) as client,
    ):
        secret = client.get_secret(lookup.parts["name"], lookup.parts.get("version"))
    return lookup.field_of(secret.value or "")


def _vault(lookup: Lookup) -> str:
    hvac = import_module("hvac")
    client = hvac.Client(
        url=lookup.environ.get("VAULT_ADDR"),
        token=lookup.environ.get("VAULT_TOKEN"),
        namespace=lookup.environ.get("VAULT_NAMESPACE"),
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


_KEY = r"(?:#(?P<key>[^#]+))?"

SCHEMES: dict[str, Scheme] = {
    "env": Scheme("env:NAME", r"(?P<name>[A-Za-z_][A-Za-z0-9_]*)", _env),
    "file": Scheme("file:/path/to/file", r"(?P<path>(?:/|~/).+)", _file),
    "keyring": Scheme(
        "keyring:service/user", r"(?P<service>.+)/(?P<user>[^/]+)", _keyring, "keyring"
    ),
    "aws-sm": Scheme("aws-sm:name-or-arn#key", rf"(?P<id>[^#]+){_KEY}", _aws_sm, "aws"),
    "aws-ssm": Scheme(
        "aws-ssm:/path/of/parameter", rf"(?P<id>(?:/|arn:)[^#]+){_KEY}", _aws_ssm, "aws"
    ),
    "gcp-sm": Scheme(
        "gcp-sm:projects/P/secrets/S",
        rf"(?P<id>projects/[^/#]+/secrets/[^/#]+)(?:/versions/(?P<version>[^/#]+))?{_KEY}",
        _gcp_sm,
        "gcp",
    ),
    "azure-kv": Scheme(
        "azure-kv:https://VAULT.vault.azure.net/secrets/NAME",
        rf"(?P<vault>https://[^/#]+)/secrets/(?P<name>[^/#]+)(?:/(?P<version>[^/#]+))?{_KEY}",
        _azure_kv,
        "azure",
    ),
    "vault": Scheme(
        "vault:mount/path#key", r"(?P<path>[^/#]+/[^#]+)#(?P<key>[^#]+)", _vault, "vault"
    ),
}
"""Scheme -> how it is written and read."""

STORE_ERRORS: tuple[tuple[str, type[HelixError], str], ...] = (
    (r"Expired|RefreshError|TokenRefresh", AuthExpired, ""),
    (
        r"AccessDenied|Forbidden|PermissionDenied|Unauthor|Unauthenticated|ClientAuthentication"
        r"|UnrecognizedClient|InvalidClientToken|SignatureDoesNotMatch|CredentialUnavailable",
        PermissionDenied,
        "give the worker's account the right to read it",
    ),
    (
        r"NoCredentials|PartialCredentials|DefaultCredentials|NoRegion",
        ConfigurationError,
        "give the worker credentials and a region for this store",
    ),
    (r"Throttl|TooManyRequests|RateLimit|ResourceExhausted", Throttled, ""),
    (
        r"Timeout|Connection|Connect|Unavailable|ServiceRequest|ServiceResponse|InternalServ"
        r"|InternalError|BadGateway|VaultDown|DeadlineExceeded|RetryError",
        Transient,
        "check that the worker can reach the secret store",
    ),
    (r"NotFound|InvalidPath|NoKeyring", ConfigurationError, "create it, or correct the reference"),
)
"""What a store's SDK calls an error -> what it means, and what to do. The first row fits."""


def _translate(error: Exception, lookup: Lookup) -> HelixError:
    response = getattr(error, "response", None)
    details = response.get("Error", {}) if isinstance(response, dict) else {}
    # boto3 has one class for all, and the name in the answer.
    name = str(details.get("Code") or type(error).__name__)
    for pattern, cls, hint in STORE_ERRORS:
        if re.search(pattern, name):
            return cls(f"the secret {lookup.reference} cannot be read: {name}", hint=hint)
    return ConfigurationError(
        f"the secret {lookup.reference} cannot be read: {name}",
        hint="check the reference and the worker's access to it",
    )
