"""A connection to Temporal for the length of one command, and what comes with it."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from model.errors import ConfigurationError, NotFound
from worker.errors import Unreachable

if TYPE_CHECKING:
    from temporalio.client import Client

    from cli.stack import Stack
    from ledger.ledger import Ledger
    from model.instance import Instance
    from worker.settings import Settings


@dataclass
class Session:
    """What a command needs to start, find and follow deployments."""

    client: Client
    settings: Settings
    ui: str = ""
    """The address of the Temporal UI; empty if it is not known."""

    @property
    def task_queue(self) -> str:
        """Where workers take deployments from."""
        return self.settings.task_queue

    @cached_property
    def ledger(self) -> Ledger:
        """The ledger, opened when it is first used."""
        from ledger.ledger import Ledger

        return Ledger(self.settings.ledger_url)

    def link(self, workflow_id: str, run_id: str) -> str:
        """A run's page in the Temporal UI; empty if there is none."""
        from cli.runs import link

        return link(self.ui, self.client.namespace, workflow_id, run_id)


@asynccontextmanager
async def open_session(
    *, start: bool = False, for_work: Instance | None = None, beside: Sequence[Instance] = ()
) -> AsyncIterator[Session]:
    """A session for the length of the block; an error of Temporal's API in it is one of ours.

    Args:
        start: start the embedded stack if that is used and does not run.
        for_work: an instance that work is about to be started for: starts the stack as well, hands
            over the secrets that only this shell knows, and sees that somebody takes the work.
        beside: other instances whose secrets the work needs too.

    Raises:
        Unreachable: Temporal does not answer, or (without `start`) the embedded one does not run.
        NoWorker: nobody would take the work.
        ConfigurationError: Temporal's configuration is wrong.
    """
    from cli import output, stack

    begin = start or for_work is not None
    found = stack.ensure(output.note, for_work=for_work is not None) if begin else _running_stack()

    # Slow to import, and not needed where there is no Temporal.
    from temporalio.service import RPCError

    from worker.client import rpc_problem
    from worker.settings import load

    client = await stack.connect(found)
    session = Session(client, load(), found.ui_url)
    try:
        if for_work is not None:
            if found.embedded:
                ours = environment()
                for each in (for_work, *beside):
                    stack.hand_over_env(each.key, variables(each), ours)
            await _require_workers(session, for_work)
        yield session
    except RPCError as error:
        raise rpc_problem(error, client) from None


def _running_stack() -> Stack:
    """The Temporal to work with, if it is there. Starts nothing."""
    from cli import stack, temporal

    if temporal.configured() is not None:
        return stack.ensure()
    found = stack.status()
    if found.server is None or not found.ready:
        raise Unreachable("the embedded Temporal does not run", hint="start it: helix up")
    return stack.embedded(found.server)


async def _require_workers(session: Session, instance: Instance) -> None:
    from worker.client import require_worker

    await require_worker(session.client, session.task_queue)
    if instance.host:
        # Only the worker of that machine can reach its engine.
        own = f"{session.task_queue}@{instance.host}"
        await require_worker(session.client, own, activities=True)


def variables(instance: Instance) -> set[str]:
    """The environment variables that an instance's `env:` secret references name."""
    return set(_variables(instance.model_dump(mode="json")))


def _variables(value: object) -> Iterator[str]:
    match value:
        case str() if value.startswith("env:"):
            yield value.removeprefix("env:")
        case dict():
            for each in value.values():
                yield from _variables(each)
        case list():
            for each in value:
                yield from _variables(each)


def environment(folder: Path | None = None) -> dict[str, str]:
    """This shell's variables, and those of the `.env` beside helix.toml that it does not have."""
    from project.find import find_file
    from project.secrets import read_env_file

    try:
        project = find_file(folder).parent
    except (NotFound, ConfigurationError):
        return dict(os.environ)
    return read_env_file(project / ".env") | dict(os.environ)
