"""No secret is found anywhere it has no business to be: they are searched for."""

from __future__ import annotations

import asyncio
import base64
import json
import subprocess
import threading
import uuid
from typing import Any

import httpx
import pytest
from temporalio.client import Client

from tests.e2e.machine import Machine, Project
from tests.services.registry import TestRegistry

pytestmark = pytest.mark.engine


def decoded(value: Any) -> str:
    """All text of a history, payloads decoded."""
    if isinstance(value, dict):
        found = [decoded(one) for one in value.values()]
        if isinstance(value.get("data"), str):
            found.append(base64.b64decode(value["data"]).decode(errors="replace"))
        return "\n".join(found)
    if isinstance(value, list):
        return "\n".join(decoded(one) for one in value)
    return str(value)


async def histories(address: str, project: Project) -> str:
    """Every history of the instance, as text."""
    client = await Client.connect(address)
    found = []
    async for run in client.list_workflows(f'WorkflowId = "deploy:{project.name}/dev"'):
        handle = client.get_workflow_handle(run.id, run_id=run.run_id)
        history = await handle.fetch_history()
        found.append(decoded(json.loads(history.to_json())))
    assert found
    return "\n".join(found)


def test_a_secret_is_in_the_container_and_nowhere_else(
    machine: Machine, project: Project, registry: TestRegistry
) -> None:
    canary = f"canary-{uuid.uuid4().hex}"
    build_canary = f"canary-{uuid.uuid4().hex}"
    machine.env |= {"CANARY": canary, "BUILD_CANARY": build_canary}
    toml = project.folder / "helix.toml"
    toml.write_text(
        toml.read_text()
        + '[deploy.dev.secrets]\nGREETING = "env:CANARY"\n'
        + '[deploy.dev.build.secrets]\nnpm = "env:BUILD_CANARY"\n'
    )
    dockerfile = project.folder / "Dockerfile"
    dockerfile.write_text(
        dockerfile.read_text()
        + "RUN --mount=type=secret,id=npm test -s /run/secrets/npm && sleep 1\n"
    )
    arguments: list[str] = []
    stop = threading.Event()

    def watch_processes() -> None:
        while not stop.wait(0.05):
            arguments.append(
                subprocess.run(["ps", "axww", "-o", "args"], capture_output=True, text=True).stdout
            )

    watcher = threading.Thread(target=watch_processes)
    watcher.start()
    project.behave("1")
    output = project.push("--json").text
    project.behave("2", "broken")
    output += project.push(expect=3).text
    stop.set()
    watcher.join()

    assert httpx.get(project.url).json()["env"] == canary, "the service has it"

    address = machine.stack()["address"]
    everywhere = {
        "histories": asyncio.run(histories(address, project)),
        "output": output,
        "process arguments": "\n".join(arguments),
        "labels": json.dumps([one.labels for one in project.containers()]),
        "image": json.dumps([one.image.history() for one in project.containers()]),
        "history command": project.helix("history", "dev", "--json").text,
        "status command": project.helix("status", "--json").text,
        "build log": project.helix("logs", "dev", "--build").text,
    }
    for secret in (canary, build_canary, registry.password):
        for where, text in everywhere.items():
            assert secret not in text, f"found in {where}"
    # What the shell knew and the worker needs is handed over in files of its owner alone.
    handed_over = machine.home / "state" / "env"
    for file in (machine.home / "state").rglob("*"):
        if not file.is_file():
            continue
        if handed_over in file.parents:
            assert file.stat().st_mode & 0o077 == 0
            continue
        content = file.read_bytes()
        for secret in (canary, build_canary, registry.password):
            assert secret.encode() not in content, f"found in {file.name}"


def test_files_of_the_state_folder_are_private(machine: Machine, project: Project) -> None:
    state = machine.home / "state"
    assert state.stat().st_mode & 0o077 == 0
