"""Opens the ledger's database: SQLite as a file of the owner alone, or PostgreSQL by URL."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sqlalchemy import URL, Connection, Engine, create_engine, event, make_url
from sqlalchemy.exc import ArgumentError, DBAPIError, NoSuchModuleError, SQLAlchemyError

from model.errors import (
    ConfigurationError,
    HelixError,
    PermissionDenied,
    PlatformUnhealthy,
    Transient,
)

BUSY_SECONDS = 10
"""How long SQLite waits for another writer."""
CONNECT_SECONDS = 5
"""How long PostgreSQL may take to answer."""


@dataclass(frozen=True)
class Cause:
    """What a database's message means."""

    pattern: str
    error: type[HelixError]
    hint: str


CAUSES = (
    Cause(r"disk is full|No space left|could not extend file", PlatformUnhealthy, "free some disk"),
    Cause(
        r"password authentication failed|no password supplied|permission denied|role .* does not",
        PermissionDenied,
        "check the user and password in HELIX_LEDGER_URL",
    ),
    Cause(
        r"database \".*\" does not exist",
        ConfigurationError,
        "create it, or correct HELIX_LEDGER_URL",
    ),
    Cause(
        r"unable to open database|readonly database|not a database|malformed",
        ConfigurationError,
        "check the file that HELIX_LEDGER_URL names: it must be ours, whole and writable",
    ),
)
"""First match counts. Everything else may pass: a lock, a restart, a broken connection."""


def open_engine(url: str) -> Engine:
    """An engine for the ledger's URL. Connects only when it is used.

    Raises:
        ConfigurationError: no such kind of database, its driver is missing, or no folder for it.
    """
    try:
        parsed = make_url(url)
    except ArgumentError:
        raise _unusable("it is no URL") from None
    opener = OPENERS.get(parsed.get_backend_name())
    if opener is None:
        raise _unusable(f"«{parsed.drivername}» is not one of {', '.join(OPENERS)}")
    try:
        return opener(parsed)
    except ModuleNotFoundError as error:
        raise ConfigurationError(
            f"a PostgreSQL ledger needs {error.name}, which is not installed",
            hint="pip install 'helix-deploy[postgres]'",
        ) from None
    except NoSuchModuleError:
        raise _unusable(f"«{parsed.drivername}» is unknown") from None
    except OSError as error:
        raise _unusable(f"{error.filename}: {error.strerror}") from None


def _sqlite(url: URL) -> Engine:
    if not url.database or url.database == ":memory:":
        raise _unusable("it names no file; several processes share the ledger")
    path = Path(url.database)
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    # SQLite gives its side files the mode of the database.
    os.close(os.open(path, os.O_RDWR | os.O_CREAT, 0o600))
    engine = create_engine(url, connect_args={"timeout": BUSY_SECONDS})

    @event.listens_for(engine, "connect")
    def prepare(connection: Any, _: object) -> None:
        # We begin transactions ourselves: the driver's own begin too late, and never for reads.
        connection.isolation_level = None
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA foreign_keys = ON")

    @event.listens_for(engine, "begin")
    def begin(connection: Connection) -> None:
        # A transaction that reads first and writes later would fail instead of waiting its turn.
        write = connection.get_execution_options().get("writes", False)
        connection.exec_driver_sql("BEGIN IMMEDIATE" if write else "BEGIN")

    return engine


def _postgresql(url: URL) -> Engine:
    return create_engine(
        url.set(drivername="postgresql+psycopg"),
        connect_args={"connect_timeout": CONNECT_SECONDS, "application_name": "helix-deploy"},
        pool_pre_ping=True,
    )


OPENERS: dict[str, Callable[[URL], Engine]] = {
    "sqlite": _sqlite,
    "postgresql": _postgresql,
    "postgres": _postgresql,
}


@contextmanager
def translated(engine: Engine) -> Iterator[None]:
    """Turn the database's errors into ours.

    Raises:
        Transient: locked, unreachable, restarting.
        PermissionDenied, ConfigurationError, PlatformUnhealthy: as `CAUSES` says.
    """
    try:
        yield
    except SQLAlchemyError as error:
        # The statement and its values stay out of the message: they are long, and not for people.
        text = str(error.orig if isinstance(error, DBAPIError) else error).strip()
        first = text.splitlines()[0] if text else type(error).__name__
        where = engine.url.render_as_string(hide_password=True)
        for cause in CAUSES:
            if re.search(cause.pattern, text, re.IGNORECASE):
                raise cause.error(f"the ledger {where}: {first}", hint=cause.hint) from None
        raise Transient(
            f"the ledger {where} cannot be used now: {first}",
            hint="it is tried again; see whether its database runs: helix doctor",
        ) from None


def _unusable(why: str) -> ConfigurationError:
    return ConfigurationError(
        f"HELIX_LEDGER_URL cannot be used: {why}",
        hint="expected sqlite:////absolute/path.db or postgresql://user:password@host/database",
    )
