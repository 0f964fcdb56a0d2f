"""Runs commands in a process that has imported everything already.

Importing what `helix push` needs takes longer than most of what it then does. So a part of the
embedded stack is a process that has done it, and forks itself for every command. The command's own
process hands over its files, environment and folder, passes signals on, and ends as its double
ends.

It is a convenience and nothing depends on it: where nobody answers, or the double would not be the
same (other code, another Python), the command runs in its own process.

Protocol, over a Unix socket in the state folder: the command sends its three standard files
(SCM_RIGHTS) with one JSON line; the server answers `+` or `-`, and begins when the command answers
`+` in turn, so that a command that lost its patience is not run twice. From then on each byte from
the command is a signal's number, and all it gets back is its exit code and a line end.
"""

from __future__ import annotations

import gc
import io
import json
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

from cli import code
from worker import paths

HERE_ONLY = {"up", "down", "worker", "codec-server"}
"""Commands that run in their own process: they start and stop processes, or are one."""
PATIENCE = 5.0
"""Seconds within which either side must have said what it has to say."""
WATCH_SECONDS = 30.0
"""How often the server looks whether anybody can still reach it."""
PASSED_ON = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT)
OFF = "HELIX_FORKSERVER"
"""The variable that turns it off with the value `off`."""
MAX_PATH = 100
"""A socket's path must fit into 104 or 108 bytes, with its end."""
PRELOADED = (
    "cli.main", "cli.actor", "cli.choose", "cli.display", "cli.find", "cli.platform", "cli.project",
    "cli.runs", "cli.session", "cli.watch", "worker.client", "worker.settings", "ledger.ledger",
    "project.checks", "project.resolve", "project.seen", "project.source", "project.store",
    "builders.contexts", "providers.docker", "temporalio.contrib.pydantic", "temporalio.envconfig",
    "rich.live", "rich.table", "fsspec.implementations.local", "asyncio", "getpass",
)  # fmt: skip
"""What most commands import, beside the commands themselves. No cloud's SDK: most need none."""


@dataclass(frozen=True)
class Request:
    """A command, and everything it takes from the process it was typed in."""

    program: str
    """What the command was called as."""
    words: list[str]
    env: dict[str, str]
    folder: str
    umask: int
    encodings: list[tuple[str, str]]
    """Encoding and error handler of each of the standard files."""
    code: str
    """Must be the server's own: see `identity`."""


def address() -> Path:
    """Where the server listens."""
    return paths.state_dir() / "commands.sock"


def wanted() -> bool:
    """Whether commands are to be run by a fork server."""
    return os.environ.get(OFF) != "off" and len(str(address())) <= MAX_PATH


def identity(env: Mapping[str, str] = os.environ) -> str:
    """The same for two processes in which a command would do the same: code, interpreter, and the
    variables that an interpreter reads when it starts."""
    python = sorted((name, env[name]) for name in env if name.startswith("PYTHON"))
    return f"{code.digest(code.ALL)} {python}"


def environment() -> dict[str, str]:
    """What the server is started with: enough to find its code and its socket, and no secret. Its
    doubles have the environment of their command."""
    kept = ("HOME", "LANG", "LC_", "PATH", "PYTHON", "TMPDIR", "VIRTUAL_ENV", "XDG_")
    found = {name: value for name, value in os.environ.items() if name.startswith(kept)}
    return found | {"HELIX_STATE_DIR": str(paths.state_dir())}


# The command's side -----------------------------------------------------------------------------


def ask(words: Sequence[str]) -> int | None:
    """Have the command run by the server. Returns its exit code, or None if it must run here."""
    if not words or words[0].startswith("-") or words[0] in HERE_ONLY or not wanted():
        return None
    try:
        connection = _connect(words)
    except (OSError, ValueError):
        return None
    with connection:
        return _wait(connection)


def _connect(words: Sequence[str]) -> socket.socket:
    """A connection on which the command has been taken.

    Raises:
        OSError, ValueError: nobody takes it.
    """
    connection = socket.socket(socket.AF_UNIX)
    try:
        connection.connect(str(address()))
        connection.settimeout(PATIENCE)
        files = (sys.stdin, sys.stdout, sys.stderr)
        umask = os.umask(0)
        os.umask(umask)
        request = Request(
            program=sys.argv[0],
            words=list(words),
            env=dict(os.environ),
            folder=os.getcwd(),
            umask=umask,
            encodings=[(file.encoding, file.errors or "strict") for file in files],
            code=identity(),
        )
        text = json.dumps(asdict(request)).encode() + b"\n"
        sent = socket.send_fds(connection, [text], [file.fileno() for file in files])
        connection.sendall(text[sent:])
        if connection.recv(1) != b"+":
            raise ConnectionRefusedError
        connection.sendall(b"+")
        connection.settimeout(None)
        return connection
    except BaseException:
        connection.close()
        raise


