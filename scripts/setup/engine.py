"""The Docker engine: found, else on Debian as root installed and started."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from scripts.setup import packages
from scripts.setup.shell import CACHE, SetupFailed, is_root, run, say

STATE = CACHE / "engine"
PID = STATE / "dockerd.pid"
LOG = STATE / "dockerd.log"
START_SECONDS = 60.0


def version() -> str | None:
    """The version of the engine that `docker` speaks to; None if none answers."""
    command = ["docker", "version", "--format", "{{.Server.Version}}"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=30)
    except (FileNotFoundError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 else None


def ensure() -> None:
    """Have an engine that answers."""
    found = version()
    if found is None:
        found = _start()
    say("engine", f"found Docker {found}")


def _start() -> str:
    where = os.environ.get("DOCKER_HOST")
    if where:
        raise SetupFailed(
            f"no Docker engine answers at {where}", "start it, or unset DOCKER_HOST to use another"
        )
    if sys.platform != "linux" or not is_root():
        raise SetupFailed(
            "no Docker engine answers here",
            "start Docker Desktop, or: sudo systemctl start docker; "
            "and see that you may use it: docker version",
        )
    # A machine may have the client alone.
    packages.ensure("docker", "dockerd", services=True)
    if Path("/run/systemd/system").exists():
        run(["systemctl", "start", "docker"], mend="see why: journalctl -u docker")
    elif version() is None:
        _start_daemon()
    return _wait()


def _start_daemon() -> None:
    """Start the daemon so that it outlives us."""
    STATE.mkdir(parents=True, exist_ok=True)
    say("engine", f"starting dockerd; its log is {LOG}")
    with LOG.open("ab") as log:
        process = subprocess.Popen(
            ["dockerd"], stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
        )
    PID.write_text(str(process.pid))


def _wait() -> str:
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline:
        found = version()
        if found is not None:
            return found
        time.sleep(0.3)
    tail = "\n    ".join(LOG.read_text(errors="replace").splitlines()[-10:]) if LOG.exists() else ""
    raise SetupFailed(
        f"the Docker engine did not answer within {START_SECONDS:.0f} s\n    {tail}",
        f"see {LOG} for why dockerd does not start",
    )


def stop() -> bool:
    """Stop the daemon if it was we who started it; whether it was."""
    try:
        pid = int(PID.read_text())
        ours = "dockerd" in Path(f"/proc/{pid}/cmdline").read_text()
    except (OSError, ValueError):
        return False
    PID.unlink()
    if not ours:
        return False
    os.kill(pid, signal.SIGTERM)
    deadline = time.monotonic() + START_SECONDS
    while Path(f"/proc/{pid}").exists() and time.monotonic() < deadline:
        time.sleep(0.1)
    return True
