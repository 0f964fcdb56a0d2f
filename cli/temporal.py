"""Temporal's own development server, as the embedded stack runs it; and which Temporal to use."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from zlib import crc32

from cli import probe
from model.errors import ConfigurationError
from worker.errors import Unreachable
from worker.paths import cache_dir, private_dir

NAMESPACE = "default"
SEARCH_ATTRIBUTES = ("DeployInstance", "DeployImage", "DeployTrigger", "DeployStep")
RETENTION = "720h"
"""How long Temporal's UI shows a deployment that has ended; the server's own 24 h are too short.
The ledger keeps it for good."""
PORTS = range(17000, 18000)
"""Where the server is put, its UI a thousand higher. Outside the ranges from which systems take
ports for clients, so that it finds the same ones again."""
FREED_SECONDS = 2.0
"""How long the system may take to free the ports of a server that was killed."""

INSTALL = (
    "install it: `brew install temporal`, https://docs.temporal.io/cli, or "
    "`go install github.com/temporalio/cli/cmd/temporal@v1.5.1`; "
    "or use a Temporal server that runs already: set TEMPORAL_ADDRESS=HOST:7233"
)


@dataclass(frozen=True)
class Cluster:
    """A Temporal that somebody has configured."""

    address: str
    namespace: str
    source: str
    """Where that is written: a variable or a file."""


def configured() -> Cluster | None:
    """The Temporal that Temporal's own configuration names, or None if it names none.

    Reads what `temporalio.envconfig` reads, which takes ten times as long to import. Everything
    but the address and the namespace is left to it.

    Raises:
        ConfigurationError: a profile is asked for and is not there, or has no address.
    """
    address = os.environ.get("TEMPORAL_ADDRESS", "")
    wanted = os.environ.get("TEMPORAL_PROFILE", "")
    path = _config_file()
    profile = _profile(path, wanted or "default")
    if profile is None and wanted:
        raise ConfigurationError(
            f"TEMPORAL_PROFILE names «{wanted}», and {path} has no such profile",
            hint="correct or unset TEMPORAL_PROFILE",
        )
    profile = profile or {}
    source = "TEMPORAL_ADDRESS" if address else str(path)
    address = address or str(profile.get("address", ""))
    if not address and wanted:
        raise ConfigurationError(
            f"the profile «{wanted}» in {path} has no address",
            hint='add one: address = "HOST:7233"',
        )
    namespace = os.environ.get("TEMPORAL_NAMESPACE") or str(profile.get("namespace") or NAMESPACE)
    return Cluster(address, namespace, source) if address else None


def _config_file() -> Path:
    if chosen := os.environ.get("TEMPORAL_CONFIG_FILE"):
        return Path(chosen)
    if sys.platform == "darwin":
        base = Path.home() / "Library" / "Application Support"
    else:
        chosen = os.environ.get("XDG_CONFIG_HOME", "")
        base = Path(chosen) if Path(chosen).is_absolute() else Path.home() / ".config"
    return base / "temporalio" / "temporal.toml"


def _profile(path: Path, name: str) -> dict[str, Any] | None:
    try:
        text = path.read_text()
    except OSError:
        return None
    import tomllib

    try:
        found = tomllib.loads(text).get("profile", {}).get(name)
    except (tomllib.TOMLDecodeError, AttributeError) as error:
        raise ConfigurationError(f"{path}: {error}", hint="correct or remove the file") from None
    return found if isinstance(found, dict) else None


def program(say: Callable[[str], None]) -> Path:
    """Temporal's command line program: on PATH, in our cache, or downloaded into it by the SDK.

    Raises:
        ConfigurationError: it is not here and cannot be had.
    """
    if found := installed():
        return found
    say("Temporal's command line program is not here: downloading it (once)")
    return _download(private_dir(cache_dir()) / "bin")


def installed() -> Path | None:
    """The program if the machine has it already."""
    folder = cache_dir() / "bin"
    if found := shutil.which("temporal") or shutil.which("temporal", path=str(folder)):
        return Path(found)
    downloads = sorted(folder.glob("temporal-cli-*"), key=lambda path: path.stat().st_mtime)
    return next((path for path in reversed(downloads) if os.access(path, os.X_OK)), None)


def _download(folder: Path) -> Path:
    import asyncio

    from temporalio.testing import WorkflowEnvironment

    folder.mkdir(parents=True, exist_ok=True)

    async def fetch() -> None:
        # The SDK downloads the program when it starts a server, and in no other way.
        env = await WorkflowEnvironment.start_local(download_dest_dir=str(folder))
        await env.shutdown()

    with suppress(RuntimeError):
        asyncio.run(fetch())
    if found := installed():
        return found
    raise ConfigurationError(
        "the embedded stack needs Temporal's command line program, and it cannot be downloaded",
        hint=INSTALL,
    )


def command(program: Path, database: Path, port: int, ui_port: int) -> list[str]:
    """The server's command line. Its data survives in the file `database`."""
    arguments = [str(program), "server", "start-dev", "--log-level", "warn"]
    arguments += ["--ip", "127.0.0.1", "--port", str(port), "--ui-port", str(ui_port)]
    arguments += ["--db-filename", str(database)]
    for name in SEARCH_ATTRIBUTES:
        arguments += ["--search-attribute", f"{name}=Keyword"]
    # The development server takes 20 tasks a second unless told otherwise: 50 ms for every step.
    arguments += ["--dynamic-config-value", "history.transferProcessorMaxPollRPS=1000"]
    # A step that the deployment's own worker can take is handed to it with the answer.
    arguments += ["--dynamic-config-value", "system.enableActivityEagerExecution=true"]
    return arguments


def environment() -> dict[str, str]:
    """Ours, without what would point the server's own program somewhere else."""
    found = {key: value for key, value in os.environ.items() if not key.startswith("TEMPORAL_")}
    return found | {"TEMPORAL_CONFIG_FILE": os.devnull}


def ready(ui_port: int, timeout: float = 1.0) -> bool:
    """Whether the server answers, its UI included."""
    status, _ = probe.get(ui_port, f"/api/v1/namespaces/{NAMESPACE}", timeout)
    return status == 200


def choose_ports(state: Path, before: tuple[int, int] | None) -> tuple[int, int]:
    """Ports of the server and of its UI: those of last time if they are free, so that links to
    the UI stay valid.

    Args:
        state: the stack's folder. Each folder has its own place among PORTS, so that two stacks do
            not take each other's.
    """
    if before is not None:
        deadline = time.monotonic() + FREED_SECONDS
        while not all(map(probe.free, before)):
            if time.monotonic() > deadline:
                break
            time.sleep(0.05)
        else:
            return before
    for ports in places(state):
        if all(map(probe.free, ports)):
            return ports
    return probe.any_free(), probe.any_free()


def places(state: Path) -> Iterator[tuple[int, int]]:
    """Where the stack of this folder may be, the best place first."""
    first = crc32(str(state).encode()) % len(PORTS)
    for port in (*PORTS[first:], *PORTS[:first]):
        yield port, port + len(PORTS)


def keep_longer(program: Path, port: int) -> None:
    """Keep ended deployments for RETENTION.

    Raises:
        Unreachable: the server does not take it.
    """
    done = subprocess.run(
        [str(program), "operator", "namespace", "update", "--namespace", NAMESPACE]
        + ["--address", f"127.0.0.1:{port}", "--retention", RETENTION],
        capture_output=True,
        text=True,
        env=environment(),
        check=False,
        timeout=30,
    )
    if done.returncode:
        raise Unreachable(f"Temporal refused a longer retention: {done.stderr.strip()}")
