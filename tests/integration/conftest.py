"""What several integration tests need: the ledger on each of its databases."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from ledger.ledger import Ledger
from tests.services.postgres import TestPostgres, postgres


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[TestPostgres]:
    """A real PostgreSQL server."""
    with postgres() as running:
        yield running


@pytest.fixture(params=["sqlite", "postgresql"])
def ledger_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """An empty database of each kind."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/state/ledger.db"
    running: TestPostgres = request.getfixturevalue("postgres_server")
    return running.new_database()


@pytest.fixture
def ledger(ledger_url: str) -> Iterator[Ledger]:
    """A ledger in it."""
    opened = Ledger(ledger_url)
    yield opened
    opened.dispose()
