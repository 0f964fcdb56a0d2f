"""Background processes: found again by anyone, never mistaken for another."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from cli import daemon
from cli.daemon import Daemon

PYTHON = [sys.executable, "-c"]


@pytest.fixture
def lock(tmp_path: Path) -> Iterator[int]:
    opened = os.open(tmp_path / "lock", os.O_RDWR | os.O_CREAT, 0o600)
    yield opened
    os.close(opened)


def start(folder: Path, lock: int, code: str) -> Daemon:
    record = folder / "thing.json"
    pid = daemon.start(
        [*PYTHON, code],
        record=record,
        log=folder / "thing.log",
        env=os.environ,
        lock=lock,
        detail={"port": 1},
        umask=0o077,
    )
    deadline = time.monotonic() + 10
    while (found := daemon.find(record)) is None or found.pid != pid:
        assert time.monotonic() < deadline, daemon.tail(folder / "thing.log")
        time.sleep(0.01)
    return found


def eventually(check: object, seconds: float = 5) -> None:
    deadline = time.monotonic() + seconds
    while not check():  # type: ignore[operator]
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_a_process_is_found_by_its_record_and_ends_when_told(tmp_path: Path, lock: int) -> None:
    found = start(tmp_path, lock, "import time; print('here', flush=True); time.sleep(60)")
    assert found.detail == {"port": 1}
    assert os.getsid(found.pid) == found.pid, "it must not die with our terminal"
    eventually(lambda: "here" in daemon.tail(tmp_path / "thing.log"))
    found.stop(grace=5)
    assert not found.alive
    assert daemon.find(tmp_path / "thing.json") is None
    assert daemon.read(tmp_path / "thing.json") == found, "what it used is remembered"


def test_one_that_does_not_listen_is_killed_with_its_children(tmp_path: Path, lock: int) -> None:
    found = start(
        tmp_path,
        lock,
        "import signal, subprocess, sys, time; signal.signal(signal.SIGTERM, signal.SIG_IGN);"
        "print(subprocess.Popen(['sleep', '60']).pid, flush=True); time.sleep(60)",
    )
    eventually(lambda: daemon.tail(tmp_path / "thing.log"))
    child = int(daemon.tail(tmp_path / "thing.log"))
    found.stop(grace=0.2)
    assert not found.alive
    eventually(lambda: daemon.birth(child) == "")


def test_a_process_with_a_recycled_id_is_neither_found_nor_killed(tmp_path: Path) -> None:
    innocent = subprocess.Popen(["sleep", "60"])
    try:
        record = tmp_path / "thing.json"
        for birth in ("", "another-boot/1", daemon.birth(os.getpid())):
            claim = {"pid": innocent.pid, "birth": birth, "detail": {}}
            record.write_text(json.dumps(claim))
            assert daemon.find(record) is None
            Daemon(innocent.pid, birth, {}).stop(grace=0)
        assert innocent.poll() is None
    finally:
        innocent.kill()
        innocent.wait()


@pytest.mark.parametrize("text", ["", "{", "[]", '{"pid": 1}', '{"pid": "x", "birth": ""}', "null"])
def test_a_broken_record_is_no_record(tmp_path: Path, text: str) -> None:
    record = tmp_path / "thing.json"
    record.write_text(text)
    assert daemon.find(record) is None


def test_a_process_that_ended_and_was_not_reaped_does_not_live() -> None:
    ended = subprocess.Popen(["true"])
    eventually(lambda: daemon.birth(ended.pid) == "")
    ended.wait()


def test_the_lock_is_held_until_the_record_is_written(tmp_path: Path) -> None:
    """Whoever starts a process may be killed at once: nobody else may start a second one."""
    code = """
import fcntl, os, sys
from pathlib import Path
from cli import daemon
folder = Path(sys.argv[1])
lock = os.open(folder / "lock", os.O_RDWR | os.O_CREAT)
fcntl.flock(lock, fcntl.LOCK_EX)
daemon.start([sys.executable, "-c", "import time; time.sleep(60)"], record=folder / "thing.json",
    log=folder / "thing.log", env=os.environ, lock=lock, detail={})
os.kill(os.getpid(), 9)
"""
    for _ in range(5):
        (tmp_path / "thing.json").unlink(missing_ok=True)
        subprocess.run([*PYTHON, code, str(tmp_path)], check=False)
        subprocess.run(["flock", str(tmp_path / "lock"), "true"], check=True, timeout=10)
        found = daemon.find(tmp_path / "thing.json")
        assert found is not None
        found.stop(grace=0)
