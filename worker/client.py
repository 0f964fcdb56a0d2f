"""The one place where a Temporal client is made, for the command line and for the worker."""

from __future__ import annotations

import asyncio
import re
import time
from typing import TYPE_CHECKING

from temporalio.api.enums.v1 import TaskQueueType
from temporalio.api.taskqueue.v1 import TaskQueue
from temporalio.api.workflowservice.v1 import DescribeTaskQueueRequest
from temporalio.client import Client
from temporalio.envconfig import ClientConfig
from temporalio.service import RPCError, RPCStatusCode

from model.errors import ConfigurationError, HelixError, PermissionDenied
from worker import tracing
from worker.codec import data_converter
from worker.errors import NoWorker, Unreachable
from worker.settings import load

if TYPE_CHECKING:
    from temporalio.api.taskqueue.v1 import PollerInfo
    from temporalio.runtime import Runtime

CONNECT_SECONDS = 10.0
POLL_SECONDS = 60.0
"""How long one poll of a worker takes when nothing comes: the SDK's own limit."""

CONNECT_PROBLEMS = (
    (
        r"connection refused|tcp connect error",
        "nothing listens there",
        "start it, or correct TEMPORAL_ADDRESS",
    ),
    (r"dns error|failed to lookup", "the name is not known", "check TEMPORAL_ADDRESS"),
    (
        r"certificate|\btls|handshake|h2 protocol|frame with invalid|InvalidContentType",
        "the TLS handshake failed",
        "check TEMPORAL_TLS and the TEMPORAL_TLS_* certificates",
    ),
    (
        r"unauthenticated|unauthorized|permission ?denied",
        "it refuses our credentials",
        "check TEMPORAL_API_KEY or the client certificate",
    ),
    (r"invalid (uri|url)|relative url|invalid format", "it is no address", "expected HOST:PORT"),
)
"""A pattern of the SDK's message -> what it means, and what to do."""


async def connect(
    address: str = "", namespace: str = "default", *, runtime: Runtime | None = None
) -> Client:
    """A client that speaks our types, encrypted if HELIX_ENCRYPTION_KEYS names keys.

    Args:
        address: of the embedded server; without one, everything (address, namespace, TLS, API key)
            is as Temporal's own configuration says: TEMPORAL_*, its profile, its file.
        namespace: used together with `address` only.
        runtime: the SDK's, if it has metrics or logs of its own.

    Raises:
        Unreachable: Temporal does not answer or refuses us; says which address.
        ConfigurationError: Temporal's own configuration, or ours, cannot be read.
    """
    options = {"target_host": address, "namespace": namespace} if address else configured()
    target = options["target_host"]
    converter = await asyncio.to_thread(data_converter, load().encryption_keys)
    try:
        return await asyncio.wait_for(
            Client.connect(
                **options,
                data_converter=converter,
                interceptors=tracing.interceptors(),
                runtime=runtime,
            ),
            CONNECT_SECONDS,
        )
    except TimeoutError:
        raise Unreachable(
            f"Temporal at {target} did not answer within {CONNECT_SECONDS:.0f} s"
        ) from None
    except (RuntimeError, ValueError, RPCError) as error:
        raise _unreachable(str(target), str(error)) from None


def configured() -> dict[str, object]:
    """What `Client.connect` needs, from Temporal's own configuration.

    Raises:
        ConfigurationError: it cannot be read, or names no address.
    """
    try:
        options = dict(ClientConfig.load_client_connect_config())
    except RuntimeError as error:
        raise ConfigurationError(
            f"Temporal's configuration cannot be read: {error}",
            hint="check TEMPORAL_PROFILE and TEMPORAL_CONFIG_FILE",
        ) from None
    if not options.get("target_host"):
        raise ConfigurationError(
            "no Temporal server is configured",
            hint="set TEMPORAL_ADDRESS=HOST:7233, or a profile in Temporal's configuration file",
        )
    return {key: value for key, value in options.items() if value is not None}


async def require_worker(
    client: Client, queue: str, patience: float = 3.0, *, activities: bool = False
) -> None:
    """Return as soon as a worker polls the task queue.

    Args:
        activities: for activities rather than workflows: a worker's own queue has only those.
        patience: seconds to wait for one that has just been started.

    Raises:
        NoWorker: nobody polls. A worker that was killed counts as polling until its last poll
            would have ended anyway, a minute at most.
        Unreachable, ConfigurationError: Temporal does not answer, or has no such namespace.
    """
    deadline = time.monotonic() + patience
    while not await pollers(client, queue, activities=activities):
        if time.monotonic() >= deadline:
            raise NoWorker(
                f"no worker polls the task queue «{queue}» in the namespace «{client.namespace}»",
                hint="start one there: helix worker (or `helix up` for the embedded one)",
            )
        await asyncio.sleep(0.1)


async def pollers(
    client: Client, queue: str, *, activities: bool = False, within: float = POLL_SECONDS + 5
) -> list[PollerInfo]:
    """The workers that poll the queue for workflows, or for activities; those that fell silent are
    left out.

    Args:
        within: seconds ago that a poll may have begun. One that finds nothing lasts for a minute.

    Raises:
        Unreachable, PermissionDenied, ConfigurationError: Temporal does not tell.
    """
    request = DescribeTaskQueueRequest(
        namespace=client.namespace,
        task_queue=TaskQueue(name=queue),
        task_queue_type=TaskQueueType.TASK_QUEUE_TYPE_ACTIVITY
        if activities
        else TaskQueueType.TASK_QUEUE_TYPE_WORKFLOW,
    )
    try:
        found = await client.workflow_service.describe_task_queue(request)
    except RPCError as error:
        raise rpc_problem(error, client) from None
    # The server goes on listing a poller for five minutes after its last poll.
    oldest = time.time() - within
    return [one for one in found.pollers if one.last_access_time.ToNanoseconds() / 1e9 >= oldest]


def rpc_problem(error: RPCError, client: Client) -> HelixError:
    """An error of Temporal's API as one of ours."""
    address = client.service_client.config.target_host
    match error.status:
        case RPCStatusCode.NOT_FOUND if "amespace" in str(error):
            return ConfigurationError(
                f"Temporal at {address} has no namespace «{client.namespace}»",
                hint="correct TEMPORAL_NAMESPACE, or create it: "
                f"temporal operator namespace create -n {client.namespace}",
            )
        case RPCStatusCode.PERMISSION_DENIED | RPCStatusCode.UNAUTHENTICATED:
            return PermissionDenied(
                f"Temporal at {address} refuses us: {error.message}",
                hint="check TEMPORAL_API_KEY or the client certificate",
            )
        case _:
            return Unreachable(f"Temporal at {address}: {error.message or error.status.name}")


def _unreachable(address: str, text: str) -> Unreachable:
    for pattern, what, hint in CONNECT_PROBLEMS:
        if re.search(pattern, text, re.IGNORECASE):
            return Unreachable(f"cannot reach Temporal at {address}: {what}", hint=hint)
    return Unreachable(f"cannot reach Temporal at {address}: {text.splitlines()[0]}")
