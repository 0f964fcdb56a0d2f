"""Histories of runs: downloaded from Temporal, or read from a file that was exported."""

from __future__ import annotations

import base64
import json
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from model.errors import ConfigurationError, NotFound

if TYPE_CHECKING:
    from temporalio.client import Client, WorkflowHistory
    from temporalio.converter import PayloadCodec

    from cli.follow import Run

MEMBER = "history.json"
"""The history's name in an evidence bundle."""


async def download(client: Client, run: Run) -> WorkflowHistory:
    """A run's whole history, as far as it is, decrypted.

    Raises:
        NotFound: Temporal has forgotten the run: its retention is over.
        ConfigurationError: a key that it is encrypted with is missing.
        RPCError: Temporal does not answer.
    """
    from temporalio.service import RPCError, RPCStatusCode

    handle = client.get_workflow_handle(run.workflow_id, run_id=run.deployment)
    try:
        return await decrypted(await handle.fetch_history(), client.data_converter.payload_codec)
    except RPCError as error:
        if error.status is not RPCStatusCode.NOT_FOUND:
            raise
        raise NotFound(
            f"Temporal no longer has the history of {run.deployment}",
            hint="its retention is over; replay a file that helix export wrote before",
        ) from None


async def decrypted(history: WorkflowHistory, codec: PayloadCodec | None) -> WorkflowHistory:
    """The history as it would be without encryption.

    Raises:
        ConfigurationError: a key is missing.
    """
    from temporalio.client import WorkflowHistory

    if codec is None:
        return history
    document = await _decrypted(history.to_json_dict(), codec)
    return WorkflowHistory.from_json(history.workflow_id, document)


async def _decrypted(value: Any, codec: PayloadCodec) -> Any:
    match value:
        case {"metadata": {"encoding": _}}:
            return await _plain_payload(value, codec)
        case {"encodedAttributes": hidden, **rest}:
            return {**await _decrypted(rest, codec), **await _plain_failure(hidden, codec)}
        case dict():
            return {key: await _decrypted(each, codec) for key, each in value.items()}
        case list():
            return [await _decrypted(each, codec) for each in value]
    return value


async def _plain_payload(value: dict[str, Any], codec: PayloadCodec) -> dict[str, Any]:
    from google.protobuf.json_format import MessageToDict, ParseDict
    from temporalio.api.common.v1 import Payload

    [payload] = await codec.decode([ParseDict(value, Payload())])
    return MessageToDict(payload)


async def _plain_failure(hidden: dict[str, Any], codec: PayloadCodec) -> dict[str, str]:
    """A failure's message and stack trace, which a converter has put into a payload."""
    payload = await _plain_payload(hidden, codec)
    found = json.loads(base64.b64decode(payload["data"]))
    return {"message": found["message"], "stackTrace": found.get("stack_trace", "")}


def is_file(text: str) -> bool:
    """Whether a text names a history's file, and not a deployment."""
    return Path(text).suffix in {".json", ".zip"}


def read(path: Path) -> WorkflowHistory:
    """The history in a file: `temporal workflow show -o json`, or a bundle of `helix export`.

    Raises:
        NotFound: there is no such file.
        ConfigurationError: it holds no history.
    """
    from google.protobuf.json_format import ParseError
    from temporalio.client import WorkflowHistory

    try:
        text = _text(path)
        history = WorkflowHistory.from_json(_workflow_id(json.loads(text)) or path.stem, text)
    except FileNotFoundError:
        raise NotFound(f"there is no file {path}", hint="helix export writes one") from None
    except (OSError, zipfile.BadZipFile, KeyError, ValueError, TypeError, ParseError) as error:
        raise ConfigurationError(
            f"{path} holds no history: {str(error).splitlines()[0]}",
            hint="expected a file of helix export, or of: temporal workflow show -o json",
        ) from None
    if not history.events:
        raise ConfigurationError(
            f"{path} holds no event", hint="export it again: helix export DEPLOYMENT"
        )
    return history


def _text(path: Path) -> str:
    if path.suffix == ".zip":
        with zipfile.ZipFile(path) as bundle:
            return bundle.read(MEMBER).decode()
    return path.read_text()


def _workflow_id(document: dict[str, Any]) -> str:
    """The run's workflow id: its first event carries it."""
    first = document["events"][0]
    return str(first.get("workflowExecutionStartedEventAttributes", {}).get("workflowId", ""))
