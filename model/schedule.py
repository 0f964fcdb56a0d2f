"""A schedule: when an instance is deployed by itself, and what each run of it is given and says."""

from __future__ import annotations

from enum import StrEnum
from typing import Literal

from pydantic import Field

from model.base import Record
from model.cron import check
from model.deployment import DeployRequest
from model.errors import ConfigurationError
from model.freeze import zone_of


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

    def checked(self) -> ScheduleSettings:
        """These settings, if Temporal and git will take them.

        Raises:
            ConfigurationError: what will not be taken, and what to write.
        """
        for text in self.cron:
            check(text)
        zone_of(self.timezone)
        if not self.cron:
            raise ConfigurationError("it does not say when", hint='--cron "0 4 * * *"')
        if self.ref and not self.git:
            raise ConfigurationError("a ref belongs to a repository", hint="add --git URL")
        if self.git and self.mode is Mode.REDEPLOY:
            raise ConfigurationError(
                "what comes from a repository must be built", hint="use --rebuild with --git"
            )
        check_git(self.git)
        check_ref(self.ref)
        return self


def check_git(url: str) -> str:
    """The address of a repository.

    Raises:
        ConfigurationError: it holds a password, or git would take it for something else.
    """
    if url.startswith("-") or any(letter.isspace() for letter in url) or "::" in url:
        raise ConfigurationError(f"«{url}» is no repository", hint="give an https or ssh URL")
    scheme, sign, rest = url.partition("://")
    user = rest.partition("/")[0].rpartition("@")[0] if sign else ""
    if ":" in user or (user and scheme.startswith("http")):
        raise ConfigurationError(
            "the repository's URL holds a credential, which would be kept for all to read",
            hint="leave it out, and give the worker an SSH key or a git credential helper",
        )
    return url


def check_ref(ref: str) -> str:
    """A branch, tag or commit.

    Raises:
        ConfigurationError: git would take it for something else.
    """
    if ref.startswith(("-", "+")) or ":" in ref or any(letter.isspace() for letter in ref):
        raise ConfigurationError(f"«{ref}» is no ref", hint="give a branch, a tag or a commit")
    return ref


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
