"""Starts a deployment and follows it: what push, rollback and retry have in common."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer

from cli import output
from cli.exits import AlreadyDeploying, Exit
from cli.report import Keep
from model.names import short_id
from worker import tracing

if TYPE_CHECKING:
    from temporalio.client import Client

    from cli.follow import Run
    from cli.runs import Running
    from cli.session import Session
    from model.deployment import DeployRequest

Detach = Annotated[
    bool, typer.Option("--detach", "-d", help="Start it, print its id, and do not wait for it.")
]
Reason = Annotated[str, typer.Option("--reason", help="Why; kept with the deployment.")]
Replace = Annotated[
    bool,
    typer.Option("--replace", help="Cancel the deployment that is running, wait for its rollback."),
]
OverrideFreeze = Annotated[
    str, typer.Option("--override-freeze", help="Why a freeze window does not hold; recorded.")
]
Yes = Annotated[bool, typer.Option("--yes", "-y", help="Never ask a question.")]


@dataclass(frozen=True)
class Wish:
    """How a deployment is to be started and followed."""

    replace: bool = False
    detach: bool = False
    machine: bool = False
    details: str = ""
    """Markdown for the run's page in the Temporal UI."""
    keep: Keep = Keep()
    """What is written to files about its end."""


def deploy(request: DeployRequest, wish: Wish) -> NoReturn:
    """Start the deployment, show it, and end the command with the exit code of its end.

    Raises:
        AlreadyDeploying: another one runs, and it is not to be replaced.
        Unreachable, NoWorker: there is nobody to carry it out.
    """
    import asyncio

    from cli.follow import detached

    wish.keep.check()
    flight = _Flight(request, wish)
    try:
        code = asyncio.run(flight.fly())
    except KeyboardInterrupt:
        if flight.run is None:
            output.note("\nstopped before anything was started")
        else:
            detached(flight.run)
        code = Exit.DETACHED
    raise typer.Exit(code)


class _Flight:
    """One deployment from here to its end; knows its run as soon as there is one."""

    def __init__(self, request: DeployRequest, wish: Wish) -> None:
        self._request = request
        self._wish = wish
        self.run: Run | None = None

    async def fly(self) -> Exit:
        from cli.follow import follow_run
        from cli.session import open_session

        origin = self._request.origin
        beside = (origin.instance,) if origin is not None else ()
        async with open_session(for_work=self._request.instance, beside=beside) as session:
            self.run = await start(session, self._request, self._wish)
            tracing.note(deployment=self.run.deployment, instance=self.run.instance)
            if self._wish.detach:
                self._announce(self.run)
                return Exit.DONE
            return await follow_run(
                session.client,
                self.run,
                machine=self._wish.machine,
                withdraw=True,
                keep=self._wish.keep,
            )

    def _announce(self, run: Run) -> None:
        if self._wish.machine:
            output.line(
                {
                    "event": "start",
                    "deployment": run.deployment,
                    "instance": run.instance,
                    "trigger": self._request.trigger,
                    "link": run.link,
                }
            )
            return
        output.say(f"deployment {short_id(run.deployment)} of {run.instance} has started")
        output.note(f"  follow it:  helix follow {short_id(run.deployment)}")
        if run.link:
            output.note(f"  see it:     {run.link}")


async def start(session: Session, request: DeployRequest, wish: Wish) -> Run:
    """Start the workflow; its id is the instance's lock.

    Raises:
        AlreadyDeploying: the lock is held, and not to be taken over.
        ConfigurationError: the Temporal namespace lacks the search attributes.
    """
    from temporalio.exceptions import WorkflowAlreadyStartedError

    from cli.follow import Run
    from cli.runs import running
    from cli.views import markdown

    client = session.client
    page = "\n".join(filter(None, (markdown(session, request.instance.key), wish.details)))
    if wish.replace:
        await _replace(client, request)
    try:
        run_id = await _started(client, session.task_queue, request, page)
    except WorkflowAlreadyStartedError:
        found = await running(client, request.workflow_id)
        if found is None:  # it ended in this very moment
            run_id = await _started(client, session.task_queue, request, page)
        else:
            raise busy(request.instance.key, found) from None
    return Run(
        workflow_id=request.workflow_id,
        deployment=run_id,
        instance=request.instance.key,
        link=session.link(request.workflow_id, run_id),
    )


