"""What is told of a deployment that ended, and to whom."""

from __future__ import annotations

from datetime import datetime

from model.base import Record
from model.deployment import DeployRequest, Progress
from model.instance import Channel, End, Instance

NAMES = (
    "instance",
    "project",
    "name",
    "release",
    "deployment",
    "trigger",
    "outcome",
    "by",
    "reason",
    "seconds",
    "artifact",
    "url",
    "step",
    "failure",
    "hint",
    "left",
)
"""What a template may contain: the fields of a `Notice` that are text or a number."""


def is_url(text: str) -> bool:
    """Whether a text is a URL rather than a secret reference."""
    return text.startswith(("https://", "http://"))


class Notice(Record):
    """How a deployment ended, for people and programs that have never heard of it. No secrets."""

    instance: str
    """`Instance.key`."""
    project: str
    name: str
    """The instance's."""
    kind: str
    release: int
    deployment: str
    trigger: str
    outcome: End
    by: str
    reason: str
    started_at: datetime
    ended_at: datetime
    seconds: float
    artifact: str = ""
    url: str = ""
    """Where the release serves; empty if it does not."""
    step: str = ""
    """The step that failed."""
    code: str = ""
    """The failure's code."""
    failure: str = ""
    """The failure's message."""
    hint: str = ""
    left: str = ""
    """What could not be undone, and the command that does it."""


class NotifyRequest(Record):
    """The one argument of the notify workflow."""

    instance: Instance
    notice: Notice

    @property
    def workflow_id(self) -> str:
        """One a deployment. Ends with the deployment's id, which has no colon."""
        return f"notify:{self.instance.key}:{self.notice.deployment}"

    @property
    def channels(self) -> tuple[Channel, ...]:
        """Those that want to hear of this end."""
        return tuple(
            one
            for one in self.instance.notifications
            if not one.on or self.notice.outcome in one.on
        )


class NotifyInput(Record):
    """`notify`: one message to one channel."""

    instance: Instance
    channel: Channel
    notice: Notice


def notice_of(
    request: DeployRequest, progress: Progress, started_at: datetime, ended_at: datetime
) -> Notice:
    """What is told of a deployment's end.

    Args:
        progress: its last; it has an outcome.
    """
    assert progress.outcome is not None
    instance, failure = request.instance, progress.failure
    return Notice(
        instance=instance.key,
        project=instance.project,
        name=instance.name,
        kind=instance.target.kind,
        release=progress.number,
        deployment=progress.deployment,
        trigger=request.trigger.value,
        outcome=progress.outcome.value,
        by=request.actor,
        reason=request.reason,
        started_at=started_at,
        ended_at=ended_at,
        seconds=round((ended_at - started_at).total_seconds(), 1),
        artifact=progress.artifact.short if progress.artifact else "",
        url=progress.url,
        step=failure.step if failure else "",
        code=failure.code if failure else "",
        failure=failure.message if failure else "",
        hint=failure.hint if failure else "",
        left="; ".join(progress.left),
    )
