"""Secret references: where a secret is, written down instead of the secret.

    resolve("env:DATABASE_PASSWORD")
    resolve("vault:kv/shop#password")

A reference is `scheme:rest`. It is checked anywhere (`check`), and resolved only on the worker,
only when the secret is used. No message here ever contains a value, nor a text that may be one.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from difflib import get_close_matches
from pathlib import Path

from pydantic import SecretStr

from model.errors import (
    AuthExpired,
    ConfigurationError,
    HelixError,
    PermissionDenied,
    Throttled,
    Transient,
)
from project import secret_stores as stores
from project.secret_stores import Lookup

FILE_LIMIT = 1 << 20
"""Bytes of the largest secret file."""


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


_KEY = r"(?:#(?P<key>[^#]+))?"

SCHEMES: dict[str, Scheme] = {
    "env": Scheme("env:NAME", r"(?P<name>[A-Za-z_][A-Za-z0-9_]*)", _env),
    "file": Scheme("file:/path/to/file", r"(?P<path>(?:/|~/).+)", _file),
    "keyring": Scheme(
        "keyring:service/user", r"(?P<service>.+)/(?P<user>[^/]+)", stores.read_keyring, "keyring"
    ),
    "aws-sm": Scheme("aws-sm:name-or-arn#key", rf"(?P<id>[^#]+){_KEY}", stores.read_aws_sm, "aws"),
    "aws-ssm": Scheme(
        "aws-ssm:/path/of/parameter", rf"(?P<id>(?:/|arn:)[^#]+){_KEY}", stores.read_aws_ssm, "aws"
    ),
    "gcp-sm": Scheme(
        "gcp-sm:projects/P/secrets/S",
        r"(?P<id>projects/[^/#]+(?:/locations/(?P<location>[a-z0-9-]+))?/secrets/[^/#]+)"
        rf"(?:/versions/(?P<version>[^/#]+))?{_KEY}",
        stores.read_gcp_sm,
        "gcp",
    ),
    "azure-kv": Scheme(
        "azure-kv:https://VAULT.vault.azure.net/secrets/NAME",
        rf"(?P<vault>https://[^/#]+)/secrets/(?P<name>[^/#]+)(?:/(?P<version>[^/#]+))?{_KEY}",
        stores.read_azure_kv,
        "azure",
    ),
    "vault": Scheme(
        "vault:mount/path#key", r"(?P<path>[^/#]+/[^#]+)#(?P<key>[^#]+)", stores.read_vault, "vault"
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
    name = _name(error)
    for pattern, cls, hint in STORE_ERRORS:
        if re.search(pattern, name):
            return cls(f"the secret {lookup.reference} cannot be read: {name}", hint=hint)
    return ConfigurationError(
        f"the secret {lookup.reference} cannot be read: {name}",
        hint="check the reference and the worker's access to it",
    )


_STATUS = {401: "Unauthorized", 403: "Forbidden", 404: "NotFound", 429: "TooManyRequests"}


def _name(error: Exception) -> str:
    """What the store calls it: boto3 and Azure's SDK have the name in the answer, and one class for
    many; Google's and Vault's have a class for each."""
    response = getattr(error, "response", None)
    details = response.get("Error", {}) if isinstance(response, dict) else {}
    code = details.get("Code") or getattr(getattr(error, "error", None), "code", None)
    status = getattr(error, "status_code", None)
    if not code and isinstance(status, int):
        code = "Unavailable" if status >= 500 else _STATUS.get(status)
    return str(code or type(error).__name__)
