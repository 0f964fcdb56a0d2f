"""Two versions of the worker at once: each finishes what it began."""

from __future__ import annotations

import asyncio
import subprocess
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from uuid import uuid4

import pytest
from temporalio.client import Client

from cli import temporal
from tests.e2e.machine import HELIX, Machine, Project, eventually

APPROVAL = 'approval = { window = "10m" }'


@pytest.fixture
def team(machine: Machine, tmp_path: Path) -> Machine:
    """A machine whose Temporal is configured, and whose task queue is its own."""
    address = machine.stack()["address"]
    settings = {
        "TEMPORAL_ADDRESS": address,
        "HELIX_TASK_QUEUE": f"team-{uuid4().hex[:8]}",
        "HELIX_STATE_DIR": str(tmp_path),
    }
    return Machine(machine.home, machine.env | settings)


@contextmanager
def worker(team: Machine, version: str) -> Iterator[subprocess.Popen[str]]:
    """`helix worker` of a version, made current."""
    env = team.environ() | {"HELIX_BUILD_ID": version, "HELIX_WORKER_NAME": f"here-{version}"}
    process = subprocess.Popen([*HELIX, "worker"], env=env, stdin=subprocess.DEVNULL, text=True)
    try:
        eventually(lambda: make_current(team, version), 120, f"version {version}")
        yield process
    finally:
        process.terminate()
        assert process.wait(60) == 0


def make_current(team: Machine, version: str) -> bool:
    program = temporal.program(lambda _: None)
    done = subprocess.run(
        [
            program, "worker", "deployment", "set-current-version", "--yes",
            "--deployment-name", team.env["HELIX_TASK_QUEUE"], "--build-id", version,
            "--address", team.env["TEMPORAL_ADDRESS"],
        ],
        capture_output=True,
    )  # fmt: skip
    return done.returncode == 0


def version_of(team: Machine, deployment: str) -> str:
    """Which version of the worker a deployment ran on."""

    async def ask() -> str:
        client = await Client.connect(team.env["TEMPORAL_ADDRESS"])
        async for run in client.list_workflows("WorkflowType = 'DeployWorkflow'"):
            if run.run_id == deployment:
                found = await client.get_workflow_handle(run.id, run_id=run.run_id).describe()
                info = found.raw_description.workflow_execution_info.versioning_info
                return str(info.deployment_version.build_id)
        raise AssertionError(f"{deployment} is not there")

    return asyncio.run(ask())


def test_an_old_deployment_ends_on_its_version_while_a_new_one_runs_on_the_next(
    team: Machine, projects: Callable[..., Project]
) -> None:
    old, new = projects(deploy=APPROVAL), projects()
    old.machine = new.machine = team
    with ExitStack() as workers:
        workers.enter_context(worker(team, "v1"))
        (begun,) = old.push("--detach", "--json").events
        waits = lambda: "asking-approval" in old.helix("status", "--json").out  # noqa: E731
        eventually(waits, 60, "the question")

        workers.enter_context(worker(team, "v2"))
        end = new.push("--json").events[-1]
        assert version_of(team, end["deployment"]) == "v2"

        old.helix("approve", "dev", "--reason", "it was asked of v1")
        eventually(
            lambda: old.history()[0]["progress"]["outcome"] == "succeeded", 60, "the old deployment"
        )
        assert version_of(team, begun["deployment"]) == "v1"
    assert old.version() == new.version() == "1"
