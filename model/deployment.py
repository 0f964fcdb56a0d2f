"""A deployment: what is asked for, how far it is, and how it ended."""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum

from pydantic import Field

from model.artifact import Artifact, Source
from model.base import Record
from model.instance import Instance, Step
from model.platform import Identity, Revision


class Trigger(StrEnum):
    """Why a deployment was started."""

    PUSH = "push"
    ROLLBACK = "rollback"
    RETRY = "retry"
    PROMOTE = "promote"
    SCHEDULE = "schedule"


class Outcome(StrEnum):
    """The legal ends of a deployment. There is no other."""

    SUCCEEDED = "succeeded"
    ROLLED_BACK = "rolled-back"
    CANCELLED = "cancelled"
    NEEDS_ATTENTION = "needs-attention"


class Origin(Record):
    """Where a promoted artifact comes from."""

    instance: Instance
    """As it was released there: its registry, and the references to log in to it."""
    release: int


class DeployRequest(Record):
    """The one argument of the deploy workflow."""

    instance: Instance
    source: Source | None = None
    """None for a prebuilt image and wherever `artifact` is given."""
    artifact: Artifact | None = None
    """What to release; given for rollback, retry and promote, and then build is skipped."""
    pushed: bool = False
    """The artifact is known to be in the registry already: push is skipped."""
    trigger: Trigger = Trigger.PUSH
    actor: str = ""
    """Who asked: user@host, or the CI job."""
    reason: str = ""
    of_release: int = 0
    """The release a rollback goes back to."""
    retry_of: str = ""
    """The deployment this one continues."""
    origin: Origin | None = None
    """The release of another instance that a promotion takes its artifact from."""
    override_freeze: str = ""
    """Why a freeze window does not hold this deployment up; empty: it does."""
    refresh: str = ""
    """Build again whatever was built before, from base images as they are now. Any text that no
    other deployment has: it tells this build from earlier ones of the same source."""

    @property
    def workflow_id(self) -> str:
        """The lock: Temporal runs one workflow of an id at a time."""
        return f"deploy:{self.instance.key}"


class DestroyRequest(Record):
    """The one argument of the destroy workflow. It takes the same lock as a deployment."""

    instance: Instance
    data: bool = False
    """Whether the instance's data goes too."""
    actor: str = ""
    reason: str = ""

    @property
    def workflow_id(self) -> str:
        """The same lock as a deployment's."""
        return f"deploy:{self.instance.key}"


class Choice(StrEnum):
    """What a person can answer."""

    APPROVE = "approve"
    REJECT = "reject"
    RETRY = "retry"
    """Run the failed step again."""
    SKIP = "skip"
    """Go on without the failed step (health-check only)."""
    ROLL_BACK = "roll-back"


class Decision(Record):
    """A person's answer."""

    choice: Choice
    by: str
    """Who answered: user@host."""
    why: str = ""
    at: datetime | None = None
    """When; set by the deployment itself."""


class Question(Record):
    """What a deployment waits for a person to say."""

    about: str
    """`approval`, or the step that failed."""
    text: str
    choices: tuple[Choice, ...]
    otherwise: Choice
    """What happens at the deadline."""
    deadline: datetime
    may_answer: tuple[str, ...] = ()
    """Anybody if empty."""


class Failure(Record):
    """Why a deployment failed, complete enough to act on."""

    step: str
    code: str
    """An error code of `model.errors`."""
    message: str
    hint: str = ""
    request_id: str = ""
    evidence: str = ""
    """The last log lines."""

    def __str__(self) -> str:
        text = f"{self.step}: {self.message}"
        return f"{text}; {self.hint}" if self.hint else text


class StepState(StrEnum):
    """How a step stands."""

    WAITING = "waiting"
    RUNNING = "running"
    DONE = "done"
    SKIPPED = "skipped"
    FAILED = "failed"
    CANCELLED = "cancelled"


class StepRecord(Record):
    """One step of one deployment."""

    step: Step
    state: StepState = StepState.WAITING
    started_at: datetime | None = None
    ended_at: datetime | None = None
    detail: str = ""
    """One line: what it made, or why it was skipped or failed."""


class Progress(Record):
    """Everything a person or a script may ask of a deployment, during and after it."""

    deployment: str = ""
    number: int = 0
    phase: str = "queued"
    """A step, `releasing`, `rolling-back`, or an outcome."""
    steps: tuple[StepRecord, ...] = ()
    artifact: Artifact | None = None
    pushed: bool = False
    previous: Revision | None = None
    revision: Revision | None = None
    url: str = ""
    identities: tuple[Identity, ...] = ()
    failure: Failure | None = None
    undone: tuple[str, ...] = ()
    """Compensations that ran to their end."""
    left: tuple[str, ...] = ()
    """What could not be undone, each with the command that does it."""
    outcome: Outcome | None = None
    question: Question | None = None
    """What the deployment waits for now."""
    decisions: tuple[Decision, ...] = ()
    """What people answered."""
    checks: tuple[str, ...] = ()
    """What the policy's checks of the artifact found."""
    cancel: str | None = None
    """Why it was cancelled, in the words of who did it; None if nobody did."""


class Heartbeat(Record):
    """What a running step says of itself, shown while it runs."""

    text: str = ""
    done: int = 0
    of: int = 0
    """Bytes or items; 0 if the total is unknown."""


class DeploymentRecord(Record):
    """What the ledger keeps of a deployment for good."""

    deployment: str
    number: int
    request: DeployRequest
    started_at: datetime
    ended_at: datetime | None = None
    progress: Progress = Field(default_factory=Progress)
    retired: bool = False
    """Its artifact was pruned: a rollback can no longer go back to it."""
