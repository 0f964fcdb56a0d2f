"""A schedule: when an instance is deployed by itself, and what each run of it is given and says."""

from __future__ import annotations

from enum import StrEnum
from typing import Literal

from pydantic import Field

from model.base import Record
from model.deployment import DeployRequest


class Mode(StrEnum):
    """What is deployed."""

    REDEPLOY = "redeploy"
    """The artifact of the current release once more."""
    REBUILD = "rebuild"
    """What is built anew, from base images as they are by then."""


class Overlap(StrEnum):
    """What a run does when the instance is being deployed already."""

    SKIP = "skip"
    """It does nothing, and is recorded as skipped."""
    BUFFER = "buffer"
    """It waits; at most one does."""
    CANCEL = "cancel"
    """It cancels an earlier run of the schedule, and waits for its rollback. A person's deployment
    is never cancelled: the run is then skipped."""


class ScheduleSettings(Record):
    """When and how. Durations in seconds."""

    cron: tuple[str, ...]
    timezone: str = "UTC"
    """An IANA name."""
    mode: Mode = Mode.REDEPLOY
    git: str = ""
    """The repository to fetch and build (`rebuild` only); the kept source if empty."""
    ref: str = ""
    """Its branch, tag or commit; its default branch if empty."""
    jitter: float = Field(0, ge=0)
    """A run starts up to this much later, at random."""
    overlap: Overlap = Overlap.SKIP
    catch_up: float = Field(3600, ge=10)
    """How late a run may still start that was missed because Temporal was down."""
    pause_on_failure: bool = False
    """Whether a failed run pauses the schedule."""
    note: str = ""


class RedeployRequest(Record):
    """The one argument of the redeploy workflow. Schedules keep it for years: fields are only ever
    added, each with a default."""

    project: str
    name: str
    """The instance."""
    host: str = ""
    """`Instance.host`."""
    schedule: ScheduleSettings
    owner: Literal["command", "helix.toml"] = "command"
    """Who keeps the schedule: `helix schedule add`, or `helix schedule sync`."""
    actor: str = ""
    """Who made it."""

    @property
    def key(self) -> str:
        """`Instance.key`."""
        key = f"{self.project}/{self.name}"
        return f"{key}@{self.host}" if self.host else key

    @property
    def workflow_id(self) -> str:
        """The lock that a person's deployment takes too."""
        return f"deploy:{self.key}"

    @property
    def schedule_id(self) -> str:
        """The schedule's id in Temporal, and the beginning of the ids of its runs."""
        return schedule_id(self.key)


PREFIX = "redeploy:"
"""What the ids of our schedules begin with."""


def schedule_id(key: str) -> str:
    """The id of an instance's schedule."""
    return f"{PREFIX}{key}"


class PrepareInput(Record):
    """`prepare_redeploy`: from the schedule's request to a deployment's."""

    run: str
    """The run that asks: its id."""
    request: RedeployRequest


class Prepared(Record):
    """What is to be deployed, or why nothing is."""

    request: DeployRequest | None = None
    skip: str = ""
    commit: str = ""
    """The commit that was fetched."""


class SkippedInput(Record):
    """`record_skipped`: into the audit trail. Returns why, as it was written."""

    run: str
    request: RedeployRequest
    why: str


class Redeployed(Record):
    """How a run of a schedule ended that did not fail."""

    outcome: Literal["succeeded", "skipped", "cancelled"]
    why: str = ""
    """Why it was skipped or cancelled."""
    deployment: str = ""
    """The deployment it made; empty if it made none."""
    number: int = 0
