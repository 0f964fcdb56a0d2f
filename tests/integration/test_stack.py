"""The embedded stack on real processes: started once, found by all, repaired after any death."""

from __future__ import annotations

import asyncio
import json
import os
import random
import shutil
import signal
import socket
import stat
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from temporalio.client import Client, WorkflowExecutionStatus

from cli import daemon, probe, stack
from cli.stack import Stack, Status
from model.errors import ConfigurationError
from project.secrets import read_env_file
from tests.services.need import program
from worker import paths
from worker.client import connect, pollers, require_worker
from worker.errors import NoWorker, Unreachable

ENSURE = [sys.executable, "-c", "from cli import stack; print(stack.ensure().address)"]


@pytest.fixture(scope="module")
def home() -> Iterator[Path]:
    """A state folder of its own, and no Temporal configured."""
    program("temporal", "temporal")
    folder = Path(tempfile.mkdtemp(prefix="helix-stack-"))
    with pytest.MonkeyPatch.context() as patch:
        for name in os.environ:
            if name.startswith(("TEMPORAL_", "HELIX_")):
                patch.delenv(name)
        patch.setenv("HELIX_STATE_DIR", str(folder / "state"))
        patch.setenv("XDG_CONFIG_HOME", str(folder / "config"))
        yield folder / "state"
        stack.stop()
    shutil.rmtree(folder)


@pytest.fixture
def running(home: Path) -> Stack:
    return stack.ensure()


def processes(home: Path) -> list[int]:
    """Every process of the stack, whatever its records say."""
    found = []
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            command = (entry / "cmdline").read_bytes()
            environ = (entry / "environ").read_bytes()
        except OSError:
            continue
        ours = f"HELIX_STATE_DIR={home}".encode() in environ and b"worker.main" in command
        if ours or str(home / "temporal.db").encode() in command:
            found.append(int(entry.name))
    return found


def pids() -> tuple[int, int]:
    now = stack.status()
    assert now.server is not None and now.worker is not None
    return now.server.pid, now.worker.pid


def taken(port: int) -> socket.socket:
    """The port in somebody else's hands; the system frees it a moment after its holder's death."""
    deadline = time.monotonic() + 5
    while True:
        try:
            return socket.create_server(("127.0.0.1", port))
        except OSError:
            assert time.monotonic() < deadline
            time.sleep(0.01)


def gone(pid: int) -> None:
    deadline = time.monotonic() + 5
    while daemon.birth(pid):
        assert time.monotonic() < deadline
        time.sleep(0.01)


async def start_something(running: Stack, name: str) -> Client:
    """A workflow that nobody takes: it stays under way."""
    client = await stack.connect(running)
    await client.start_workflow("Nothing", id=name, task_queue="nobody")
    return client


async def end_everything(client: Client) -> None:
    async for one in client.list_workflows('ExecutionStatus = "Running"'):
        await client.get_workflow_handle(one.id).terminate()


def test_it_starts_says_so_and_is_reused(home: Path) -> None:
    stack.stop()
    said: list[str] = []
    first = stack.ensure(said.append)
    assert first.started and first.embedded and len(said) == 1
    again = stack.ensure(said.append)
    assert again == Stack(first.address, "default", first.ui_url, embedded=True)
    assert len(said) == 1
    assert probe.get(int(first.ui_url.rpartition(":")[2]), "/")[0] == 200
    assert len(processes(home)) == 2
    now = stack.status()
    assert (now.ready, now.healthy, now.deploying) == (True, True, False)


def test_finding_it_costs_milliseconds_and_imports_nothing_heavy(running: Stack) -> None:
    code = """
import sys, time
from cli import stack
took = []
for _ in range(5):
    before = time.perf_counter()
    assert not stack.ensure().started
    took.append(time.perf_counter() - before)
heavy = {"temporalio", "pydantic", "pydantic_settings", "asyncio", "http", "ssl", "sqlalchemy"}
print(min(took), *sorted(heavy & set(sys.modules)))
"""
    found = subprocess.run(
        [sys.executable, "-c", code], check=True, capture_output=True, text=True
    ).stdout.split()
    assert float(found[0]) < 0.05
    assert found[1:] == []


async def test_it_is_a_server_as_we_need_it_and_a_worker_that_polls(running: Stack) -> None:
    client = await stack.connect(running)
    await require_worker(client, "helix-deploy")
    own = f"helix-deploy@{socket.gethostname()}"
    await require_worker(client, own, activities=True)
    assert not await pollers(client, own), "a worker's own queue has activities only"
    from temporalio.api.operatorservice.v1 import ListSearchAttributesRequest
    from temporalio.api.workflowservice.v1 import DescribeNamespaceRequest

    attributes = await client.operator_service.list_search_attributes(
        ListSearchAttributesRequest(namespace="default")
    )
    assert {"DeployInstance", "DeployImage", "DeployTrigger", "DeployStep"} <= set(
        attributes.custom_attributes
    )
    namespace = await client.workflow_service.describe_namespace(
        DescribeNamespaceRequest(namespace="default")
    )
    days = namespace.config.workflow_execution_retention_ttl.ToTimedelta().days
    assert days == 30


