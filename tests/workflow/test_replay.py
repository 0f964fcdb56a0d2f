"""Every deployment that an earlier version began can be carried on by this one."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest
from temporalio.client import WorkflowHistory
from temporalio.contrib.pydantic import pydantic_data_converter
from temporalio.worker import Replayer, UnsandboxedWorkflowRunner

from worker.main import WORKFLOWS
from workflows.deploy import DeployWorkflow

HISTORIES = sorted((Path(__file__).parent.parent / "histories").glob("*.json"))


def history(path: Path) -> WorkflowHistory:
    return WorkflowHistory.from_json(path.stem, path.read_text())


def test_there_are_histories_of_every_kind_of_end() -> None:
    names = {path.name.split(".v")[0] for path in HISTORIES}
    assert {"deploy-succeeded", "deploy-first-failed", "deploy-needs-attention"} <= names
    assert len([name for name in names if "cancelled-at" in name]) == 7
    assert len([name for name in names if "failed-at" in name]) == 7
    assert {"deploy-approved", "deploy-told-to-skip", "deploy-bake-failed"} <= names
    assert {"redeploy-succeeded", "redeploy-failed", "redeploy-skipped", "redeploy-waited"} <= names


def test_some_were_recorded_by_a_version_before_this_one() -> None:
    versions = {path.stem.rpartition(".v")[2] for path in HISTORIES}
    assert versions - {version("helix-deploy")}


@pytest.mark.parametrize("path", HISTORIES, ids=lambda path: path.stem)
async def test_a_recorded_history_replays(path: Path) -> None:
    replayer = Replayer(workflows=WORKFLOWS, data_converter=pydantic_data_converter)
    await replayer.replay_workflow(history(path))


async def test_a_changed_order_of_steps_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    """The guard itself is guarded: a workflow that does other things must not replay."""
    real: Callable[..., Coroutine[Any, Any, Any]] = DeployWorkflow._authenticate
    monkeypatch.setattr(DeployWorkflow, "_authenticate", lambda self: asyncio.sleep(0))
    replayer = Replayer(
        workflows=[DeployWorkflow],
        data_converter=pydantic_data_converter,
        workflow_runner=UnsandboxedWorkflowRunner(),
    )
    path = next(path for path in HISTORIES if path.name.startswith("deploy-succeeded"))
    result = await replayer.replay_workflow(history(path), raise_on_replay_failure=False)
    assert result.replay_failure is not None
    monkeypatch.setattr(DeployWorkflow, "_authenticate", real)
    await replayer.replay_workflow(history(path))
