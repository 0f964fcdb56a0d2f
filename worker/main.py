"""The long-lived worker: takes deployments from the task queue and carries out their steps.

    python -m worker.main

Two task queues are polled: the shared one, and one of this worker alone, for the steps that are
tied to this machine's engine. A SIGTERM lets running steps finish (graceful_shutdown_seconds), then
hands the rest to another worker; a second one, or a kill, loses nothing either.
"""

from __future__ import annotations

import asyncio
import logging
import os
import shutil
import signal
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from functools import partial
from typing import TYPE_CHECKING

from temporalio.common import VersioningBehavior, WorkerDeploymentVersion
from temporalio.worker import Worker, WorkerDeploymentConfig

from activities.authenticate import AuthenticateActivities
from activities.build import BuildActivities
from activities.deploy import DeployActivities
from activities.health_check import HealthCheckActivities
from activities.notify import NotifyActivities
from activities.policy import PolicyActivities
from activities.push import PushActivities
from activities.record import RecordActivities
from activities.schedule import ScheduleActivities
from activities.services import Services
from activities.validate import ValidateActivities
from ledger.ledger import Ledger
from model.errors import ConfigurationError
from model.redaction import redact
from project import secrets
from project.store import Store
from worker import metrics, tracing
from worker.client import connect
from worker.health import HealthServer
from worker.logs import configure_logging
from worker.settings import Settings, load
from workflows.deploy import DeployWorkflow
from workflows.destroy import DestroyWorkflow
from workflows.notify import NotifyWorkflow
from workflows.redeploy import RedeployWorkflow

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from pydantic import SecretStr
    from temporalio.client import Client

    from model.instance import Instance

logger = logging.getLogger(__name__)

WORKFLOWS = [DeployWorkflow, DestroyWorkflow, RedeployWorkflow, NotifyWorkflow]


def make_services(settings: Settings) -> Services:
    """Everything the steps need, from the settings."""
    scratch = settings.state_dir / "scratch" / settings.worker_name
    shutil.rmtree(scratch, ignore_errors=True)  # what a killed worker left
    scratch.mkdir(parents=True, mode=0o700)
    return Services(
        store=Store(settings.store_url),
        ledger=Ledger(settings.ledger_url),
        queue=settings.own_queue,
        logs_dir=settings.logs_dir,
        scratch_dir=scratch,
        secret=partial(_secret, settings),
    )


def _secret(settings: Settings, instance: Instance, reference: str) -> SecretStr:
    """What the command line handed over is newer than the environment we were started with."""
    handed_over = secrets.read_env_file(settings.env_file(instance.key))
    return secrets.resolve(reference, environ={**os.environ, **handed_over})


def activities_of(services: Services) -> list[Callable[..., Any]]:
    """Every activity, bound to its services."""
    record = RecordActivities(services)
    deploy = DeployActivities(services)
    health = HealthCheckActivities(services)
    schedule = ScheduleActivities(services)
    return [
        record.record_start,
        ValidateActivities(services).validate,
        BuildActivities(services).build,
        AuthenticateActivities(services).authenticate,
        PushActivities(services).push,
        PolicyActivities(services).check_policy,
        record.record_decision,
        deploy.start_release,
        deploy.await_release,
        health.check_health,
        health.bake,
        deploy.promote_release,
        record.record_end,
        deploy.prune,
        deploy.restore_release,
        deploy.destroy,
        record.record_destroyed,
        NotifyActivities(services).notify,
        schedule.prepare_redeploy,
        schedule.record_skipped,
    ]


def versioning(settings: Settings) -> WorkerDeploymentConfig | None:
    """How Temporal tells this version's work from another's; None: it does not.

    A new version takes no deployment before it is made current; see docs/operations.md.
    """
    if not settings.build_id:
        return None
    return WorkerDeploymentConfig(
        version=WorkerDeploymentVersion(settings.task_queue, settings.build_id),
        use_worker_versioning=True,
        default_versioning_behavior=VersioningBehavior.PINNED,
    )


async def run_worker(client: Client, settings: Settings, stop: asyncio.Event) -> None:
    """Work until `stop` is set, or until a worker fails for good.

    Raises:
        Exception: whatever made a worker give up; the process must then end non-zero.
    """
    activities = activities_of(make_services(settings))
    slots = settings.max_concurrent_activities
    throttle = timedelta(seconds=settings.cancel_latency_seconds)
    with ThreadPoolExecutor(2 * slots, thread_name_prefix="step") as pool:
        common = {
            "activities": activities,
            "activity_executor": pool,
            "max_concurrent_activities": slots,
            "graceful_shutdown_timeout": timedelta(seconds=settings.graceful_shutdown_seconds),
            "max_heartbeat_throttle_interval": throttle,
            "default_heartbeat_throttle_interval": throttle,
            "deployment_config": versioning(settings),
            # The SDK's own form, with the name that is unique even among containers of one machine.
            "identity": f"{os.getpid()}@{settings.worker_name}",
        }
        workers = [
            Worker(
                client,
                task_queue=settings.task_queue,
                workflows=WORKFLOWS,
                sticky_queue_schedule_to_start_timeout=timedelta(
                    seconds=settings.sticky_timeout_seconds
                ),
                **common,  # type: ignore[arg-type]
            ),
            Worker(client, task_queue=settings.own_queue, **common),  # type: ignore[arg-type]
        ]
        running = [asyncio.create_task(worker.run()) for worker in workers]
        stopping = asyncio.create_task(stop.wait())
        await asyncio.wait([*running, stopping], return_when=asyncio.FIRST_COMPLETED)
        stopping.cancel()
        await asyncio.gather(*(worker.shutdown() for worker in workers))
        await asyncio.gather(*running)  # raises what ended a worker early


async def main(settings: Settings | None = None) -> None:
    """Run until SIGTERM or SIGINT."""
    settings = settings or load()
    configure_logging(settings, redact)
    try:
        tracing.start("helix-worker", requests=True)
    except ConfigurationError as error:
        logger.warning("%s", error)
    sdk = metrics.runtime(settings)
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    client = await connect(runtime=sdk)
    metrics.start_from_zero(sdk, client, settings)
    try:
        with HealthServer(settings, stop):
            logger.info("worker %s polls %s", settings.worker_name, settings.task_queue)
            await run_worker(client, settings, stop)
    finally:
        tracing.stop()
    logger.info("worker %s ended", settings.worker_name)


if __name__ == "__main__":
    asyncio.run(main())
