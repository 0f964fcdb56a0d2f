"""Processes that go on without us: started once, found again by anyone, never mistaken for another.

Run as a program, this file writes down who it is and then becomes the process it was asked to
start. So there is no moment in which the process runs and its record is missing, wherever the
one who starts it is killed. Nothing but the standard library is imported here.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

KILL_SECONDS = 5.0
"""How long the system may take to end a process that was killed."""
TAIL_BYTES = 4096


@dataclass(frozen=True)
class Daemon:
    """One process in the background."""

    pid: int
    birth: str
    """When it was born. A process id is used again one day; together with this it is not."""
    detail: dict[str, Any]
    """What its starter wants to know of it later."""

    @property
    def alive(self) -> bool:
        """Whether this very process still runs."""
        return self.birth != "" and birth(self.pid) == self.birth

    def stop(self, grace: float) -> None:
        """End it: SIGTERM, and SIGKILL after `grace` seconds, to all that it started as well."""
        for number, patience in ((signal.SIGTERM, grace), (signal.SIGKILL, KILL_SECONDS)):
            if not self.alive:
                return
            with suppress(ProcessLookupError):
                if number == signal.SIGKILL:
                    os.killpg(self.pid, number)
                else:
                    os.kill(self.pid, number)
            deadline = time.monotonic() + patience
            while self.alive and time.monotonic() < deadline:
                time.sleep(0.02)


def read(record: Path) -> Daemon | None:
    """The process that a record tells of, whether it still runs or not."""
    try:
        found = json.loads(record.read_text())
        return Daemon(int(found["pid"]), str(found["birth"]), dict(found["detail"]))
    except (OSError, ValueError, KeyError, TypeError):
        return None


def find(record: Path) -> Daemon | None:
    """The process that a record tells of, if that very process still runs."""
    daemon = read(record)
    return daemon if daemon is not None and daemon.alive else None


def start(
    command: Sequence[str],
    *,
    record: Path,
    log: Path,
    env: Mapping[str, str],
    lock: int,
    detail: Mapping[str, Any],
    umask: int | None = None,
) -> int:
    """Start a process that outlives us, in a session of its own. Returns its id.

    Args:
        record: the file that will tell of it; `find` reads it. It appears a moment later.
        log: what it prints is appended there.
        lock: an open file. The process holds it until its record is written, even if we die.
        detail: kept in the record. Not for secrets.
        umask: of the process; ours if None. It starts in the record's folder.

    Raises:
        OSError: the log cannot be written, or no process can be made.
    """
    asked = json.dumps(
        {
            "command": list(command),
            "record": str(record),
            "lock": lock,
            "detail": dict(detail),
            "umask": umask,
        }
    )
    # -I: nothing but the standard library, whatever the environment says.
    arguments = [sys.executable, "-I", "-S", __file__, asked]
    os.set_inheritable(lock, True)
    try:
        return os.posix_spawn(
            sys.executable,
            arguments,
            env,
            file_actions=[
                (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
                (os.POSIX_SPAWN_OPEN, 1, log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600),
                (os.POSIX_SPAWN_DUP2, 1, 2),
            ],
        )
    finally:
        os.set_inheritable(lock, False)


def birth(pid: int) -> str:
    """When a process was born, in the system's own terms; empty if it does not run."""
    if sys.platform == "linux":
        try:
            stat = Path(f"/proc/{pid}/stat").read_bytes()
            boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        except OSError:
            return ""
        # The second field is the program's name in brackets and may itself hold any character.
        fields = stat.rpartition(b")")[2].split()
        state, ticks = fields[0].decode(), fields[19].decode()
        return "" if state in "ZX" else f"{boot}/{ticks}"
    import subprocess

    found = subprocess.run(
        ["ps", "-o", "stat=,lstart=", "-p", str(pid)],
        capture_output=True,
        text=True,
        check=False,
        env={"PATH": os.environ.get("PATH", os.defpath), "LC_ALL": "C", "TZ": "UTC"},
    ).stdout.strip()
    state, _, since = found.partition(" ")
    return "" if state.startswith("Z") else since.strip()


def tail(log: Path) -> str:
    """The end of a log; empty if there is none."""
    try:
        with log.open("rb") as file:
            file.seek(0, os.SEEK_END)
            file.seek(max(0, file.tell() - TAIL_BYTES))
            return file.read().decode(errors="replace")
    except OSError:
        return ""


def _become(asked: dict[str, Any]) -> None:
    """In the new process: leave the terminal, write the record, become the program."""
    os.setsid()
    record = Path(asked["record"])
    draft = record.with_name(f".{record.name}.{os.getpid()}")
    me = {"pid": os.getpid(), "birth": birth(os.getpid()), "detail": asked["detail"]}
    with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
        json.dump(me, file)
    draft.replace(record)
    os.close(asked["lock"])
    if asked["umask"] is not None:
        os.umask(asked["umask"])
    os.chdir(record.parent)
    command = asked["command"]
    os.execv(command[0], command)


if __name__ == "__main__":
    _become(json.loads(sys.argv[1]))
