"""Looks for signatures and attestations of an image with cosign (v2.4 or newer, tested with v3.1).

By key: nothing of the public transparency log is asked, so it works where no internet is. What the
registry needs reaches cosign in a private folder, never on its command line.
"""

from __future__ import annotations

import base64
import json
import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from model.errors import (
    ConfigurationError,
    HelixError,
    PermissionDenied,
    PolicyViolation,
    Transient,
)
from model.redaction import redact
from registries.base import Credentials
from registries.credentials import IDENTITY_TOKEN, config_file

PROGRAM = "cosign"
SECONDS = 120
SBOMS = {"https://cyclonedx.org/bom": "CycloneDX", "https://spdx.dev/Document": "SPDX"}
"""The type of an attestation -> the format of the SBOM that it holds."""

CAUSES: tuple[tuple[str, type[HelixError], str], ...] = (
    (
        r"UNAUTHORIZED|DENIED|401|403|authentication required",
        PermissionDenied,
        "let the registry's account pull; signatures lie in the image's own repository",
    ),
    (
        r"x509|certificate|HTTP request to an HTTPS server",
        ConfigurationError,
        "set the registry's `ca`",
    ),
    (
        r"dial tcp|connection re(fused|set)|timeout|deadline|TOOMANYREQUESTS|50[0234]\b|EOF",
        Transient,
        "",
    ),
    (
        r"loading public key|unmarshal.*PEM|getting KMS|kms",
        ConfigurationError,
        "check the policy's signed_by, and the worker's access to the key",
    ),
)
"""A pattern of what cosign says -> what it means. Anything else means: not signed."""


@dataclass(frozen=True)
class Access:
    """How to reach the image's registry."""

    host: str
    credentials: Credentials | None = None
    ca: Path | None = None


def require() -> str:
    """Where the program is.

    Raises:
        ConfigurationError: it is not on this worker.
    """
    found = shutil.which(PROGRAM)
    if found is None:
        raise ConfigurationError(
            "the policy needs cosign, which is not on the worker's PATH",
            hint="install it there: https://docs.sigstore.dev/cosign/system_config/installation "
            "or go install github.com/sigstore/cosign/v3/cmd/cosign@v3.1.3",
        )
    return found


class Cosign:
    """For one image of one registry.

    Args:
        image: by digest.
        access: to its registry.
    """

    def __init__(self, image: str, access: Access) -> None:
        self._image = image
        self._access = access

    def require_signature(self, keys: tuple[str, ...]) -> str:
        """See that one of the keys has signed the image. Returns which, for people.

        Raises:
            PolicyViolation: none has.
            PermissionDenied, ConfigurationError, Transient: that cannot be told.
        """
        said = []
        for key in keys:
            with _key_file(key) as file:
                done = self._run("verify", "--key", file, "--insecure-ignore-tlog=true")
            if done.returncode == 0:
                return f"signed by {_name(key)}"
            said.append(f"{_name(key)}: {self._refusal(done.stderr)}")
        raise PolicyViolation(
            f"{self._image} is not signed as the policy wants",
            hint=f"sign it: cosign sign --key cosign.key {self._image}",
            evidence="\n".join(said),
        )

    def require_sbom(self, keys: tuple[str, ...]) -> str:
        """See that an SBOM is attached, signed by one of the keys if there are any. Returns its
        format.

        Raises:
            PolicyViolation: none is.
            PermissionDenied, ConfigurationError, Transient: that cannot be told.
        """
        said = []
        for type in self._attached():
            for key in keys:
                with _key_file(key) as file:
                    done = self._run(
                        "verify-attestation", "--key", file, "--type", type,
                        "--insecure-ignore-tlog=true",
                    )  # fmt: skip
                if done.returncode == 0:
                    return f"{SBOMS[type]} SBOM attached, signed by {_name(key)}"
                said.append(f"{SBOMS[type]}, {_name(key)}: {self._refusal(done.stderr)}")
            if not keys:
                return f"{SBOMS[type]} SBOM attached"
        raise PolicyViolation(
            f"{self._image} has no SBOM attached" + " that the policy trusts" * bool(said),
            hint="attach one: cosign attest --type cyclonedx --predicate sbom.json --key "
            f"cosign.key {self._image}",
            evidence="\n".join(said),
        )

    def _attached(self) -> list[str]:
        """The types of the SBOMs that are attached."""
        done = self._run("download", "attestation")
        if done.returncode != 0:
            self._refusal(done.stderr)
            return []
        return [type for type in SBOMS if type in set(_types(done.stdout))]

    def _run(self, *words: str) -> subprocess.CompletedProcess[str]:
        command = [require(), *words]
        if self._access.ca is not None:
            command += ["--registry-cacert", str(self._access.ca)]
        with _docker_config(self._access) as folder:
            try:
                return subprocess.run(
                    [*command, self._image],
                    env={**os.environ, "DOCKER_CONFIG": folder},
                    stdin=subprocess.DEVNULL,
                    capture_output=True,
                    text=True,
                    errors="replace",
                    timeout=SECONDS,
                )
            except subprocess.TimeoutExpired:
                raise Transient(f"cosign did not end within {SECONDS} s") from None

    def _refusal(self, said: str) -> str:
        """The sentence in which cosign says that something is not signed.

        Raises:
            HelixError: it says that it could not find out.
        """
        errors = [line for line in said.splitlines() if line.startswith("Error: ")]
        text = redact(errors[-1].removeprefix("Error: ") if errors else said.strip()[-300:])
        for pattern, cls, hint in CAUSES:
            if re.search(pattern, text, re.IGNORECASE):
                raise cls(f"cosign cannot look at {self._image}: {text[:300]}", hint=hint)
        return text[:300]


def _types(output: str) -> Iterator[str]:
    """The predicate types in what `cosign download attestation` prints: a bundle, or an envelope of
    older versions, a line."""
    for line in output.splitlines():
        try:
            document = json.loads(line)
            envelope = document.get("dsseEnvelope", document)
            yield str(json.loads(base64.b64decode(envelope["payload"]))["predicateType"])
        except (ValueError, KeyError, TypeError, AttributeError):
            continue


def _name(key: str) -> str:
    """A key for people: its name, or the beginning of its digest."""
    if "://" in key:
        return key
    from hashlib import sha256

    body = "".join(line for line in key.splitlines() if not line.startswith("-----"))
    try:
        return f"the key sha256:{sha256(base64.b64decode(body)).hexdigest()[:12]}"
    except ValueError:
        return "a key"


@contextmanager
def _key_file(key: str) -> Iterator[str]:
    if "://" in key:
        yield key
        return
    with tempfile.NamedTemporaryFile("w", suffix=".pub") as file:
        file.write(key)
        file.flush()
        yield file.name


@contextmanager
def _docker_config(access: Access) -> Iterator[str]:
    """A folder with this machine's own logins, and the one for the image's registry."""
    with tempfile.TemporaryDirectory(prefix="helix-cosign-") as folder:  # made with mode 0700
        try:
            config = json.loads(config_file().read_text())
        except (OSError, ValueError):
            config = {}
        if access.credentials is not None:
            config.get("credHelpers", {}).pop(access.host, None)
            config.setdefault("auths", {})[access.host] = _entry(access.credentials)
        file = Path(folder, "config.json")
        file.touch(0o600)
        file.write_text(json.dumps(config))
        yield folder


def _entry(credentials: Credentials) -> dict[str, str]:
    secret = credentials.password.get_secret_value()
    if credentials.username == IDENTITY_TOKEN:
        return {"identitytoken": secret}
    return {"auth": base64.b64encode(f"{credentials.username}:{secret}".encode()).decode()}