def _wait(connection: socket.socket) -> int:
    """Pass signals on until the command ends."""
    told = signal.SIGKILL

    def pass_on(number: int, _: Any) -> None:
        nonlocal told
        told = signal.Signals(number)
        with suppress(OSError):
            connection.send(bytes([number]))

    before = {number: signal.signal(number, pass_on) for number in PASSED_ON}
    try:
        answer = b""
        while part := connection.recv(16):
            answer += part
    except ConnectionResetError:
        answer = b""
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    if answer.endswith(b"\n"):
        return int(answer)
    if told is signal.SIGKILL:
        sys.stderr.write("error: the process that ran the command was killed\n")
    return 128 + told


# The server's side ------------------------------------------------------------------------------


def serve() -> None:
    """Import everything, then fork for each command, until SIGTERM or until the socket is gone."""
    mine = identity()
    from cli.main import COMMANDS

    for name in [*PRELOADED, *(target.partition(":")[0] for target, _ in COMMANDS.values())]:
        import_module(name)
    gc.collect()
    gc.freeze()  # so that a double need not copy what it never changes
    listener, place = _listen()
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # doubles are nobody's to wait for
    while _reachable(place):
        with suppress(TimeoutError):
            connection, _ = listener.accept()
            with connection:
                _serve(connection, listener, mine)


def _listen() -> tuple[socket.socket, os.stat_result]:
    """Listen in place of whoever listened there before."""
    draft = address().with_name(f".commands.{os.getpid()}")
    draft.unlink(missing_ok=True)
    listener = socket.socket(socket.AF_UNIX)
    before = os.umask(0o077)
    listener.bind(str(draft))
    os.umask(before)
    listener.listen(64)
    listener.settimeout(WATCH_SECONDS)
    draft.replace(address())
    return listener, address().stat()


def _reachable(place: os.stat_result) -> bool:
    with suppress(OSError):
        return os.path.samestat(address().stat(), place)
    return False


def _serve(connection: socket.socket, listener: socket.socket, mine: str) -> None:
    """Fork for one command; the parent returns at once."""
    files: list[int] = []
    try:
        connection.settimeout(PATIENCE)
        request, files = _receive(connection)
        if request.code != mine:
            connection.sendall(b"-")
        elif os.fork() == 0:
            listener.close()
            _double(request, files, connection)
    except (OSError, ValueError, TypeError):
        pass  # whoever asked is gone, or is none of ours
    finally:
        for each in files:
            os.close(each)


def _receive(connection: socket.socket) -> tuple[Request, list[int]]:
    text, files, _, _ = socket.recv_fds(connection, 65536, 3)
    while not text.endswith(b"\n"):
        part = connection.recv(65536)
        if not part:
            raise ConnectionResetError
        text += part
    return Request(**json.loads(text)), files


def _double(request: Request, files: list[int], connection: socket.socket) -> None:
    """Become the command. Never returns."""
    result = 1
    try:
        _take_over(request, files)
        connection.sendall(b"+")
        if connection.recv(1) != b"+":
            return
        connection.settimeout(None)
        threading.Thread(target=_heed, args=(connection,), daemon=True).start()
        from cli.main import run

        result = run()
        with suppress(BrokenPipeError):
            sys.stdout.flush()
            sys.stderr.flush()
        connection.sendall(f"{result}\n".encode())
    finally:
        os._exit(result)


def _take_over(request: Request, files: list[int]) -> None:
    """Make everything of this process what it is in the command's own."""
    os.setsid()
    for each in (signal.SIGCHLD, signal.SIGTERM):
        signal.signal(each, signal.SIG_DFL)
    for target, file in enumerate(files):
        os.dup2(file, target)
        os.close(file)
    os.environ.clear()
    os.environ.update(request.env)
    os.chdir(request.folder)
    os.umask(request.umask)
    time.tzset()
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        encoding, errors = request.encodings[number]
        buffer = open(number, "wb" if number else "rb", closefd=False)  # noqa: SIM115
        by_line = name == "stderr" or os.isatty(number)
        stream = io.TextIOWrapper(buffer, encoding, errors, line_buffering=by_line)
        setattr(sys, name, stream)
    sys.argv = [request.program, *request.words]


def _heed(connection: socket.socket) -> None:
    """Raise here what the command's own process is told; end with it if it is killed."""
    with suppress(OSError):
        while numbers := connection.recv(16):
            for number in numbers:
                os.kill(os.getpid(), number)
    os.kill(os.getpid(), signal.SIGHUP)


if __name__ == "__main__":
    serve()