def test_nobody_else_can_read_its_files(running: Stack, home: Path) -> None:
    assert stat.S_IMODE(home.stat().st_mode) == 0o700
    modes = {
        path.name: stat.S_IMODE(path.stat().st_mode) for path in home.iterdir() if path.is_file()
    }
    assert {"temporal.db", "server.log", "worker.log", "server.json"} <= set(modes)
    assert all(mode & 0o077 == 0 for mode in modes.values()), modes


async def test_a_killed_server_is_replaced_and_remembers(running: Stack) -> None:
    client = await start_something(running, "survivor")
    server, worker = pids()
    os.kill(server, signal.SIGKILL)
    gone(server)
    mended = stack.ensure()
    assert mended.started
    assert (mended.address, mended.ui_url) == (running.address, running.ui_url)
    assert pids()[0] != server and pids()[1] == worker
    client = await stack.connect(mended)
    found = await client.get_workflow_handle("survivor").describe()
    assert found.status is WorkflowExecutionStatus.RUNNING
    await end_everything(client)
    await require_worker(client, "helix-deploy", patience=20)


def test_a_killed_worker_is_replaced(running: Stack) -> None:
    server, worker = pids()
    os.kill(worker, signal.SIGKILL)
    gone(worker)
    said: list[str] = []
    assert stack.ensure(said.append).started
    assert said == ["starting a new worker of the embedded stack"]
    assert pids()[0] == server and pids()[1] != worker