async def _started(client: Client, queue: str, request: DeployRequest, page: str) -> str:
    from temporalio.common import (
        SearchAttributeKey,
        SearchAttributePair,
        TypedSearchAttributes,
        WorkflowIDConflictPolicy,
        WorkflowIDReusePolicy,
    )
    from temporalio.service import RPCError, RPCStatusCode

    from cli.runs import DEPLOY
    from model.errors import ConfigurationError

    attributes = {"DeployInstance": request.instance.key, "DeployTrigger": request.trigger.value}
    try:
        handle: Any = await client.start_workflow(
            DEPLOY,
            request,
            id=request.workflow_id,
            task_queue=queue,
            id_conflict_policy=WorkflowIDConflictPolicy.FAIL,
            id_reuse_policy=WorkflowIDReusePolicy.ALLOW_DUPLICATE,
            static_summary=summary(request),
            static_details=page,
            search_attributes=TypedSearchAttributes(
                [
                    SearchAttributePair(SearchAttributeKey.for_keyword(name), value)
                    for name, value in attributes.items()
                ]
            ),
        )
    except RPCError as error:
        if error.status is RPCStatusCode.INVALID_ARGUMENT and "search attribute" in str(error):
            names = ("DeployInstance", "DeployImage", "DeployTrigger", "DeployStep")
            raise ConfigurationError(
                f"the Temporal namespace «{client.namespace}» lacks our search attributes",
                hint="temporal operator search-attribute create "
                + " ".join(f"--name {name} --type Keyword" for name in names),
            ) from None
        raise
    return str(handle.result_run_id)


def summary(request: DeployRequest) -> str:
    """The deployment in one line, for the list of runs in the Temporal UI (400 bytes)."""
    target = f" to release {request.of_release}" if request.of_release else ""
    target += f" from {came_from(request)}" if request.origin else ""
    who = f" by {request.actor}" if request.actor else ""
    reason = f": {request.reason}" if request.reason else ""
    text = f"{request.trigger} of **{request.instance.key}**{target}{who}{reason}"
    return text.replace("\n", " ").encode()[:400].decode(errors="ignore")


def came_from(request: DeployRequest) -> str:
    """The release that a promotion takes its artifact from; empty if it is none."""
    origin = request.origin
    return f"{origin.instance.key} release {origin.release}" if origin is not None else ""


def details(request: DeployRequest, commit: str = "") -> str:
    """The deployment's particulars, for its page in the Temporal UI (Markdown)."""
    facts = {
        "instance": request.instance.key,
        "kind": request.instance.target.kind,
        "asked for by": request.actor,
        "reason": request.reason,
        "commit": commit,
        "source": request.source.digest[:12] if request.source else "",
        "artifact": request.artifact.short if request.artifact else "",
        "back to release": str(request.of_release or ""),
        "promoted from": came_from(request),
        "continues": short_id(request.retry_of) if request.retry_of else "",
        "CI": os.environ.get("CI_JOB_URL", ""),
    }
    return "\n".join(f"- {name}: {value}" for name, value in facts.items() if value)


async def _replace(client: Client, request: DeployRequest) -> None:
    """Cancel what runs and wait for its end, rollback included. Never terminate: that would leave
    the rollback out."""
    from cli.runs import DEPLOY, ended, running

    found = await running(client, request.workflow_id)
    if found is None:
        return
    if found.kind != DEPLOY:
        raise busy(request.instance.key, found)
    output.note(f"cancelling deployment {found.short} and waiting for its rollback")
    handle = client.get_workflow_handle(found.workflow_id, run_id=found.deployment)
    await handle.cancel(reason=f"replaced by {request.actor}")
    await ended(handle)


def busy(instance: str, found: Running) -> AlreadyDeploying:
    """The refusal that names the deployment in the way."""
    from cli.runs import DESTROY

    if found.kind == DESTROY:
        return AlreadyDeploying(f"{instance} {found}", hint="wait until it is gone")
    return AlreadyDeploying(
        f"{instance} is being deployed already: {found}",
        hint=f"follow it: helix follow {found.short}; stop it: helix cancel {found.short}; "
        "take its place: helix push --replace",
    )
