"""Finds deployments in Temporal: which one runs, who started it, how far it is."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import quote

from model.base import Record
from model.errors import HelixError
from model.names import short_id

if TYPE_CHECKING:
    from temporalio.client import Client, WorkflowFailureError, WorkflowHandle

R = TypeVar("R")

DEPLOY = "DeployWorkflow"
DESTROY = "DestroyWorkflow"


class _Asked(Record):
    """What every request has that can be running under an instance's lock."""

    actor: str = ""
    reason: str = ""


@dataclass(frozen=True)
class Running:
    """The workflow that holds an instance's lock."""

    workflow_id: str
    deployment: str
    kind: str
    """DEPLOY or DESTROY."""
    since: datetime
    step: str = ""
    actor: str = ""
    reason: str = ""

    @property
    def short(self) -> str:
        """The deployment's id as people see it."""
        return short_id(self.deployment)

    def __str__(self) -> str:
        from cli.output import ago

        what = "is being destroyed" if self.kind == DESTROY else f"deployment {self.short} runs"
        who = f", started by {self.actor}" if self.actor else ""
        where = f", at step {self.step}" if self.step else ""
        return f"{what}{who} {ago(self.since)}{where}"


async def running(client: Client, workflow_id: str) -> Running | None:
    """What holds an instance's lock now, or None.

    Raises:
        RPCError: Temporal does not answer.
    """
    from temporalio.client import WorkflowExecutionStatus
    from temporalio.common import SearchAttributeKey
    from temporalio.service import RPCError, RPCStatusCode

    try:
        found = await client.get_workflow_handle(workflow_id).describe()
    except RPCError as error:
        if error.status is RPCStatusCode.NOT_FOUND:
            return None
        raise
    if found.status is not WorkflowExecutionStatus.RUNNING:
        return None
    asked = await request_of(client, workflow_id, found.run_id, _Asked)
    step = found.typed_search_attributes.get(SearchAttributeKey.for_keyword("DeployStep"), "")
    return Running(
        workflow_id=workflow_id,
        deployment=found.run_id,
        kind=found.workflow_type,
        since=found.start_time,
        step=step,
        actor=asked.actor,
        reason=asked.reason,
    )


async def request_of(client: Client, workflow_id: str, run_id: str, kind: type[R]) -> R:
    """What a run was started with, from the first event of its history."""
    handle = client.get_workflow_handle(workflow_id, run_id=run_id)
    async for event in handle.fetch_history_events(page_size=1):
        payloads = event.workflow_execution_started_event_attributes.input.payloads
        values = await client.data_converter.decode(payloads[:1], [kind])
        found: R = values[0]
        return found
    raise LookupError(workflow_id)


def link(ui: str, namespace: str, workflow_id: str, run_id: str) -> str:
    """The run's page in the Temporal UI; empty if there is no UI."""
    if not ui:
        return ""
    parts = (namespace, "workflows", workflow_id, run_id, "history")
    return f"{ui.rstrip('/')}/namespaces/" + "/".join(quote(part, safe="") for part in parts)


async def ended(handle: WorkflowHandle[Any, Any]) -> None:
    """Wait until a run is over, however it ends."""
    from temporalio.client import WorkflowFailureError

    with suppress(WorkflowFailureError):
        await handle.result(follow_runs=False)


def failed(error: WorkflowFailureError) -> HelixError:
    """What ended a workflow that is not followed, as an error with its hint."""
    from temporalio.exceptions import ActivityError, ApplicationError

    from model.deployment import Failure
    from model.errors import error_classes

    cause: BaseException | None = error.cause
    if isinstance(cause, ActivityError):
        cause = cause.cause
    if not isinstance(cause, ApplicationError):
        return HelixError(str(cause))
    failure = Failure(step="", code=cause.type or HelixError.code, message=cause.message)
    if cause.details:
        with suppress(ValueError):
            failure = Failure.model_validate(cause.details[0])
    kinds = {one.code: one for one in error_classes()}
    return kinds.get(failure.code, HelixError)(
        failure.message,
        hint=failure.hint,
        request_id=failure.request_id,
        evidence=failure.evidence,
    )
