"""What our types become on their way through Temporal: JSON, and encrypted if a key is named.

Every client, worker and replay uses `data_converter`. Encrypted are the inputs, results, failures,
heartbeats, memos and summaries; what stays plain is listed in docs/concepts/encryption.md.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Sequence
from dataclasses import replace

from temporalio.api.common.v1 import Payload
from temporalio.contrib.pydantic import pydantic_data_converter
from temporalio.converter import (
    DataConverter,
    DefaultFailureConverterWithEncodedAttributes,
    PayloadCodec,
)

from model.errors import ConfigurationError
from worker.keys import NONCE_BYTES, Keyring

ENCODING = b"binary/encrypted"
KEY_ID = "encryption-key-id"
"""As Temporal's own samples name them, so that other tools show them as what they are."""


def data_converter(keys: str = "") -> DataConverter:
    """The converter of this installation.

    Args:
        keys: a secret reference to the keys; without one nothing is encrypted, and what was
            encrypted before gives an error that says so.

    Raises:
        ConfigurationError: the reference leads nowhere, or to no key. Rather now than when the
            first payload is to be encrypted, which a worker would try for ever.
        Transient, PermissionDenied, …: as the secret store answers.
    """
    if not keys:
        return replace(pydantic_data_converter, payload_codec=Codec(None))
    ring = Keyring.at(keys)
    ring.load()
    return replace(
        pydantic_data_converter,
        payload_codec=Codec(ring),
        failure_converter_class=DefaultFailureConverterWithEncodedAttributes,
    )


class Codec(PayloadCodec):
    """AES-256-GCM around each payload. A payload grows by its key's id and less than 100 bytes.

    The id of the key is bound to the ciphertext, and the nonce is random: replace a key before it
    has encrypted 2^32 payloads.

    Args:
        keys: none: payloads stay plain, and encrypted ones are refused.

    Raises (both methods):
        ConfigurationError: a key is missing or wrong.
    """

    def __init__(self, keys: Keyring | None) -> None:
        self._keys = keys

    async def encode(self, payloads: Sequence[Payload]) -> list[Payload]:
        """Encrypt what is not encrypted yet."""
        if self._keys is None:
            return list(payloads)
        return await _apart(self._encrypted, payloads)

    async def decode(self, payloads: Sequence[Payload]) -> list[Payload]:
        """Decrypt what is encrypted; the rest, from the time before, stays as it is."""
        if not any(map(is_encrypted, payloads)):
            return list(payloads)
        return await _apart(self._decrypted, payloads)

    def _encrypted(self, payload: Payload) -> Payload:
        if is_encrypted(payload) or self._keys is None:
            return payload
        id, data = self._keys.encrypt(payload.SerializeToString(), os.urandom(NONCE_BYTES))
        return Payload(metadata={"encoding": ENCODING, KEY_ID: id.encode()}, data=data)

    def _decrypted(self, payload: Payload) -> Payload:
        if not is_encrypted(payload):
            return payload
        id = payload.metadata[KEY_ID].decode(errors="replace")
        if self._keys is None:
            raise ConfigurationError(
                f"this is encrypted with the key «{id}», and no keys are named here",
                hint="set HELIX_ENCRYPTION_KEYS as the worker has it",
            )
        return Payload.FromString(self._keys.decrypt(id, payload.data))


def is_encrypted(payload: Payload) -> bool:
    """Whether a codec of ours has encrypted it."""
    return payload.metadata.get("encoding") == ENCODING


async def _apart(
    change: Callable[[Payload], Payload], payloads: Sequence[Payload]
) -> list[Payload]:
    """Change payloads in a thread: a key may have to be fetched from a secret store first."""
    return await asyncio.to_thread(lambda: [change(one) for one in payloads])
