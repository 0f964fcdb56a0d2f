"""Remove an instance from its platform, under the same lock as a deployment."""

from __future__ import annotations

from temporalio import workflow

with workflow.unsafe.imports_passed_through():
    from activities.deploy import DeployActivities
    from activities.record import RecordActivities
    from model.deployment import DestroyRequest
    from model.steps import DestroyInput
    from workflows.policies import POLICIES
    from workflows.routing import home_queue


@workflow.defn(name="DestroyWorkflow")
class DestroyWorkflow:
    """The instance is gone when this ends; its data stays unless the request says otherwise."""

    step = "destroy"
    """For the log."""

    @workflow.run
    async def run(self, request: DestroyRequest) -> None:
        """Removing is idempotent, so a failed run is simply started again."""
        deployment = workflow.info().run_id
        home = home_queue(request.instance)
        await workflow.execute_activity_method(
            DeployActivities.destroy,
            DestroyInput(deployment=deployment, instance=request.instance, data=request.data),
            **POLICIES["destroy"].config(f"destroy {request.instance.key}", queue=home),
        )
        await workflow.execute_activity_method(
            RecordActivities.record_destroyed,
            request,
            **POLICIES["record_end"].config("note it in the ledger", queue=home),
        )
