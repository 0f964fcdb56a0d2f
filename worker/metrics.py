"""The metrics of a worker: Temporal's and our own, for Prometheus, at one address.

Both come from the SDK's runtime, which also hands over what Temporal's core has to log. The names
are in docs/concepts/observability.md.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from temporalio.runtime import (
    LogForwardingConfig,
    LoggingConfig,
    PrometheusConfig,
    Runtime,
    TelemetryConfig,
    TelemetryFilter,
)

from model.deployment import Outcome
from model.errors import ConfigurationError
from workflows.metrics import (
    DEPLOYMENT_DURATION,
    DEPLOYMENTS,
    ROLLBACKS,
    STEP_DURATION,
)

if TYPE_CHECKING:
    from temporalio.client import Client

    from worker.settings import Settings

LONG = (0.5, 1.0, 2.5, 5.0, 10.0, 20.0, 30.0, 60.0, 120.0, 300.0, 600.0, 1200.0, 3600.0)
"""Seconds. 300 is the goal of a whole deployment."""
QUEUE = (0.01, 0.05, 0.1, 0.5, 1.0, 5.0, 10.0, 30.0, 60.0, 300.0)
"""Seconds that a step may wait for a worker."""

BUCKETS = {
    DEPLOYMENT_DURATION[0]: LONG,
    STEP_DURATION[0]: LONG,
    "temporal_activity_execution_latency": LONG,
    "temporal_activity_succeed_endtoend_latency": LONG,
    "temporal_activity_schedule_to_start_latency": QUEUE,
}
"""Histogram -> the upper ends of its buckets."""

CORE_LEVELS = {"debug": "INFO", "info": "WARN", "warning": "WARN", "error": "ERROR"}
"""Our log level -> the core's, which says more than anybody wants to know."""


def runtime(settings: Settings) -> Runtime:
    """The SDK's runtime of this process. Make it once, before the first client.

    Raises:
        ConfigurationError: HELIX_METRICS_ADDRESS cannot be listened on.
    """
    metrics = None
    if settings.metrics_address:
        metrics = PrometheusConfig(
            bind_address=settings.metrics_address,
            counters_total_suffix=True,
            unit_suffix=True,
            durations_as_seconds=True,
            histogram_bucket_overrides=BUCKETS,
        )
    logs = LoggingConfig(
        filter=TelemetryFilter(core_level=CORE_LEVELS[settings.log_level], other_level="ERROR"),
        forwarding=LogForwardingConfig(
            logger=logging.getLogger("temporalio.core"),
            append_target_to_name=False,
            prepend_target_on_message=False,
        ),
    )
    try:
        return Runtime(
            telemetry=TelemetryConfig(logging=logs, metrics=metrics, attach_service_name=False)
        )
    except ValueError as error:
        raise ConfigurationError(
            f"metrics cannot be served on {settings.metrics_address}: {error}",
            hint="set HELIX_METRICS_ADDRESS to an IP address and a free port, "
            "such as 127.0.0.1:9464; each worker on a machine needs its own",
        ) from None


def start_from_zero(runtime: Runtime, client: Client, settings: Settings) -> None:
    """Let every counter be there before anything is counted: Prometheus takes a counter that
    appears with the value 1 for one that did not change."""
    where = {"namespace": client.namespace, "task_queue": settings.task_queue}
    deploys = {**where, "workflow_type": "DeployWorkflow"}
    meter = runtime.metric_meter
    for outcome in Outcome:
        meter.create_counter(*DEPLOYMENTS).add(0, {**deploys, "outcome": outcome.value})
    for complete in ("yes", "no"):
        meter.create_counter(*ROLLBACKS).add(0, {**deploys, "complete": complete})
