"""The Temporal that a command works with: the one that is configured, or the embedded stack.

The embedded stack is a Temporal server with its UI, a worker, and the fork server that commands are
run by, all on this machine and in the background, started by the first command that needs them. Any
of them may be killed at any moment: the next `ensure` repairs what is missing, and its data is in
files.

Only the standard library is imported until something has to be started: a command that finds
everything running pays a few milliseconds.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote

from cli import code, daemon, forkserver, probe, temporal
from cli.daemon import Daemon
from model.errors import ConfigurationError, PlatformUnhealthy
from worker import paths
from worker.errors import Unreachable

if TYPE_CHECKING:
    from temporalio.client import Client

SERVER_SECONDS = 60.0
WORKER_SECONDS = 60.0
"""How long a start may take on a machine that is busy."""
ANSWER_SECONDS = 15.0
"""How long one that runs already may take to answer before it is replaced."""
LOCK_SECONDS = 180.0
GRACE_SECONDS = 5.0
"""How long the embedded worker's steps may go on when it is stopped. They are only interrupted:
the next worker goes on with them."""
LOG_BYTES = 5_000_000

AMBIENT = (
    "AWS_",
    "AZURE_",
    "BUILDKIT_",
    "BUILDX_",
    "CLOUDSDK_",
    "DOCKER_",
    "FLY_",
    "GOOGLE_",
    "HTTPS_PROXY",
    "HTTP_PROXY",
    "IDENTITY_",
    "KUBECONFIG",
    "NO_PROXY",
    "OTEL_",
    "REQUESTS_CA_BUNDLE",
    "SSH_AUTH_SOCK",
    "SSL_CERT_",
    "VAULT_",
)
"""Beginnings of the variables from which SDKs and tools take accounts and addresses. The worker has
those of the shell that started it; a command from another shell expects its own."""
NOT_SETTINGS = {"HELIX_DEBUG", "HELIX_FORKSERVER", "HELIX_UI_URL"}
"""They concern the command alone."""


@dataclass(frozen=True)
class Stack:
    """The Temporal that a command works with."""

    address: str
    """HOST:PORT."""
    namespace: str
    ui_url: str
    """Where the UI is, without a slash at the end; empty if unknown (HELIX_UI_URL tells)."""
    embedded: bool
    started: bool = False
    """Whether something had to be started for this command."""


@dataclass(frozen=True)
class Status:
    """What runs of the embedded stack."""

    folder: Path
    """Where its data and logs are."""
    server: Daemon | None
    worker: Daemon | None
    ready: bool
    """The server answers."""
    healthy: bool
    """The worker answers."""
    deploying: bool
    """A deployment, or the removal of an instance, is under way."""
    commands: Daemon | None = None
    """The fork server, which commands are run by."""


def ensure(say: Callable[[str], None] = lambda text: None, *, for_work: bool = True) -> Stack:
    """The configured Temporal, or else the embedded one, started or repaired where needed. Safe
    from any number of processes at once.

    Args:
        say: takes a line about what is started.
        for_work: the command starts work, and expects the worker to use the accounts of this shell.
            A worker that has others is replaced, unless a deployment is running.

    Raises:
        ConfigurationError: Temporal's configuration is wrong, or its program is missing.
        Unreachable: the server or the worker does not start; with the end of its log.
    """
    if (cluster := temporal.configured()) is not None:
        return _configured(cluster)
    state = _state_dir()
    ours = _Embedded(state, say, for_work)
    if (found := ours.running()) is not None:
        return found
    with _locked(state, say) as lock:
        return ours.repaired(lock)


def status() -> Status:
    """What runs of the embedded stack. Starts nothing."""
    state = paths.state_dir()
    server, worker = daemon.find(state / "server.json"), daemon.find(state / "worker.json")
    ready = server is not None and temporal.ready(server.detail["ui_port"])
    return Status(
        folder=state,
        server=server,
        worker=worker,
        ready=ready,
        healthy=worker is not None and _healthy(state, worker),
        deploying=ready and server is not None and _deploying(server),
        commands=daemon.find(state / "commands.json"),
    )


def embedded(server: Daemon, *, started: bool = False) -> Stack:
    """The embedded stack whose server this is."""
    return Stack(
        address=_address(server),
        namespace=temporal.NAMESPACE,
        ui_url=f"http://127.0.0.1:{server.detail['ui_port']}",
        embedded=True,
        started=started,
    )


def stop(say: Callable[[str], None] = lambda text: None) -> bool:
    """Stop the embedded stack. Returns False if nothing ran. What was being deployed goes on when
    the stack is started again. Values handed over by `hand_over_env` are forgotten."""
    state = paths.state_dir()
    if not state.is_dir():
        return False
    stopped = False
    with _locked(state, say):
        for name, grace in (("commands", 1.0), ("worker", GRACE_SECONDS + 3), ("server", 10.0)):
            if (running := daemon.find(state / f"{name}.json")) is not None:
                running.stop(grace)
                stopped = True
        for file in (state / "env").glob("*.env"):
            file.unlink(missing_ok=True)
    return stopped


async def connect(stack: Stack) -> Client:
    """A client of the stack's Temporal.

    Raises:
        Unreachable: it does not answer.
    """
    from worker.client import connect

    if stack.embedded:
        return await connect(stack.address, stack.namespace)
    return await connect()


def hand_over_env(
    instance_key: str, names: Iterable[str], environ: Mapping[str, str] = os.environ
) -> None:
    """Give the embedded worker the values of variables that an instance's `env:` secret references
    name.

    The worker was started by another shell, perhaps days ago. The values go into a file that only
    its owner can read; those of variables that this shell does not have stay as they were.

    Args:
        instance_key: `Instance.key`.
        names: the variables.
        environ: where their values are.
    """
    values = {name: environ[name] for name in names if name in environ}
    if not values:
        return
    state = _state_dir()
    with _locked(state, name="env.lock"):
        file = paths.env_file(state, instance_key)
        paths.private_dir(file.parent)
        lines = dict(_env_lines(file)) | {name: _quoted(value) for name, value in values.items()}
        paths.write_private(file, "".join(f"{key}={lines[key]}\n" for key in sorted(lines)))


class _Embedded:
    """The embedded stack, as one command finds it."""

    def __init__(self, state: Path, say: Callable[[str], None], for_work: bool) -> None:
        self._state = state
        self._say = say
        self._for_work = for_work
        self._identity = {
            "code": code.digest(code.WORKER),
            "settings": _settings(),
            "ambient": _ambient(),
        }

    def running(self) -> Stack | None:
        """The stack if nothing needs to be done."""
        server = daemon.find(self._state / "server.json")
        worker = daemon.find(self._state / "worker.json")
        if (
            server is None
            or worker is None
            or not self._same_server(server)
            or not self._same_worker(worker, server)
            or not temporal.ready(server.detail["ui_port"])
            or not _healthy(self._state, worker)
            or not self._commands()
        ):
            return None
        return embedded(server)

    def repaired(self, lock: int) -> Stack:
        """The stack, with whatever was missing started. `lock` is the file that holds the lock."""
        if (found := self.running()) is not None:  # another command was quicker
            return found
        kept = self._server()
        server = kept or self._start_server(lock)
        if self._worker(server) is None:
            if kept:
                self._say("starting a new worker of the embedded stack")
            self._start_worker(server, lock)
        if not self._commands():
            self._start_commands(lock)
        return embedded(server, started=True)

    # The server -----------------------------------------------------------------------------------

    def _server(self) -> Daemon | None:
        """The server that runs, if it is to be kept."""
        server = daemon.find(self._state / "server.json")
        if server is None:
            return None
        if self._same_server(server) and self._comes_up(server, ANSWER_SECONDS):
            return server
        server.stop(10)
        return None

    def _same_server(self, server: Daemon) -> bool:
        port, ui_port = server.detail["port"], server.detail["ui_port"]
        return bool(server.detail.get("arguments") == self._arguments(port, ui_port))

    def _arguments(self, port: int, ui_port: int) -> list[str]:
        database = self._state / "temporal.db"
        return temporal.command(Path("temporal"), database, port, ui_port)[1:]

    def _start_server(self, lock: int) -> Daemon:
        program = temporal.program(self._say)
        record, log = self._state / "server.json", self._state / "server.log"
        before = daemon.read(record)
        last = (before.detail["port"], before.detail["ui_port"]) if before else None
        ports = temporal.choose_ports(self._state, last)
        self._say(
            "starting the embedded stack: a Temporal server, its UI at "
            f"http://127.0.0.1:{ports[1]}, and a worker"
        )
        self._launch(
            lock,
            "server",
            [str(program), *self._arguments(*ports)],
            temporal.environment(),
            {"port": ports[0], "ui_port": ports[1], "arguments": self._arguments(*ports)},
            # It makes its database readable for everyone otherwise.
            umask=0o077,
        )
        server = daemon.find(record)
        if server is None or not self._comes_up(server, SERVER_SECONDS):
            raise Unreachable(
                "the embedded Temporal server does not start",
                hint=f"see {log}; run: helix doctor",
                evidence=daemon.tail(log),
            )
        temporal.keep_longer(program, ports[0])
        return server

    def _comes_up(self, server: Daemon, seconds: float) -> bool:
        ui_port = server.detail["ui_port"]
        return _until(lambda: temporal.ready(ui_port), seconds, lambda: server.alive)

    # The worker -----------------------------------------------------------------------------------

    def _worker(self, server: Daemon) -> Daemon | None:
        """The worker that runs, if it is to be kept."""
        worker = daemon.find(self._state / "worker.json")
        if worker is None:
            return None
        if self._same_worker(worker, server) and self._gets_healthy(worker, ANSWER_SECONDS):
            return worker
        worker.stop(GRACE_SECONDS + 3)
        return None

    def _same_worker(self, worker: Daemon, server: Daemon) -> bool:
        detail = worker.detail
        if detail.get("address") != _address(server):
            return False
        if any(detail.get(name) != self._identity[name] for name in ("code", "settings")):
            return False
        if not self._for_work or detail.get("ambient") == self._identity["ambient"]:
            return True
        if not _deploying(server):
            return False
        self._say(
            "a deployment is running, so the worker keeps the accounts (AWS_…, DOCKER_…) of the "
            "shell that started it; this command uses them too"
        )
        return True

    def _start_worker(self, server: Daemon, lock: int) -> None:
        for file in self._state.glob("health-*.json"):
            pid = file.stem.partition("-")[2]
            if not (pid.isdigit() and daemon.birth(int(pid))):
                file.unlink(missing_ok=True)
        env = temporal.environment() | {
            "TEMPORAL_ADDRESS": _address(server),
            "TEMPORAL_NAMESPACE": temporal.NAMESPACE,
            "HELIX_STATE_DIR": str(self._state),
        }
        env.setdefault("HELIX_GRACEFUL_SHUTDOWN_SECONDS", str(GRACE_SECONDS))
        self._launch(
            lock,
            "worker",
            # -P: the folder it runs in is no place to import from.
            [sys.executable, "-P", "-m", "worker.main"],
            env,
            self._identity | {"address": _address(server)},
        )
        worker = daemon.find(self._state / "worker.json")
        if worker is None or not self._gets_healthy(worker, WORKER_SECONDS):
            log = self._state / "worker.log"
            raise Unreachable(
                "the embedded worker does not start",
                hint=f"see {log}; run: helix doctor",
                evidence=daemon.tail(log),
            )

    def _gets_healthy(self, worker: Daemon, seconds: float) -> bool:
        return _until(lambda: _healthy(self._state, worker), seconds, lambda: worker.alive)

    # The fork server ------------------------------------------------------------------------------

    def _commands(self) -> bool:
        """Whether the next command will be run by a fork server, or is not to be."""
        if not forkserver.wanted():
            return True
        running = daemon.find(self._state / "commands.json")
        return running is not None and running.detail.get("identity") == forkserver.identity()

    def _start_commands(self, lock: int) -> None:
        """Start it and go on: it is for the next command, and this one does not need it."""
        if (old := daemon.find(self._state / "commands.json")) is not None:
            old.stop(1)
        self._launch(
            lock,
            "commands",
            [sys.executable, "-P", "-m", "cli.forkserver"],
            forkserver.environment(),
            {"identity": forkserver.identity()},
        )

    # All ------------------------------------------------------------------------------------------

    def _launch(
        self,
        lock: int,
        name: str,
        command: list[str],
        env: Mapping[str, str],
        detail: Mapping[str, object],
        umask: int | None = None,
    ) -> None:
        """Start it, and wait until it has written down who it is."""
        record, log = self._state / f"{name}.json", self._state / f"{name}.log"
        if log.exists() and log.stat().st_size > LOG_BYTES:
            log.replace(log.with_suffix(".log.1"))
        try:
            pid = daemon.start(
                command, record=record, log=log, env=env, lock=lock, detail=detail, umask=umask
            )
        except OSError as error:
            raise PlatformUnhealthy(f"cannot start {command[0]}: {error.strerror}") from None

        def recorded() -> bool:
            found = daemon.read(record)
            return found is not None and found.pid == pid

        _until(recorded, SERVER_SECONDS, lambda: daemon.birth(pid) != "")


def _configured(cluster: temporal.Cluster) -> Stack:
    ui_url = os.environ.get("HELIX_UI_URL", "").rstrip("/")
    if not ui_url and cluster.address.rpartition(":")[0].endswith((".tmprl.cloud", ".temporal.io")):
        ui_url = "https://cloud.temporal.io"
    return Stack(cluster.address, cluster.namespace, ui_url, embedded=False)


def _address(server: Daemon) -> str:
    return f"127.0.0.1:{server.detail['port']}"


def _healthy(state: Path, worker: Daemon) -> bool:
    try:
        place = json.loads((state / f"health-{worker.pid}.json").read_text())
        port = int(place["port"])
    except (OSError, ValueError, KeyError):
        return False
    return probe.get(port, "/healthz", timeout=3)[0] == 200


def _deploying(server: Daemon) -> bool:
    """Whether any deployment is running. If the server does not tell, none is."""
    query = "/workflows?query=" + quote(
        'ExecutionStatus="Running" AND WorkflowType!="NotifyWorkflow"', safe=""
    )
    status, body = probe.get(
        server.detail["ui_port"], f"/api/v1/namespaces/{temporal.NAMESPACE}{query}"
    )
    try:
        return status == 200 and bool(json.loads(body).get("executions"))
    except ValueError:
        return False


def _settings() -> str:
    return _digest(lambda name: name.startswith("HELIX_") and name not in NOT_SETTINGS)


def _ambient() -> str:
    return _digest(lambda name: name.upper().startswith(AMBIENT))


def _digest(wanted: Callable[[str], bool]) -> str:
    chosen = sorted((name, value) for name, value in os.environ.items() if wanted(name))
    return hashlib.sha256(json.dumps(chosen).encode()).hexdigest()


def _env_lines(file: Path) -> Iterator[tuple[str, str]]:
    """The lines of a file that `hand_over_env` wrote: name, and value as it stands there."""
    try:
        text = file.read_text()
    except FileNotFoundError:
        return
    for line in text.split("\n"):
        name, separator, value = line.partition("=")
        if separator:
            yield name, value


def _quoted(value: str) -> str:
    """On one line, as `.env` files are read."""
    for character, escaped in (("\\", "\\\\"), ('"', '\\"'), ("\n", "\\n"), ("\r", "\\r")):
        value = value.replace(character, escaped)
    return f'"{value}"'


def _state_dir() -> Path:
    state = paths.state_dir()
    try:
        return paths.private_dir(state)
    except OSError as error:
        raise ConfigurationError(
            f"the folder {state} cannot be made: {error.strerror}",
            hint="set HELIX_STATE_DIR to a folder that you may write",
        ) from None


@contextmanager
def _locked(
    state: Path, say: Callable[[str], None] = lambda text: None, name: str = "stack.lock"
) -> Iterator[int]:
    """One command at a time. The system lets go of the lock when its holder dies. Yields the open
    file that holds it."""
    file = os.open(state / name, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        if not _take(file):
            say("another helix is starting or stopping the embedded stack: waiting for it")
            if not _until(lambda: _take(file), LOCK_SECONDS):
                raise Unreachable(
                    f"another helix has been holding {state / name} for {LOCK_SECONDS:.0f} s",
                    hint=f"find it: fuser {state / name}",
                )
        yield file
    finally:
        os.close(file)


def _take(file: int) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _until(
    true: Callable[[], bool], seconds: float, worthwhile: Callable[[], bool] = lambda: True
) -> bool:
    """Wait for something, for as long as that is worthwhile."""
    deadline = time.monotonic() + seconds
    while not true():
        if time.monotonic() > deadline or not worthwhile():
            return true()
        time.sleep(0.02)
    return True
