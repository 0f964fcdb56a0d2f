"""Undo what a failed workflow did, whatever else happens to it meanwhile."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass
from typing import Any, TypeVar

from temporalio import workflow
from temporalio.exceptions import ActivityError, FailureError

T = TypeVar("T")


def ends_workflow(error: BaseException) -> bool:
    """Whether an exception is a verdict on the work. Any other is a bug in the workflow's code: it
    fails the task, and the workflow waits for the fix."""
    return isinstance(error, (asyncio.CancelledError, FailureError))


async def uncancellable(work: Coroutine[Any, Any, T]) -> T:
    """Await work to its end, even if the workflow is cancelled on the way.

    A plain `await asyncio.shield(task)` would let go of the task at the first cancel. A workflow
    hears of its cancellation once, so the loop ends.
    """
    task = asyncio.create_task(work)
    while not task.done():
        try:
            await asyncio.shield(task)
        except asyncio.CancelledError:
            continue
        except BaseException:
            break  # task.result() raises it
    return task.result()


@dataclass(frozen=True)
class Compensation:
    """How to undo one thing."""

    name: str
    undo: Callable[[], Awaitable[None]]
    by_hand: str
    """The command a person types if it cannot be undone."""


class Saga:
    """The compensations of what has been begun, newest last."""

    def __init__(self) -> None:
        self._begun: list[Compensation] = []
        self.undone: list[str] = []
        self.left: list[str] = []

    def begin(self, compensation: Compensation) -> None:
        """Register an undo before its step: the step may get half-way."""
        self._begun.append(compensation)

    async def compensate(self) -> None:
        """Undo everything, newest first. One that fails does not stop the others."""
        while self._begun:
            compensation = self._begun.pop()
            try:
                await compensation.undo()
                self.undone.append(compensation.name)
            except ActivityError as error:
                workflow.logger.error("could not undo %s: %s", compensation.name, error.cause)
                self.left.append(f"{compensation.name}: {error.cause}; {compensation.by_hand}")
