"""Two machines carry out deployments for one Temporal, and one of them is lost.

Each machine is a network namespace with an engine of its own, which it builds with, and a worker.
They share what workers must share, and reach it by the network only: the Temporal server, the
ledger in PostgreSQL, the store in S3, the registry, and the engine that the instance runs on.
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import ssl
import subprocess
import tempfile
import time
import uuid
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest
from temporalio.api.enums.v1 import EventType
from temporalio.client import Client

from tests.e2e.conftest import DOCKERFILE
from tests.e2e.machine import HELIX, Machine, Project, clean_up, eventually, make_project
from tests.e2e.runs import is_running, wait_for_activity
from tests.services.bridges import tcp_engine
from tests.services.certificates import make_certificates
from tests.services.namespaces import Host, engine_in, network
from tests.services.postgres import TestPostgres, postgres
from tests.services.registry import TestRegistry, secured_registry, trusted
from tests.services.s3 import s3
from tests.services.temporal import server_at

logger = logging.getLogger(__name__)

pytestmark = [pytest.mark.engine, pytest.mark.registry, pytest.mark.timeout(900)]

BASE_IMAGE = "python:3-slim"
RECOVERY_SECONDS = 300
"""Far more than it takes: this machine may be busy."""
HEALTH_PORT = 8080
"""The same on every machine: each has ports of its own."""


@dataclass
class Team:
    """What all workers share."""

    environment: dict[str, str]
    """How a worker, or a person, reaches it."""
    registry: TestRegistry
    engine: dict[str, str]
    """The instance's settings: the engine that it runs on."""
    database: TestPostgres
    hosts: dict[Host, Path]
    """A machine -> the socket of its own engine."""


@pytest.fixture(scope="module")
def team() -> Iterator[Team]:
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="hx")))
        net = stack.enter_context(network("a", "b"))
        registry = stack.enter_context(secured_registry(folder / "registry", address=net.address))
        stack.enter_context(trusted(registry))
        storage = stack.enter_context(s3(net.address))
        database = stack.enter_context(postgres(net.address))
        hosts = {}
        for host in net.hosts:
            place = folder / host.name[-1]
            place.mkdir()
            stack.enter_context(engine_in(host.name, place))
            load_base(place / "d.sock")
            hosts[host] = place / "d.sock"
        yield Team(
            environment={
                **storage,
                "TEMPORAL_ADDRESS": stack.enter_context(
                    server_at(net.address, folder / "temporal.log")
                ),
                "REGISTRY_PASSWORD": registry.password,
            },
            registry=registry,
            engine=stack.enter_context(shared_engine(folder / "tls", net.address)),
            database=database,
            hosts=hosts,
        )


@contextmanager
def shared_engine(folder: Path, address: str) -> Iterator[dict[str, str]]:
    """This machine's engine, reached by the network and TLS: an instance's settings."""
    made = make_certificates(folder, addresses=(address,))
    for name, source in (("cert", made.certificate), ("key", made.key)):
        (folder / f"{name}.pem").write_bytes(source.read_bytes())
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=str(made.ca))
    context.verify_mode = ssl.CERT_REQUIRED
    context.load_cert_chain(made.certificate, made.key)
    with tcp_engine(context, address) as port:
        yield {"host": f"tcp://{address}:{port}", "tls": str(folder)}


def load_base(socket: Path) -> None:
    """Give an engine the image that the app is based on."""
    saving = subprocess.Popen(["docker", "save", BASE_IMAGE], stdout=subprocess.PIPE)
    loading = ["docker", "--host", f"unix://{socket}", "load"]
    subprocess.run(loading, stdin=saving.stdout, check=True, capture_output=True)
    assert saving.wait(60) == 0


@dataclass
class Worker:
    """A worker on a machine of its own."""

    host: Host
    state: Path
    environment: dict[str, str]
    process: subprocess.Popen[bytes] | None = field(default=None)

    @property
    def name(self) -> str:
        return self.environment["HELIX_WORKER_NAME"]

    def start(self) -> None:
        """`helix worker`, until it takes work."""
        with (self.state / "log").open("ab") as log:
            self.process = subprocess.Popen(
                [*self.host.enter, *HELIX, "worker"],
                env=self.environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log,
            )  # fmt: skip
        eventually(self.is_ready, 120, f"worker {self.name}")

    def is_ready(self) -> bool:
        """Asked over the network."""
        try:
            answer = httpx.get(f"http://{self.host.address}:{HEALTH_PORT}/readyz", timeout=5)
        except httpx.HTTPError:
            return False
        return answer.status_code == 200

    def kill(self) -> None:
        """SIGKILL, and nobody is told."""
        if self.process is not None:
            self.process.kill()
            self.process.wait()

    def end(self) -> None:
        """SIGTERM."""
        assert self.process is not None
        self.process.send_signal(signal.SIGTERM)
        assert self.process.wait(120) == 0

    @property
    def contexts(self) -> list[Path]:
        """The sources that builds have unpacked here."""
        return list((self.state / "scratch").rglob("context"))


@dataclass
class Fleet(Machine):
    """A person at a third machine, and the workers of the team."""

    workers: dict[str, Worker] = field(default_factory=dict)

    def stack(self) -> dict[str, Any]:
        return {"address": self.env["TEMPORAL_ADDRESS"]}

    def worker_of(self, identity: str) -> tuple[Worker, Worker]:
        """The worker with a Temporal identity, and the other one."""
        one, other = self.workers.values()
        assert one.process is not None
        pair = (one, other) if identity.startswith(f"{one.process.pid}@") else (other, one)
        assert pair[0].process is not None
        assert identity.startswith(f"{pair[0].process.pid}@")
        return pair


