"""The edge between a step and Temporal: heartbeats around it, its errors made readable."""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import TypeVar

from temporalio import activity
from temporalio.exceptions import ApplicationError, CancelledError

from activities.beat import alive
from model.deployment import Failure
from model.errors import HelixError
from model.redaction import redact

logger = logging.getLogger(__name__)

RETRIES = ("helix_retries", "Attempts after an activity's first")
FAILED_ATTEMPTS = ("helix_failed_attempts", "Attempts that failed, by the error's code")
"""Counters: name and description. Temporal adds the activity's type to each."""
UNEXPECTED = "Unexpected"

S = TypeVar("S")
A = TypeVar("A")
R = TypeVar("R")


def step_activity(name: str) -> Callable[[Callable[[S, A], R]], Callable[[S, A], R]]:
    """Make a method an activity called `name`.

    A cancel does not interrupt the method at an arbitrary point: it is heard where the method calls
    `beat.report` or `beat.checkpoint`, which is wherever stopping is safe.
    """

    def decorate(method: Callable[[S, A], R]) -> Callable[[S, A], R]:
        @activity.defn(name=name, no_thread_cancel_exception=True)
        @functools.wraps(method)
        def run(self: S, argument: A) -> R:
            with translated(name), alive():
                if activity.info().attempt > 1:
                    _count(RETRIES)
                return method(self, argument)

        return run

    return decorate


@contextmanager
def translated(name: str) -> Iterator[None]:
    """Turn errors into failures that the workflow, the UI and a person can read.

    The failure's type is the error's code, on which the retry policy decides; its one detail is a
    `Failure`. Tracebacks are dropped: the UI shows at most 4 KiB of a failure that is retried.
    """
    try:
        yield
    except (CancelledError, ApplicationError):
        raise
    except HelixError as error:
        _count(FAILED_ATTEMPTS, code=error.code)
        raise ApplicationError(
            redact(str(error)),
            Failure(
                step=name,
                code=error.code,
                message=redact(error.message),
                hint=error.hint,
                request_id=error.request_id,
                evidence=redact(error.evidence),
            ),
            type=error.code,
            next_retry_delay=(
                timedelta(seconds=error.retry_after) if error.retry_after is not None else None
            ),
        ) from None
    except Exception as error:
        # A fault of ours, or an SDK error that no table knows. Its text may hold anything.
        logger.exception("unexpected error in %s", name)
        _count(FAILED_ATTEMPTS, code=UNEXPECTED)
        raise ApplicationError(
            redact(f"{type(error).__name__}: {error}"), type=UNEXPECTED
        ) from None


def _count(counter: tuple[str, str], **labels: str) -> None:
    activity.metric_meter().create_counter(*counter).add(1, labels)
