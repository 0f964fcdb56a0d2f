"""Histories of runs: downloaded from Temporal, or read from a file that was exported."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from model.errors import ConfigurationError, NotFound

if TYPE_CHECKING:
    from temporalio.client import Client, WorkflowHistory

    from cli.follow import Run

MEMBER = "history.json"
"""The history's name in an evidence bundle."""


async def download(client: Client, run: Run) -> WorkflowHistory:
    """A run's whole history, as far as it is.

    Raises:
        NotFound: Temporal has forgotten the run: its retention is over.
        RPCError: Temporal does not answer.
    """
    from temporalio.service import RPCError, RPCStatusCode

    handle = client.get_workflow_handle(run.workflow_id, run_id=run.deployment)
    try:
        return await handle.fetch_history()
    except RPCError as error:
        if error.status is not RPCStatusCode.NOT_FOUND:
            raise
        raise NotFound(
            f"Temporal no longer has the history of {run.deployment}",
            hint="its retention is over; replay a file that helix export wrote before",
        ) from None


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