@pytest.fixture
def fleet(team: Team) -> Iterator[Fleet]:
    """Both workers, on a task queue and a ledger of their own."""
    shared = team.environment | {
        "HELIX_LEDGER_URL": team.database.new_database(),
        "HELIX_TASK_QUEUE": f"fleet-{uuid.uuid4().hex[:8]}",
    }
    with tempfile.TemporaryDirectory(prefix="hx") as folder:
        fleet = Fleet(Path(folder), shared)
        for host, socket in team.hosts.items():
            state = Path(folder, host.name)
            state.mkdir()
            own = {
                "HELIX_STATE_DIR": str(state),
                "HELIX_WORKER_NAME": host.name,
                "HELIX_HEALTH_ADDRESS": f"0.0.0.0:{HEALTH_PORT}",
                "DOCKER_HOST": f"unix://{socket}",
            }
            fleet.workers[host.name] = Worker(host, state, fleet.environ() | own)
        try:
            for worker in fleet.workers.values():
                worker.start()
            yield fleet
        finally:
            for worker in fleet.workers.values():
                worker.kill()
                worker.host.mend()


@pytest.fixture
def project(fleet: Fleet, team: Team) -> Iterator[Project]:
    """Release 1 runs; the next one takes its time in every step."""
    made = make_project(fleet, team.registry, deploy='strategy = "stop-first"')
    toml = made.folder / "helix.toml"
    settings = "".join(f'\n{key} = "{value}"' for key, value in team.engine.items())
    text = toml.read_text().replace("[cloud.dev.docker]", f"[cloud.dev.docker]{settings}")
    toml.write_text(text.replace("stop_grace = 3", "stop_grace = 8"))
    made.patience(60)
    (made.folder / "ballast").write_bytes(os.urandom(100_000))
    (made.folder / "Dockerfile").write_text(DOCKERFILE)
    try:
        made.behave("1", stubborn=True)
        made.push()
        yield made
    finally:
        clean_up(made)


LOSSES = {
    "killed": lambda worker: worker.kill(),
    "cut-off": lambda worker: worker.host.cut(),
}
"""Of a machine: its worker is gone, or goes on without the network."""


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("moment", ["build", "start_release"])
def test_the_other_machine_takes_over(
    fleet: Fleet, project: Project, moment: str, loss: str
) -> None:
    project.behave("2", stubborn=True)
    project.push("--detach")
    lost, other = fleet.worker_of(wait_for_activity(fleet, project, moment))
    if moment == "start_release":  # in the middle of it: it waits for the one before to end
        eventually(lambda: "2" in releases(project), 60, "the container of the release")
    LOSSES[loss](lost)
    began = time.monotonic()
    eventually(lambda: not is_running(fleet, project), RECOVERY_SECONDS, "the end")
    logger.info("%s, %s: the end after %.0f s", loss, moment, time.monotonic() - began)

    assert_one_release(project, "2")
    done = who_did(fleet, project)
    assert done[moment] == other.name
    if moment == "build":  # and what is tied to the machine that built
        assert done["push"] == other.name

    # The lock is free. What the lost one still has on its mind is a release old now.
    project.behave("3", stubborn=True)
    project.push()
    assert_one_release(project, "3")

    # It comes back, and has ended all that it does before it ends.
    lost.host.mend()
    if loss == "cut-off":
        eventually(lost.is_ready, 120, "the worker that was cut off")
        lost.end()
        assert not lost.contexts
        assert_one_release(project, "3")

    # It is as good as the other.
    lost.start()
    assert not other.contexts
    other.end()
    project.behave("4")
    project.push()
    assert_one_release(project, "4")
    assert set(who_did(fleet, project).values()) == {lost.name}
    assert not lost.contexts


def assert_one_release(project: Project, version: str) -> None:
    """It is the one that runs, answers, and is in the ledger; nothing else is there but what
    belongs to it and to a rollback."""
    rows = project.history()
    assert [row["number"] for row in rows] == list(range(int(version), 0, -1))
    assert {row["progress"]["outcome"] for row in rows} == {"succeeded"}
    assert project.version() == version
    found = releases(project)
    assert [one for one, states in found.items() if "running" in states] == [version]
    assert all(len(states) == 1 for states in found.values())
    edges = [one for one in project.containers() if one.labels["helix.role"] == "edge"]
    assert [one.status for one in edges] == ["running"]


def releases(project: Project) -> dict[str, list[str]]:
    """A release -> the states of its containers."""
    found: dict[str, list[str]] = {}
    for one in project.containers():
        if one.labels["helix.role"] == "app":
            found.setdefault(one.labels["helix.release"], []).append(one.status)
    return found


def who_did(fleet: Fleet, project: Project) -> dict[str, str]:
    """Activity of the last deployment -> the worker whose result counted."""
    names = {worker.process.pid: name for name, worker in fleet.workers.items() if worker.process}

    async def ask() -> dict[str, str]:
        client = await Client.connect(fleet.env["TEMPORAL_ADDRESS"])
        history = await client.get_workflow_handle(f"deploy:{project.name}/dev").fetch_history()
        scheduled: dict[int, str] = {}
        found: dict[str, str] = {}
        for event in history.events:
            if event.event_type == EventType.EVENT_TYPE_ACTIVITY_TASK_SCHEDULED:
                kind = event.activity_task_scheduled_event_attributes.activity_type.name
                scheduled[event.event_id] = kind
            elif event.event_type == EventType.EVENT_TYPE_ACTIVITY_TASK_COMPLETED:
                done = event.activity_task_completed_event_attributes
                pid = int(done.identity.partition("@")[0])
                found[scheduled[done.scheduled_event_id]] = names[pid]
        return found

    return asyncio.run(ask())
