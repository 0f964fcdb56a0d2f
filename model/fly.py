"""What a registry and a provider for Fly.io agree on: the app's name, and whose token to use."""

from __future__ import annotations

import re
from collections.abc import Callable

from pydantic import SecretStr

from model.errors import ConfigurationError
from model.names import base_name

REGISTRY_HOST = "registry.fly.io"
REGISTRY_VARIABLE = "FLY_REGISTRY_HOST"
"""Names another host of the registry; flyctl reads it too."""
API_VARIABLE = "FLY_FLAPS_BASE_URL"
"""Names another address of the Machines API, without its /v1; flyctl reads it too."""
API_ADDRESS = "https://api.machines.dev"

_CONFIG = "file:~/.fly/config.yml"
"""Where flyctl keeps the token of `fly auth login`."""
TOKENS: dict[str, tuple[str, ...]] = {
    "Cli": ("env:FLY_API_TOKEN", "env:FLY_ACCESS_TOKEN", _CONFIG),
    "ApiKey": ("env:FLY_API_TOKEN", "env:FLY_ACCESS_TOKEN", "env:FLY_API_KEY"),
}
"""auth_type -> secret references, in the order in which they are tried."""


def fly_app(project: str, instance: str) -> str:
    """The name of an instance's app: `helix-<project>-<instance>`.

    HelixDB's CLI writes `-` for `_` in the project's name. Fly takes a-z, 0-9 and `-` only, so no
    other name can exist there, and every other character becomes a `-` as well.
    """
    name = base_name(project.replace("_", "-"), instance).lower()
    return re.sub(r"[^a-z0-9]+", "-", name).strip("-")


def fly_token(
    auth_type: str, reference: str | None, secret: Callable[[str], SecretStr]
) -> SecretStr:
    """The token to use.

    Args:
        auth_type: `Cli` or `ApiKey`.
        reference: the secret reference that the settings name, if any; then no other is tried.
        secret: resolves a reference, or raises ConfigurationError.

    Raises:
        ConfigurationError: there is none.
    """
    if reference:
        return secret(reference)
    for candidate in TOKENS[auth_type]:
        try:
            found = secret(candidate).get_secret_value()
        except ConfigurationError:
            continue
        if candidate == _CONFIG:
            line = re.search(r"^access_token:\s*[\"']?([^\"'\n]+)", found, re.MULTILINE)
            found = line[1] if line else ""
        if found.strip():
            return SecretStr(found.strip())
    raise ConfigurationError(
        "there is no token for Fly.io",
        hint="set FLY_API_TOKEN where the worker runs to what `fly tokens create org` prints, "
        "or name a secret reference as `token`",
    )


def authorization(token: SecretStr) -> str:
    """The header a token is sent in: a macaroon names its own scheme."""
    value = token.get_secret_value()
    return value if value.startswith("FlyV1 ") else f"Bearer {value}"
