"""A command that the fork server runs cannot be told from one that runs by itself."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from cli import forkserver

ROOT = Path(__file__).parent.parent.parent
HELIX = [sys.executable, "-m", "cli"]


@pytest.fixture(scope="module")
def home() -> Iterator[Path]:
    """A state folder whose path is short enough for a socket, and its fork server."""
    with tempfile.TemporaryDirectory(prefix="hx") as folder:
        home = Path(folder)
        with subprocess.Popen(
            [sys.executable, "-m", "cli.forkserver"], env=environ(home)
        ) as server:
            while not (home / "commands.sock").exists():
                assert server.poll() is None
                time.sleep(0.05)
            yield home
            server.terminate()


def environ(home: Path, **more: str) -> dict[str, str]:
    clean = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("HELIX_", "TEMPORAL_"))
    }
    return clean | {"HELIX_STATE_DIR": str(home), "PYTHONPATH": str(ROOT)} | more


def run(
    home: Path, *words: str, cwd: Path | None = None, stdin: str = "", **more: str
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*HELIX, *words],
        cwd=cwd or home,
        env=environ(home, **more),
        capture_output=True,
        text=True,
        input=stdin,
        timeout=60,
    )


def forked(home: Path, words: list[str], folder: Path, **more: str) -> bool:
    """Whether the server takes the command: asked with its own protocol."""
    code = (
        "import sys; from cli import forkserver\n"
        f"print('taken', forkserver.ask({words!r}) is not None, file=sys.stderr)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=folder,
        env=environ(home, **more),
        capture_output=True,
        text=True,
        stdin=subprocess.DEVNULL,
        timeout=60,
    )
    return "taken True" in done.stderr


@pytest.fixture
def project(tmp_path: Path) -> Path:
    (tmp_path / "helix.toml").write_text('[project]\nname = "shop"\n[cloud.prod.docker]\n')
    (tmp_path / "Dockerfile").write_text("FROM scratch\n")
    return tmp_path


CASES = [
    ["validate"],
    ["validate", "--json"],
    ["history", "--json"],
    ["logs", "--build"],
    ["psuh"],
    ["push", "nowhere"],
    ["set", "cloud.prod.docker.publish", "9000000"],
    ["push", "--help"],
]


@pytest.mark.parametrize("words", CASES, ids=" ".join)
def test_output_and_exit_code_are_the_same(home: Path, project: Path, words: list[str]) -> None:
    assert forked(home, words, project)
    fast = run(home, *words, cwd=project)
    slow = run(home, *words, cwd=project, HELIX_FORKSERVER="off")
    assert (fast.returncode, fast.stdout, fast.stderr) == (
        slow.returncode,
        slow.stdout,
        slow.stderr,
    )


def test_environment_and_folder_are_those_of_the_command(home: Path, project: Path) -> None:
    (project / "deeper").mkdir()
    (project / "helix.toml").write_text("[project]\nname = 7\n")
    done = run(home, "validate", cwd=project / "deeper")
    assert str(project / "helix.toml") in done.stdout + done.stderr
    elsewhere = project / "state"
    assert not forked(home, ["history"], project, HELIX_STATE_DIR=str(elsewhere)), "another folder"


def test_a_file_made_by_a_command_has_the_permissions_of_its_umask(
    home: Path, tmp_path: Path
) -> None:
    (tmp_path / "Dockerfile").write_text("FROM scratch\n")
    before = os.umask(0o027)
    try:
        done = run(home, "init", "--cloud", "docker", "--yes", cwd=tmp_path)
        if done.returncode:
            done = run(home, "init", "--cloud", "docker", cwd=tmp_path)
    finally:
        os.umask(before)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "helix.toml").stat().st_mode & 0o777 == 0o640


@pytest.mark.parametrize(
    "more", [{"HELIX_FORKSERVER": "off"}, {"PYTHONUTF8": "1"}, {"HELIX_STATE_DIR": "/" + "x" * 120}]
)
def test_what_would_run_otherwise_runs_by_itself(
    home: Path, project: Path, more: dict[str, str]
) -> None:
    assert not forked(home, ["validate"], project, **more)


def test_commands_that_are_processes_themselves_are_left_alone() -> None:
    for word in ("up", "down", "worker", "--help", "--version"):
        assert forkserver.ask([word]) is None
    assert forkserver.ask([]) is None


def test_other_code_is_not_run(home: Path, project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HELIX_STATE_DIR", str(home))
    monkeypatch.setattr(forkserver, "identity", lambda: "another version")
    monkeypatch.setattr("sys.stdin", open(os.devnull))  # noqa: SIM115 - pytest's is no file
    with open(os.devnull, "w") as nowhere:
        monkeypatch.setattr("sys.stdout", nowhere)
        monkeypatch.setattr("sys.stderr", nowhere)
        assert forkserver.ask(["validate"]) is None


def doubles(home: Path) -> set[int]:
    """The processes that the server has forked and that live."""
    found = set()
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                words = (entry / "cmdline").read_bytes()
                env = (entry / "environ").read_bytes()
                state = (entry / "stat").read_bytes().rpartition(b")")[2].split()[0]
            except OSError:
                continue
            if b"cli.forkserver" in words and str(home).encode() in env and state not in b"ZX":
                found.add(int(entry.name))
    return found


@pytest.fixture
def waiting(home: Path, project: Path) -> Iterator[tuple[subprocess.Popen[str], int]]:
    """A command that waits for a Temporal that never answers, and its double."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        before = doubles(home)
        process = subprocess.Popen(
            [*HELIX, "follow"],
            cwd=project,
            env=environ(home, TEMPORAL_ADDRESS=f"127.0.0.1:{silent.getsockname()[1]}"),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        silent.settimeout(30)
        connection, _ = silent.accept()
        (double,) = doubles(home) - before
        with connection:
            yield process, double
        process.kill()
        process.communicate()


@pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_a_command_that_is_told_to_end_takes_its_double_with_it(
    home: Path, waiting: tuple[subprocess.Popen[str], int], number: signal.Signals
) -> None:
    process, double = waiting
    process.send_signal(number)
    process.communicate(timeout=20)
    deadline = time.monotonic() + 20
    while double in doubles(home) and time.monotonic() < deadline:
        time.sleep(0.02)
    assert double not in doubles(home)
    assert process.returncode == (130 if number is signal.SIGINT else process.returncode)
    assert process.returncode != 0


@pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")
def test_a_double_that_is_killed_is_not_a_success(
    waiting: tuple[subprocess.Popen[str], int],
) -> None:
    process, double = waiting
    os.kill(double, signal.SIGKILL)
    _, told = process.communicate(timeout=20)
    assert process.returncode == 137
    assert "was killed" in told


def test_nobody_else_may_speak_to_it(home: Path) -> None:
    assert (home / "commands.sock").stat().st_mode & 0o077 == 0


def test_json_is_whole_and_unicode_survives(home: Path, project: Path) -> None:
    (project / "helix.toml").write_text('[project]\nname = "käse"\n[cloud.prod.docker]\n')
    fast = run(home, "validate", "--json", cwd=project)
    slow = run(home, "validate", "--json", cwd=project, HELIX_FORKSERVER="off")
    assert json.loads(fast.stdout) == json.loads(slow.stdout)
