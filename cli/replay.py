"""`helix replay`: whether the workflows of this version would do what a history says they did."""

from __future__ import annotations

import logging
import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cli import output

if TYPE_CHECKING:
    from temporalio.client import WorkflowHistory
    from temporalio.runtime import Runtime

    from model.errors import HelixError


def replay(
    context: typer.Context,
    deployment: Annotated[
        str,
        typer.Argument(help="A deployment's id, an instance, or a file that helix export wrote."),
    ] = "",
    debug: Annotated[
        bool,
        typer.Option(
            "--debug", help="Outside the sandbox and without limits: a breakpoint() stops there."
        ),
    ] = False,
    json: output.Json = False,
) -> None:
    """Run a deployment's workflow again from its history. Touches nothing but this process.

    Ends with 0 if this version takes the same decisions, and with 1 if it does not: then it cannot
    carry on that deployment.

    \b
    Examples:
      helix replay                        the last deployment of the only instance
      helix replay 3f2a9c1b --debug       stop at each breakpoint() in workflows/
      helix replay helix-3f2a9c1b.zip     what another machine exported
    """
    import asyncio

    from cli.histories import is_file, read

    async def work() -> WorkflowHistory:
        history = read(Path(deployment)) if is_file(deployment) else await _downloaded(deployment)
        await _replay(history, debug=debug)
        return history

    history = asyncio.run(work())
    count = len(history.events)
    if json:
        output.document({"workflow": history.workflow_id, "events": count, "replays": True})
    else:
        output.say(f"{history.workflow_id}: {count} events replay: this version can carry it on")


async def _downloaded(deployment: str) -> WorkflowHistory:
    from cli.find import find_run
    from cli.histories import download
    from cli.session import open_session

    async with open_session() as session:
        return await download(session.client, await find_run(session, deployment))


async def _replay(history: WorkflowHistory, *, debug: bool) -> None:
    from temporalio.worker import Replayer, UnsandboxedWorkflowRunner
    from temporalio.worker.workflow_sandbox import SandboxedWorkflowRunner

    from worker.codec import data_converter
    from worker.main import WORKFLOWS
    from worker.settings import load

    logging.getLogger("temporalio").setLevel(logging.CRITICAL)  # it is said once, by us
    runner = UnsandboxedWorkflowRunner() if debug else SandboxedWorkflowRunner()
    replayer = Replayer(
        workflows=WORKFLOWS,
        workflow_runner=runner,
        data_converter=data_converter(load().encryption_keys),
        debug_mode=debug,
        runtime=_quiet_runtime(),
    )
    try:
        result = await replayer.replay_workflow(history, raise_on_replay_failure=False)
    except (RuntimeError, ValueError) as error:  # the SDK cannot even begin with it
        raise _differs(history, error) from None
    if result.replay_failure is not None:
        raise _differs(history, result.replay_failure)


def _quiet_runtime() -> Runtime:
    """One whose own log stays away from what the command prints."""
    from temporalio.runtime import Runtime, TelemetryConfig

    return Runtime(telemetry=TelemetryConfig(logging=None))


def _differs(history: WorkflowHistory, failure: Exception) -> HelixError:
    """What it means that a history does not replay, from what the SDK says of it."""
    from model.errors import HelixError

    class DoesNotReplay(HelixError):
        code = "DoesNotReplay"

    said = re.search(r'message: "((?:[^"\\]|\\.)*)"', str(failure))
    text = said[1] if said else str(failure)
    number = _event(history, text)
    where = f" at event {number}" if number else ""
    return DoesNotReplay(
        f"{history.workflow_id} does not replay{where}: this version cannot carry it on",
        hint="let a worker of the version that began it finish it, or cancel it and push again",
        evidence=text,
    )


def _event(history: WorkflowHistory, text: str) -> int:
    """The event that the SDK's words are about; 0 if they do not tell.

    They either give its number or name the activity that the history has there.
    """
    if found := re.search(r"HistoryEvent\(id: (\d+)", text):
        return int(found[1])
    if found := re.search(r"scheduled event '([^']+)'", text):
        for event in history.events:
            if event.activity_task_scheduled_event_attributes.activity_type.name == found[1]:
                return event.event_id
    return 0
