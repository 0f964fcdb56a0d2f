"""Real deployments for the shared suites: the workflow and every activity as a worker has them, on
a server that skips the time between attempts."""

from __future__ import annotations

import uuid
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from pydantic import SecretStr
from temporalio.client import WorkflowFailureError
from temporalio.testing import WorkflowEnvironment
from temporalio.worker import Worker

from activities.services import Services
from ledger.ledger import Ledger
from model.artifact import Artifact
from model.deployment import DeployRequest, DestroyRequest, Progress
from model.errors import ConfigurationError
from model.instance import Instance
from project.store import Store
from worker.main import WORKFLOWS, activities_of
from workflows.deploy import DeployWorkflow
from workflows.destroy import DestroyWorkflow


@dataclass
class Pipeline:
    """Deploys by workflow."""

    env: WorkflowEnvironment
    queue: str

    async def deploy(
        self, instance: Instance, artifact: Artifact, *, pushed: bool = True
    ) -> Progress:
        """One deployment to its end, whichever that is.

        Args:
            pushed: the registry has the artifact already.
        """
        request = DeployRequest(
            instance=instance, artifact=artifact, pushed=pushed, actor="ada@laptop"
        )
        handle = await self.env.client.start_workflow(
            DeployWorkflow.run, request, id=request.workflow_id, task_queue=self.queue
        )
        try:
            return await handle.result()
        except WorkflowFailureError:
            return await handle.query(DeployWorkflow.progress)

    async def destroy(self, instance: Instance) -> None:
        """Remove the instance with its data."""
        request = DestroyRequest(instance=instance, data=True)
        await self.env.client.execute_workflow(
            DestroyWorkflow.run, request, id=request.workflow_id, task_queue=self.queue
        )


@asynccontextmanager
async def pipeline(
    env: WorkflowEnvironment, folder: Path, secrets: dict[str, str]
) -> AsyncIterator[Pipeline]:
    """A worker with a ledger of its own.

    Args:
        secrets: reference -> value; any other leads nowhere.
    """

    def secret(instance: Instance, reference: str) -> SecretStr:
        if reference not in secrets:
            raise ConfigurationError(f"{reference} leads nowhere")
        return SecretStr(secrets[reference])

    queue = str(uuid.uuid4())
    for name in ("logs", "scratch"):
        (folder / name).mkdir()
    services = Services(
        store=Store(f"file://{folder}/store"),
        ledger=Ledger(f"sqlite:///{folder}/ledger.db"),
        queue=queue,
        logs_dir=folder / "logs",
        scratch_dir=folder / "scratch",
        secret=secret,
    )
    with ThreadPoolExecutor(10) as pool:
        async with Worker(
            env.client,
            task_queue=queue,
            workflows=WORKFLOWS,
            activities=activities_of(services),
            activity_executor=pool,
        ):
            yield Pipeline(env, queue)
