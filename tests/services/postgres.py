"""A real PostgreSQL for tests: a private cluster on loopback, gone afterwards.

with postgres() as server:
    url = server.new_database()
    server.stop()  # an outage
    server.start()
"""

from __future__ import annotations

import os
import pwd
import secrets
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.services.need import missing

START_SECONDS = 30.0


@dataclass
class TestPostgres:
    """A server that runs."""

    __test__ = False

    folder: Path
    programs: Path
    account: dict[str, Any]
    """How its processes run: PostgreSQL refuses to run as root."""
    port: int
    password: str
    address: str = "127.0.0.1"
    _process: subprocess.Popen[bytes] | None = field(default=None, repr=False)

    def url(self, database: str) -> str:
        """How a client names one of its databases."""
        return f"postgresql://postgres:{self.password}@{self.address}:{self.port}/{database}"

    def new_database(self) -> str:
        """The URL of an empty database."""
        import psycopg

        name = f"test_{secrets.token_hex(4)}"
        with psycopg.connect(self.url("postgres"), autocommit=True) as connection:
            connection.execute(f'CREATE DATABASE "{name}"'.encode())
        return self.url(name)

    def start(self) -> None:
        """Start it, and wait until it answers."""
        import psycopg

        log = (self.folder / "log").open("ab")
        self._process = subprocess.Popen(
            [self.programs / "postgres", "-D", self.folder / "data"],
            stdout=log,
            stderr=log,
            **self.account,
        )
        log.close()
        deadline = time.monotonic() + START_SECONDS
        while True:
            try:
                psycopg.connect(self.url("postgres"), connect_timeout=2).close()
                return
            except psycopg.OperationalError:
                if time.monotonic() > deadline or self._process.poll() is not None:
                    raise AssertionError((self.folder / "log").read_text()) from None
                time.sleep(0.05)

    def stop(self) -> None:
        """Stop it at once; clients lose their connections."""
        if self._process is not None:
            self._process.send_signal(signal.SIGINT)
            self._process.wait(30)
            self._process = None


@contextmanager
def postgres(address: str = "127.0.0.1") -> Iterator[TestPostgres]:
    """A server of its own, with a password.

    Args:
        address: of this machine; whoever shares a network with it may come.
    """
    programs = _programs()
    account = _account()
    folder = Path(tempfile.mkdtemp(prefix="helix-postgres-"))
    server = TestPostgres(folder, programs, account, _free_port(), secrets.token_hex(8), address)
    try:
        secret = folder / "password"
        secret.write_text(server.password)
        if account:
            for path in (folder, secret):
                shutil.chown(path, account["user"], account["group"])
        options = ["--auth=scram-sha-256", f"--pwfile={secret}", "--no-sync", "--encoding=UTF8"]
        subprocess.run(
            [programs / "initdb", "-D", folder / "data", "-U", "postgres", *options],
            check=True,
            capture_output=True,
            cwd=folder,
            **account,
        )
        with (folder / "data" / "postgresql.conf").open("a") as file:
            file.write(
                f"listen_addresses = '{address}'\nport = {server.port}\nfsync = off\n"
                f"unix_socket_directories = '{folder}'\nmax_connections = 100\n"
            )
        with (folder / "data" / "pg_hba.conf").open("a") as file:
            file.write("host all all samenet scram-sha-256\n")
        server.start()
        yield server
    finally:
        server.stop()
        shutil.rmtree(folder, ignore_errors=True)


def _programs() -> Path:
    """Debian keeps the server's programs off PATH, one folder a version."""
    places = [Path(found).resolve().parent] if (found := shutil.which("initdb")) else []
    places += sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)
    for place in places:
        if (place / "initdb").exists() and (place / "postgres").exists():
            return place
    missing("postgres", "there is no PostgreSQL server here", "apt-get install postgresql")


def _account() -> dict[str, Any]:
    if os.geteuid() != 0:
        return {}
    for name in ("postgres", "nobody"):
        try:
            found = pwd.getpwnam(name)
        except KeyError:
            continue
        return {"user": found.pw_uid, "group": found.pw_gid, "extra_groups": []}
    missing("postgres", "there is no account to run PostgreSQL as", "run the tests as a user")


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
        return port
