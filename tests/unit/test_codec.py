"""Payloads are encrypted, small, bound to their key, and readable for as long as it is there."""

from __future__ import annotations

import base64

import pytest
from pydantic import SecretStr
from temporalio.api.common.v1 import Payload
from temporalio.api.failure.v1 import Failure
from temporalio.exceptions import ApplicationError

from model.errors import ConfigurationError
from worker import keys
from worker.codec import KEY_ID, Codec, data_converter, is_encrypted
from worker.keys import Keyring, parse

OLD = "old:" + base64.b64encode(b"o" * 32).decode()
NEW = "new:" + base64.b64encode(b"n" * 32).decode()


def ring(*lines: str) -> Keyring:
    return Keyring(lambda: SecretStr("\n".join(lines)))


def payload(text: str = "canary") -> Payload:
    return Payload(metadata={"encoding": b"json/plain"}, data=f'"{text}"'.encode())


async def test_what_is_encrypted_is_read_back_and_shows_nothing() -> None:
    codec = Codec(ring(NEW, OLD))
    [hidden] = await codec.encode([payload()])
    assert is_encrypted(hidden) and hidden.metadata[KEY_ID] == b"new"
    assert b"canary" not in hidden.SerializeToString()
    assert await codec.decode([hidden]) == [payload()]
    [again] = await codec.encode([payload()])
    assert again.data != hidden.data, "a nonce is never used twice"
    assert await codec.encode([hidden]) == [hidden], "nothing is encrypted twice"


@pytest.mark.parametrize("size", [0, 10, 1000, 1_000_000])
async def test_the_overhead_is_bounded(size: int) -> None:
    plain = payload("x" * size)
    [hidden] = await Codec(ring("a-key-of-2026:" + OLD[4:])).encode([plain])
    assert hidden.ByteSize() - plain.ByteSize() < 100 + len("a-key-of-2026")


async def test_keys_are_rotated_and_old_payloads_stay_readable() -> None:
    [of_old] = await Codec(ring(OLD)).encode([payload("then")])
    codec = Codec(ring(NEW, OLD))
    [of_new] = await codec.encode([payload("now")])
    assert await codec.decode([of_old, of_new, payload("plain")]) == [
        payload("then"), payload("now"), payload("plain"),
    ]  # fmt: skip


async def test_a_removed_key_is_named() -> None:
    [hidden] = await Codec(ring(OLD)).encode([payload()])
    with pytest.raises(ConfigurationError, match=r"key «old», which HELIX_ENC.*\(there are: new\)"):
        await Codec(ring(NEW)).decode([hidden])
    with pytest.raises(ConfigurationError, match="«old», and no keys are named here"):
        await Codec(None).decode([hidden])


async def test_a_key_that_was_added_meanwhile_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    lines = [OLD]
    codec = Codec(Keyring(lambda: SecretStr("\n".join(lines))))
    await codec.encode([payload()])
    [of_new] = await Codec(ring(NEW)).encode([payload("now")])
    lines.insert(0, NEW)
    monkeypatch.setattr(keys, "RELOAD_SECONDS", 0)
    assert await codec.decode([of_new]) == [payload("now")]


async def test_a_changed_text_or_another_key_of_the_same_id_is_refused() -> None:
    [hidden] = await Codec(ring(OLD)).encode([payload()])
    changed = Payload(metadata=hidden.metadata, data=hidden.data[:-1] + b"?")
    relabelled = Payload(metadata={**hidden.metadata, KEY_ID: b"new"}, data=hidden.data)
    cut = Payload(metadata=hidden.metadata, data=b"short")
    codec = Codec(ring("old:" + NEW[4:], "new:" + OLD[4:]))
    for wrong in (hidden, relabelled):
        with pytest.raises(ConfigurationError, match="does not open"):
            await codec.decode([wrong])
    for wrong in (changed, cut):
        with pytest.raises(ConfigurationError, match="does not open"):
            await Codec(ring(OLD)).decode([wrong])


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "no key in it"),
        ("# nothing\n\n", "no key in it"),
        ("canary-key", "line 1 is not an id"),
        ("id:Y2FuYXJ5", "line 1 is not an id, a colon and 32 bytes"),
        (f"# one\n{OLD}\n{OLD[4:]}", "line 3 is not"),
        (f"{OLD}\n{OLD}", "«old» is there twice"),
        ("a b:" + OLD[4:], "line 1 is not"),
    ],
)
def test_a_wrong_key_file_says_where_and_shows_nothing(text: str, why: str) -> None:
    with pytest.raises(ConfigurationError, match=why) as caught:
        parse(text)
    for shown in ("canary", "Y2FuYXJ5", OLD[4:20]):
        assert shown not in str(caught.value)


def test_url_safe_base64_is_a_key_too() -> None:
    raw = bytes(range(224, 256))
    assert list(parse("a:" + base64.urlsafe_b64encode(raw).decode())) == ["a"]


async def test_failures_are_encrypted_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KEYS", NEW)
    converter = data_converter("env:KEYS")
    failure = Failure()
    try:
        raise ApplicationError("canary-message", {"why": "canary-detail"}, type="PushFailed")
    except ApplicationError as error:
        await converter.encode_failure(error, failure)
    assert b"canary" not in failure.SerializeToString()
    assert failure.application_failure_info.type == "PushFailed", "retries are decided by it"
    error = await converter.decode_failure(failure)
    assert isinstance(error, ApplicationError)
    assert (error.message, error.details) == ("canary-message", ({"why": "canary-detail"},))


def test_keys_that_are_not_there_are_missed_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigurationError, match="file:/nowhere/keys cannot be read"):
        data_converter("file:/nowhere/keys")
    monkeypatch.setenv("KEYS", "canary")
    with pytest.raises(ConfigurationError, match="HELIX_ENCRYPTION_KEYS cannot be used"):
        data_converter("env:KEYS")


async def test_without_keys_failures_stay_readable_in_the_ui() -> None:
    failure = Failure()
    await data_converter().encode_failure(ApplicationError("it broke"), failure)
    assert failure.message == "it broke"
