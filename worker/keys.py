"""The keys that payloads are encrypted with: where they are, which there are, which comes first.

    2026-11:3q2+7wAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=
    2025-11:…

A line a key: its id, a colon, and 32 random bytes in base64. The first one encrypts; all of them
decrypt. The lines are a secret, so they are named by a secret reference (HELIX_ENCRYPTION_KEYS).
"""

from __future__ import annotations

import base64
import binascii
import re
import threading
import time
from collections.abc import Callable

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from pydantic import SecretStr

from model.errors import ConfigurationError
from project import secrets

KEY_BYTES = 32
"""AES-256."""
NONCE_BYTES = 12
TAG_BYTES = 16
RELOAD_SECONDS = 5.0
"""How often at most the reference is resolved again for a key that is not known."""
MAKE_ONE = 'echo "$(date +%Y-%m):$(openssl rand -base64 32)"'

_LINE = re.compile(r"(?P<id>[A-Za-z0-9][A-Za-z0-9._-]{0,63}):(?P<key>[A-Za-z0-9+/=_-]+)")


class Keyring:
    """The keys by their ids. Safe in several threads.

    Args:
        read: resolves the reference; called when keys are first needed, and again if something was
            encrypted with one that is not among them: it may have been added since.

    Raises (all methods):
        ConfigurationError: the reference leads nowhere, or a line is no key; never shows one.
        Transient, PermissionDenied, …: as the secret store answers.
    """

    def __init__(self, read: Callable[[], SecretStr]) -> None:
        self._read = read
        self._keys: dict[str, AESGCM] = {}
        self._loaded = float("-inf")
        self._loading = threading.Lock()

    @classmethod
    def at(cls, reference: str) -> Keyring:
        """The keys that a secret reference leads to."""
        return cls(lambda: secrets.resolve(reference))

    def load(self) -> None:
        """Read the keys now, rather than when they are first needed."""
        self._known()

    @property
    def ids(self) -> list[str]:
        """Of all keys; the one that encrypts first."""
        return list(self._known())

    def encrypt(self, data: bytes, nonce: bytes) -> tuple[str, bytes]:
        """Encrypt with the first key. Returns its id, and nonce and ciphertext together.

        Args:
            nonce: NONCE_BYTES that this key was never used with.
        """
        id, key = next(iter(self._known().items()))
        return id, nonce + key.encrypt(nonce, data, id.encode())

    def decrypt(self, id: str, data: bytes) -> bytes:
        """The plain bytes of what `encrypt` returned.

        Raises:
            ConfigurationError: there is no such key, or it is another one under the same id.
        """
        key = self._known().get(id) or self._known(again=True).get(id)
        if key is None:
            raise ConfigurationError(
                f"this is encrypted with the key «{id}», which HELIX_ENCRYPTION_KEYS does not have",
                hint=f"add its line again, after the first one (there are: {', '.join(self.ids)})",
            )
        try:
            return key.decrypt(data[:NONCE_BYTES], data[NONCE_BYTES:], id.encode())
        except (InvalidTag, ValueError):
            raise ConfigurationError(
                f"the key «{id}» does not open what was encrypted with a key of that id",
                hint="it was replaced by another key, or the text was changed; bring the old key "
                "back, and give a new key an id of its own",
            ) from None

    def _known(self, *, again: bool = False) -> dict[str, AESGCM]:
        if not self._keys or (again and time.monotonic() - self._loaded > RELOAD_SECONDS):
            with self._loading:
                self._keys = parse(self._read().get_secret_value())
                self._loaded = time.monotonic()
        return self._keys


def parse(text: str) -> dict[str, AESGCM]:
    """The keys in a text, in its order. Empty lines, and those that begin with #, are skipped.

    Raises:
        ConfigurationError: which line is wrong, and what was expected. No line is repeated.
    """
    keys: dict[str, AESGCM] = {}
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        found = _LINE.fullmatch(line.strip())
        key = _bytes(found["key"]) if found else b""
        if found is None or len(key) != KEY_BYTES:
            raise _wrong(f"its line {number} is not an id, a colon and {KEY_BYTES} bytes in base64")
        if found["id"] in keys:
            raise _wrong(f"the id «{found['id']}» is there twice")
        keys[found["id"]] = AESGCM(key)
    if not keys:
        raise _wrong("there is no key in it")
    return keys


def _bytes(text: str) -> bytes:
    try:
        return base64.b64decode(text, altchars=b"-_" if set(text) & set("-_") else None)
    except binascii.Error:
        return b""


def _wrong(why: str) -> ConfigurationError:
    return ConfigurationError(
        f"HELIX_ENCRYPTION_KEYS cannot be used: {why}", hint=f"make a line: {MAKE_ONE}"
    )
