"""What the running code is about: deployment, instance and step. For logs and traces."""

from __future__ import annotations

import re
from typing import Any, NamedTuple

from temporalio import activity, workflow

from model.steps import STEP_OF

_SCHEDULED = re.compile(r"-\d{4}-\d\d-\d\dT[\d:.]+Z$")
"""What Temporal appends to the id of a schedule's run."""


class About(NamedTuple):
    """Empty where it is about none."""

    deployment: str = ""
    """The id that `helix history` shows the end of."""
    instance: str = ""
    """`Instance.key`."""
    step: str = ""
    """One of the six, or the name of what is done between them: an activity, a phase."""


def about() -> About:
    """What the code that calls this is about. Works in activities, workflows, and the threads that
    inherit their context."""
    if activity.in_activity():
        running = activity.info()
        step = STEP_OF.get(running.activity_type)
        run, id = running.workflow_run_id or "", running.workflow_id or ""
        return _about(id, run, step.value if step else running.activity_type)
    if workflow.in_workflow():
        info = workflow.info()
        return _about(info.workflow_id, info.run_id, getattr(workflow.instance(), "step", ""))
    return About()


def of_core(fields: dict[str, Any]) -> About:
    """What a line of Temporal's own core is about, by the fields it came with."""
    found = {name: str(fields.get(name, "")) for name in ("workflow_id", "run_id", "activity_type")}
    step = STEP_OF.get(found["activity_type"])
    name = step.value if step else found["activity_type"]
    return _about(found["workflow_id"], found["run_id"], name)


def _about(workflow_id: str, run: str, step: str) -> About:
    """By a workflow's id, of which the first part says what the rest is.

    deploy:<instance>   redeploy:<instance>-<time>   notify:<instance>:<deployment>
    """
    what, _, rest = workflow_id.partition(":")
    if what == "notify":
        instance, _, deployment = rest.rpartition(":")
        return About(deployment, instance, step)
    return About(run, _SCHEDULED.sub("", rest), step)
