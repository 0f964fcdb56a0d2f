"""Brings the ledger's database to the tables that this code knows, on first use."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from sqlalchemy import Connection, Engine, inspect, text

from model.errors import ConfigurationError

HEAD = "0002"
"""The newest migration. Written here so that a database that is up to date costs one query, and
Alembic is not even imported."""

_LOCK = 0x48454C49
"""PostgreSQL's advisory lock under which migrations run."""


def migrate(engine: Engine) -> None:
    """Run the migrations that are missing. Safe from any number of processes at once.

    Raises:
        ConfigurationError: a newer Helix Deploy has changed the tables since.
    """
    with engine.connect() as connection:
        if _version(connection) == HEAD:
            return
    with _alone(engine) as connection:
        version = _version(connection)
        if version == HEAD:
            return
        _upgrade(connection, version)


def _version(connection: Connection) -> str | None:
    if not inspect(connection).has_table("alembic_version"):
        return None
    found: str | None = connection.execute(text("SELECT version_num FROM alembic_version")).scalar()
    return found


def _upgrade(connection: Connection, version: str | None) -> None:
    from alembic import command
    from alembic.config import Config
    from alembic.script import ScriptDirectory

    config = Config()
    config.set_main_option(
        "script_location", str(Path(__file__).parent / "migrations").replace("%", "%%")
    )
    config.attributes["connection"] = connection
    known = {script.revision for script in ScriptDirectory.from_config(config).walk_revisions()}
    if version is not None and version not in known:
        raise ConfigurationError(
            f"the ledger was changed by a newer Helix Deploy (its tables are at {version})",
            hint="upgrade this one: pip install --upgrade helix-deploy",
        )
    command.upgrade(config, HEAD)


@contextmanager
def _alone(engine: Engine) -> Iterator[Connection]:
    """One transaction that no other process migrates beside; the lock ends with the process."""
    if engine.dialect.name == "postgresql":
        with engine.begin() as connection:
            connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": _LOCK})
            yield connection
        return
    lock = os.open(f"{engine.url.database}.lock", os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with engine.execution_options(writes=True).begin() as connection:
            yield connection
    finally:
        os.close(lock)