def test_a_worker_that_hangs_is_replaced(
    running: Stack, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, worker = pids()
    os.kill(worker, signal.SIGSTOP)
    monkeypatch.setattr(stack, "ANSWER_SECONDS", 1.0)
    assert stack.ensure().started
    assert pids()[1] != worker
    assert len(processes(home)) == 2


def test_commands_that_start_at_once_share_one_stack(home: Path) -> None:
    stack.stop()
    commands = [
        subprocess.Popen(ENSURE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        for _ in range(6)
    ]
    answers = set()
    for command in commands:
        out, err = command.communicate(timeout=120)
        assert command.returncode == 0, err
        answers.add(out)
    assert len(answers) == 1
    assert len(processes(home)) == 2


def test_a_command_killed_while_it_starts_the_stack_leaves_no_second_one(home: Path) -> None:
    chance = random.Random(7)
    for _ in range(3):
        stack.stop()
        command = subprocess.Popen(ENSURE, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        time.sleep(chance.uniform(0.05, 1.5))
        command.kill()
        command.wait()
        stack.ensure()
        assert sorted(processes(home)) == sorted(pids())


def test_a_port_that_somebody_took_meanwhile_is_given_up(home: Path) -> None:
    before = stack.ensure()
    server, worker = pids()
    os.kill(server, signal.SIGKILL)
    gone(server)
    with taken(int(before.address.rpartition(":")[2])):
        mended = stack.ensure()
        assert mended.address != before.address
        assert pids()[1] != worker, "the worker must follow the server"
        assert len(processes(home)) == 2


def test_another_setting_restarts_the_worker(
    running: Stack, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, worker = pids()
    monkeypatch.setenv("HELIX_DEBUG", "1")
    assert not stack.ensure().started, "this one is not the worker's"
    monkeypatch.setenv("HELIX_LOG_FORMAT", "json")
    assert stack.ensure().started
    assert pids()[1] != worker


async def test_other_accounts_restart_the_worker_but_not_under_a_deployment(
    running: Stack, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, worker = pids()
    monkeypatch.setenv("AWS_PROFILE", "prod")
    assert not stack.ensure(for_work=False).started, "a command that only looks"
    client = await stack.connect(running)
    await end_everything(client)
    await start_something(running, "busy")
    await _visible(client)
    said: list[str] = []
    assert not stack.ensure(said.append).started
    assert "a deployment is running" in said[0]
    await end_everything(client)
    await _visible(client, 0)
    assert stack.ensure().started
    assert pids()[1] != worker


async def _visible(client: Client, count: int = 1) -> None:
    for _ in range(100):
        if (await client.count_workflows('ExecutionStatus = "Running"')).count == count:
            return
        await asyncio.sleep(0.05)
    raise AssertionError("the server does not list it")


def test_stop_ends_everything_and_the_next_start_is_in_the_same_place(home: Path) -> None:
    before = stack.ensure()
    stack.hand_over_env("acme/shop", ["HOME"])
    assert stack.stop()
    assert processes(home) == []
    assert not list(home.glob("env/*")), "secrets are not kept longer than needed"
    assert not stack.stop()
    assert stack.status() == Status(home, None, None, False, False, False)
    after = stack.ensure()
    assert (after.address, after.ui_url) == (before.address, before.ui_url)


def test_stop_leaves_a_stranger_with_a_recycled_id_alone(home: Path) -> None:
    stack.stop()
    stranger = subprocess.Popen(["sleep", "60"])
    try:
        for name in ("server", "worker"):
            record = home / f"{name}.json"
            claim = json.loads(record.read_text()) | {"pid": stranger.pid}
            record.write_text(json.dumps(claim))
        assert not stack.stop()
        assert stack.ensure().started
        assert stranger.pid not in pids()
        stack.stop()
        assert stranger.poll() is None
    finally:
        stranger.kill()
        stranger.wait()


def test_a_server_that_cannot_start_is_explained(
    tmp_path: Path, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HELIX_STATE_DIR", str(tmp_path / "state"))
    (tmp_path / "state").mkdir()
    (tmp_path / "state" / "temporal.db").write_text("not a database, and nobody's fault but mine")
    with pytest.raises(Unreachable, match="does not start") as caught:
        stack.ensure()
    assert caught.value.evidence and "server.log" in caught.value.hint
    assert processes(tmp_path / "state") == []


def test_a_worker_that_cannot_start_is_explained(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HELIX_HEALTH_ADDRESS", "nonsense")
    with pytest.raises(Unreachable, match="worker does not start") as caught:
        stack.ensure()
    assert "HELIX_HEALTH_ADDRESS" in caught.value.evidence
    monkeypatch.delenv("HELIX_HEALTH_ADDRESS")
    assert stack.ensure().started


def test_a_folder_that_cannot_be_made_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HELIX_STATE_DIR", "/dev/null/state")
    with pytest.raises(ConfigurationError, match="cannot be made"):
        stack.ensure()


def test_values_are_handed_over_whole_private_and_for_one_instance(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    state = tmp_path / "state"
    monkeypatch.setenv("HELIX_STATE_DIR", str(state))
    hard = "a \"b\" 'c' \\n \n$HOME #no\ttab=ü\r\n"
    stack.hand_over_env("acme/shop", ["A", "B", "NONE"], {"A": hard, "B": "1", "C": "not asked"})
    stack.hand_over_env("acme/shop", ["B", "A"], {"B": "2"})
    stack.hand_over_env("acme/other", ["A"], {"A": "theirs"})
    mine = paths.env_file(state, "acme/shop")
    assert read_env_file(mine) == {"A": hard, "B": "2"}
    assert read_env_file(paths.env_file(state, "acme/other")) == {"A": "theirs"}
    assert stat.S_IMODE(mine.stat().st_mode) == 0o600
    assert stat.S_IMODE(mine.parent.stat().st_mode) == 0o700


async def test_nobody_at_work_is_said_within_seconds(temporal: Client) -> None:
    before = time.monotonic()
    with pytest.raises(NoWorker, match="no worker polls the task queue «empty»"):
        await require_worker(temporal, "empty", patience=0.5)
    assert time.monotonic() - before < 3


async def test_no_server_and_no_namespace_are_said(
    temporal: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(Unreachable, match="nothing listens"):
        await connect("127.0.0.1:1")
    address = temporal.service_client.config.target_host
    client = await connect(address, "elsewhere")
    with pytest.raises(ConfigurationError, match="no namespace «elsewhere»"):
        await require_worker(client, "helix-deploy")
    with socket.create_server(("127.0.0.1", 0)) as silent:
        monkeypatch.setattr("worker.client.CONNECT_SECONDS", 0.5)
        with pytest.raises(Unreachable, match="did not answer"):
            await connect(f"127.0.0.1:{silent.getsockname()[1]}")


async def test_everything_of_a_configured_temporal_comes_from_its_own_configuration(
    temporal: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(ConfigurationError, match="no Temporal server is configured"):
        monkeypatch.setenv("TEMPORAL_CONFIG_FILE", os.devnull)
        await connect()
    monkeypatch.setenv("TEMPORAL_ADDRESS", temporal.service_client.config.target_host)
    client = await stack.connect(stack.ensure())
    assert client.namespace == "default"
    monkeypatch.setenv("TEMPORAL_TLS", "true")
    with pytest.raises(Unreachable, match="TLS"):
        await connect()
