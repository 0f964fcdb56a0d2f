"""What a deployment adds to the metrics. Temporal's own meter leaves out what is only replayed, so
everything is counted once. Labels have few values each: no instance, no deployment."""

from __future__ import annotations

from temporalio import workflow

with workflow.unsafe.imports_passed_through():
    from model.deployment import Outcome, StepRecord

# Name, description and unit. One that is made twice must be made with the same of each.
DEPLOYMENTS = ("helix_deployments", "Deployments that ended")
DEPLOYMENT_DURATION = (
    "helix_deployment_duration",
    "How long a deployment took, waiting for people included",
    "seconds",
)
STEP_DURATION = (
    "helix_step_duration",
    "How long a step took, all its attempts together",
    "seconds",
)
ROLLBACKS = ("helix_rollbacks", "Deployments that had something to undo")


def step_ended(record: StepRecord) -> None:
    """A step was done, failed or was cancelled; all its attempts count."""
    if record.started_at is None or record.ended_at is None:
        return
    taken = (record.ended_at - record.started_at).total_seconds()
    workflow.metric_meter().create_histogram_float(*STEP_DURATION).record(
        taken, {"step": record.step.value, "state": record.state.value}
    )


def deployment_ended(outcome: Outcome, *, undone: int, left: int) -> None:
    """A deployment reached its end."""
    meter = workflow.metric_meter()
    taken = (workflow.now() - workflow.info().workflow_start_time).total_seconds()
    meter.create_counter(*DEPLOYMENTS).add(1, {"outcome": outcome.value})
    meter.create_histogram_float(*DEPLOYMENT_DURATION).record(taken, {"outcome": outcome.value})
    if undone or left:
        meter.create_counter(*ROLLBACKS).add(1, {"complete": "no" if left else "yes"})
