"""Real Temporal servers for tests: the dev server, and the one that skips time."""

from __future__ import annotations

import asyncio
import subprocess
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from datetime import timedelta
from pathlib import Path

from temporalio.api.enums.v1 import IndexedValueType
from temporalio.api.operatorservice.v1 import AddSearchAttributesRequest
from temporalio.client import Client
from temporalio.common import SearchAttributeKey
from temporalio.contrib.pydantic import pydantic_data_converter
from temporalio.service import RPCError
from temporalio.testing import WorkflowEnvironment

from tests.services.need import cache_dir, missing, program
from tests.services.registry import free_port

START_SECONDS = 60.0
SEARCH_ATTRIBUTES = ("DeployInstance", "DeployImage", "DeployTrigger", "DeployStep")


@asynccontextmanager
async def dev_server(
    database: str | None = None, *, ui_port: int | None = None
) -> AsyncIterator[Client]:
    """The real server, its data in memory unless a file is named; with its UI if a port is."""
    env = await WorkflowEnvironment.start_local(
        data_converter=pydantic_data_converter,
        dev_server_existing_path=program("temporal", "temporal"),
        dev_server_database_filename=database,
        ui=ui_port is not None,
        ui_port=ui_port,
        dev_server_log_level="error",
        dev_server_extra_args=[
            "--dynamic-config-value",
            "history.transferProcessorMaxPollRPS=1000",
        ],
        search_attributes=[SearchAttributeKey.for_keyword(name) for name in SEARCH_ATTRIBUTES],
    )
    try:
        yield env.client
    finally:
        await env.shutdown()


@contextmanager
def server_at(address: str, log: Path) -> Iterator[str]:
    """The real server on an address of this machine other than loopback: where it is reached."""
    where = f"{address}:{free_port()}"
    attributes = [f"--search-attribute={name}=Keyword" for name in SEARCH_ATTRIBUTES]
    # Its parts speak to each other by loopback, so it cannot listen on one other address alone.
    command = [program("temporal", "temporal"), "server", "start-dev", "--headless"]
    with log.open("ab") as said:
        process = subprocess.Popen(
            [*command, "--ip", "0.0.0.0", "--port", where.rpartition(":")[2], *attributes],
            stdin=subprocess.DEVNULL, stdout=said, stderr=said,
        )  # fmt: skip
    try:
        asyncio.run(_answers(process, where))
        yield where
    finally:
        process.terminate()
        process.wait(30)


async def _answers(process: subprocess.Popen[bytes], address: str) -> None:
    deadline = time.monotonic() + START_SECONDS
    while True:
        try:
            client = await Client.connect(address)
            await client.service_client.check_health()
            return
        except (RuntimeError, RPCError):
            if process.poll() is not None or time.monotonic() > deadline:
                raise
            await asyncio.sleep(0.1)


@asynccontextmanager
async def time_skipping_server() -> AsyncIterator[WorkflowEnvironment]:
    """A server in which a day of waiting takes no time."""
    path = cache_dir() / "test-server" / "temporal-test-server"
    if not path.exists():
        missing("time-skipping", f"there is no {path.name}", "run: make tools")
    env = await WorkflowEnvironment.start_time_skipping(
        test_server_existing_path=str(path),
        data_converter=pydantic_data_converter,
        test_server_startup_timeout=timedelta(seconds=60),
    )
    try:
        await env.client.operator_service.add_search_attributes(
            AddSearchAttributesRequest(
                namespace="default",
                search_attributes=dict.fromkeys(
                    SEARCH_ATTRIBUTES, IndexedValueType.INDEXED_VALUE_TYPE_KEYWORD
                ),
            )
        )
        yield env
    finally:
        await env.shutdown()
