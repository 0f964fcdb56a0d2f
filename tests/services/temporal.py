"""Real Temporal servers for tests: the dev server, and the one that skips time."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta

from temporalio.api.enums.v1 import IndexedValueType
from temporalio.api.operatorservice.v1 import AddSearchAttributesRequest
from temporalio.client import Client
from temporalio.common import SearchAttributeKey
from temporalio.contrib.pydantic import pydantic_data_converter
from temporalio.testing import WorkflowEnvironment

from tests.services.need import cache_dir, missing, program

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
