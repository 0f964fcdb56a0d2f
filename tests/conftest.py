"""Services that several tests share, started once for a whole run."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator

import pytest
import pytest_asyncio
from temporalio.client import Client
from temporalio.testing import WorkflowEnvironment

from tests.services.control_plane import Cluster, control_plane
from tests.services.temporal import dev_server, time_skipping_server


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def temporal() -> AsyncIterator[Client]:
    """A client of a real dev server."""
    async with dev_server() as client:
        yield client


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def skipping() -> AsyncIterator[WorkflowEnvironment]:
    """A server that skips time. Its clock is one for all tests: do not use it in parallel."""
    async with time_skipping_server() as env:
        yield env


@pytest.fixture(scope="session")
def cluster() -> Iterator[Cluster]:
    """A real Kubernetes control plane, without nodes."""
    with control_plane() as found:
        yield found
