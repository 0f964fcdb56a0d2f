"""Credentials for a registry: from the instance's settings, else from Docker's own configuration.

Docker's file is `$DOCKER_CONFIG/config.json`, or `~/.docker/config.json`. It holds credentials, or
names the helper program (`docker-credential-…`) that does. What `docker login` did therefore works
here too.
"""

from __future__ import annotations

import base64
import binascii
import json
import os
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import SecretStr

from model.errors import ConfigurationError, Transient
from registries.base import Credentials
from registries.reference import DOCKER_HUB

IDENTITY_TOKEN = "<token>"
"""The user name under which Docker's helpers hand out an identity token (OAuth2 refresh token)."""
DOCKER_HUB_KEY = "https://index.docker.io/v1/"
"""What Docker's configuration calls Docker Hub."""
HELPER_TIMEOUT = 30.0
"""Seconds a credential helper may take; some ask a cloud first."""


def engine_auth(host: str, credentials: Credentials | None) -> dict[str, str]:
    """The credentials as an engine takes them with one push or pull; empty means none, and keeps
    the Docker SDK from looking for some by itself."""
    if credentials is None:
        return {}
    secret = credentials.password.get_secret_value()
    if credentials.username == IDENTITY_TOKEN:
        return {"identitytoken": secret, "serveraddress": host}
    return {"username": credentials.username, "password": secret, "serveraddress": host}


def config_file(environ: Mapping[str, str] = os.environ) -> Path:
    """Where Docker's configuration is."""
    folder = environ.get("DOCKER_CONFIG")
    return (Path(folder) if folder else Path.home() / ".docker") / "config.json"


def from_docker(host: str, file: Path | None = None) -> Credentials | None:
    """What Docker would log in to `host` with, or None. Asked anew each time, as a helper's answer
    may be short-lived.

    Raises:
        ConfigurationError: the file or an entry cannot be read, or its helper is missing.
        Transient: the helper does not answer in time.
    """
    file = file or config_file()
    config = _load(file)
    key = DOCKER_HUB_KEY if host == DOCKER_HUB else host
    helper = config.get("credHelpers", {}).get(key) or config.get("credsStore")
    if helper and (found := _ask(str(helper), key)):
        return found
    for name, entry in config.get("auths", {}).items():
        if name == key or _hostname(name) == host:
            return _entry(entry, name, file)
    return None


def _load(file: Path) -> dict[str, Any]:
    try:
        config = json.loads(file.read_text("utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        raise ConfigurationError(
            f"cannot read Docker's configuration {file}: {type(error).__name__}",
            hint="mend or remove the file, then run docker login again",
        ) from None
    return config if isinstance(config, dict) else {}


def _entry(entry: object, name: str, file: Path) -> Credentials | None:
    """One entry of `auths`: base64 of user:password, a token, or nothing at all."""
    if not isinstance(entry, dict) or not (entry.get("auth") or entry.get("identitytoken")):
        return None
    if token := entry.get("identitytoken"):
        return Credentials(IDENTITY_TOKEN, SecretStr(str(token)))
    try:
        user, colon, password = base64.b64decode(entry["auth"]).decode().partition(":")
    except (binascii.Error, ValueError, TypeError):
        colon = ""
    if not colon:
        raise ConfigurationError(
            f"the entry «{name}» of {file} is not base64 of user:password",
            hint=f"run docker login {name}",
        )
    return Credentials(user, SecretStr(password.rstrip("\0")))


def _ask(helper: str, key: str) -> Credentials | None:
    """Ask a credential helper: the key goes to its standard input, JSON comes back."""
    program = f"docker-credential-{helper}"
    try:
        done = subprocess.run(
            [program, "get"], input=key, capture_output=True, text=True, timeout=HELPER_TIMEOUT
        )
    except FileNotFoundError:
        raise ConfigurationError(
            f"Docker's configuration names {program}, which is not on the PATH",
            hint="install it, or set username and password of the registry",
        ) from None
    except subprocess.TimeoutExpired:
        raise Transient(f"{program} did not answer within {HELPER_TIMEOUT:.0f} s") from None
    # A helper's words for «none» go to either stream; nothing it prints is repeated, as it may be
    # a secret.
    if done.returncode != 0:
        if "not found" in (done.stdout + done.stderr).lower():
            return None
        raise ConfigurationError(
            f"{program} failed with exit code {done.returncode} for {key}",
            hint=f"run: echo {key} | {program} get",
        )
    try:
        answer = json.loads(done.stdout)
        user, secret = str(answer["Username"]), str(answer["Secret"])
    except (ValueError, KeyError, TypeError):
        raise ConfigurationError(
            f"{program} did not answer with a user name and a secret for {key}",
            hint=f"run: echo {key} | {program} get",
        ) from None
    return Credentials(user, SecretStr(secret)) if secret else None


def _hostname(name: str) -> str:
    """The host of a key of `auths`, some of which are URLs."""
    host = name.split("://", 1)[-1].split("/", 1)[0]
    return DOCKER_HUB if host in {"index.docker.io", "registry-1.docker.io"} else host
