"""How long each activity may take and how it is retried: the whole policy, in one table.

Whether an error is retried at all is not decided here: it follows from its class
(`model.errors`). A policy may change at any time without breaking a running deployment: replay does
not depend on it.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import timedelta

from temporalio.common import RetryPolicy
from temporalio.workflow import ActivityCancellationType, ActivityConfig

from model.errors import NothingToRestore, fatal_codes
from model.instance import StepPolicy

FATAL = tuple(fatal_codes())
ONLY_HOPELESS = (NothingToRestore.code,)
"""A rollback goes on trying through everything else."""


@dataclass(frozen=True)
class Policy:
    """Seconds, except `attempts`."""

    timeout: float
    """start-to-close: one attempt."""
    deadline: float
    """schedule-to-close: all attempts and the pauses between them."""
    heartbeat: float | None = None
    """A worker that is silent for longer is taken for dead."""
    attempts: int = 0
    """0: as many as the deadline allows."""
    backoff: float = 1
    """Before the second attempt; doubles from then on."""
    longest_backoff: float = 10
    queue_wait: float | None = None
    """schedule-to-start: how long a worker's own queue may keep the activity waiting before the
    worker is taken for gone."""
    fatal: tuple[str, ...] = FATAL

    def overridden(self, by: StepPolicy | None) -> Policy:
        """This policy with what helix.toml says in its place."""
        if by is None:
            return self
        changes = by.model_dump(exclude_none=True)
        policy = replace(self, **changes)
        return replace(policy, deadline=max(policy.deadline, policy.timeout))

    def allowing(self, seconds: float) -> Policy:
        """This policy with room for work that itself may take so long."""
        timeout = max(self.timeout, seconds + 30)
        return replace(self, timeout=timeout, deadline=max(self.deadline, 2 * timeout))

    def within(self, seconds: float) -> Policy:
        """This policy with another deadline."""
        return replace(self, deadline=seconds, timeout=min(self.timeout, seconds))

    def config(self, summary: str, *, queue: str | None = None) -> ActivityConfig:
        """The options of one activity call."""
        config = ActivityConfig(
            summary=summary,
            start_to_close_timeout=timedelta(seconds=self.timeout),
            schedule_to_close_timeout=timedelta(seconds=self.deadline),
            retry_policy=RetryPolicy(
                initial_interval=timedelta(seconds=self.backoff),
                maximum_interval=timedelta(seconds=max(self.longest_backoff, self.backoff)),
                maximum_attempts=self.attempts,
                non_retryable_error_types=list(self.fatal),
            ),
            # Never undo a step that may still be running.
            cancellation_type=ActivityCancellationType.WAIT_CANCELLATION_COMPLETED,
        )
        if self.heartbeat is not None:
            config["heartbeat_timeout"] = timedelta(seconds=self.heartbeat)
        if queue is not None:
            config["task_queue"] = queue
            if self.queue_wait is not None:
                config["schedule_to_start_timeout"] = timedelta(seconds=self.queue_wait)
        return config


MINUTE = 60.0
HOUR = 60 * MINUTE

# An attempt of a step makes a dozen calls; where every tenth call fails, most attempts do. With so
# many attempts a deployment succeeds all the same: see `tests.contract.failing_suite`.
POLICIES: dict[str, Policy] = {
    "record_start": Policy(timeout=10, deadline=5 * MINUTE),
    "validate": Policy(timeout=MINUTE, deadline=5 * MINUTE, heartbeat=10, attempts=12),
    "build": Policy(timeout=30 * MINUTE, deadline=HOUR, heartbeat=10, attempts=6, queue_wait=30),
    "authenticate": Policy(timeout=30, deadline=5 * MINUTE, heartbeat=10, attempts=15),
    "push": Policy(timeout=20 * MINUTE, deadline=HOUR, heartbeat=10, attempts=15, queue_wait=30),
    "check_policy": Policy(
        timeout=15 * MINUTE, deadline=HOUR, heartbeat=10, attempts=6, queue_wait=30
    ),
    "record_decision": Policy(timeout=10, deadline=5 * MINUTE),
    "start_release": Policy(timeout=10 * MINUTE, deadline=20 * MINUTE, heartbeat=10, attempts=25),
    "await_release": Policy(timeout=20 * MINUTE, deadline=30 * MINUTE, heartbeat=10, attempts=25),
    "check_health": Policy(timeout=5 * MINUTE, deadline=10 * MINUTE, heartbeat=10, attempts=15),
    "promote_release": Policy(timeout=10 * MINUTE, deadline=20 * MINUTE, heartbeat=10),
    "bake": Policy(timeout=HOUR, deadline=2 * HOUR, heartbeat=10, attempts=20),
    "record_end": Policy(timeout=10, deadline=HOUR, longest_backoff=MINUTE),
    "prune": Policy(timeout=2 * MINUTE, deadline=5 * MINUTE, heartbeat=10, attempts=3),
    "restore_release": Policy(
        timeout=10 * MINUTE, deadline=30 * MINUTE, heartbeat=10, fatal=ONLY_HOPELESS
    ),
    "prepare_redeploy": Policy(timeout=15 * MINUTE, deadline=HOUR, heartbeat=10, attempts=6),
    "notify": Policy(timeout=20, deadline=6 * HOUR, longest_backoff=5 * MINUTE),
    "record_skipped": Policy(timeout=10, deadline=HOUR, longest_backoff=MINUTE),
    "destroy": Policy(timeout=20 * MINUTE, deadline=HOUR, heartbeat=10),
}
"""Activity -> policy."""

MAX_BUILD_HOSTS = 20
"""How many workers a build is given to, one after the other, when each in turn is gone."""
MAX_REAUTHENTICATIONS = 2
"""How often a step that found expired credentials may go back to `authenticate`."""
LOCK_WAIT = 24 * HOUR
"""How long a scheduled run waits for a deployment that is in its way, if it is to wait at all."""
LOCK_PAUSE, LOCK_PAUSE_LONGEST = 5.0, 2 * MINUTE
"""Between two looks whether it still is; doubles from the first to the second."""
