"""What a provider or a registry tells the pipeline: small, and never secret."""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum

from pydantic import Field

from model.artifact import Artifact
from model.base import Record, digest_of
from model.instance import Instance


class Capabilities(Record):
    """What a kind can do, as data, so that `validate` and `plan` can refuse early."""

    runtime: bool = True
    """False: it only stores images, and the push is the release."""
    start_first: bool = True
    """It can run the new release beside the old one."""
    holds_requests: bool = False
    """Requests wait, rather than fail, while a stop-first swap goes on."""
    volumes: bool = False
    logs: bool = True
    scale_to_zero: bool = False
    takes: frozenset[str] = frozenset({"image"})
    """What it runs: `image`, `bundle`."""
    promotes: bool = True
    """What was started is current once it is promoted. False: as soon as it is started."""
    removes: bool = True
    """What runs can be removed. False: a first release stays, however bad it is, and `destroy`
    refuses."""
    keeps_revisions: bool = True
    """The platform keeps the revisions before, for `prune` to remove. False: it has one only."""

    @property
    def programs(self) -> bool:
        """Whether a release is a program, which can exit and have last words."""
        return self.runtime and "image" in self.takes


class Identity(Record):
    """Who we are somewhere, and until when. Never the credential itself."""

    where: str
    who: str
    expires_at: datetime | None = None
    """When the credential ends; None if it does not say."""


class Revision(Record):
    """What runs, by the platform's own identity: enough to bring exactly it back."""

    id: str
    """A container, a task definition, a revision name, a machine version, a digest…"""
    release: int = 0
    """Our number for it; 0 if we did not make it."""
    deployment: str = ""
    """The deployment that made it; empty if we did not."""
    artifact: str = ""
    """The identity of its artifact, if known."""
    config: str = ""
    """Its `Instance.config_digest`, if known."""
    detail: dict[str, str] = Field(default_factory=dict)
    """What else the provider needs to bring it back."""

    def is_same(self, other: Revision) -> bool:
        """Whether both are one release. A platform that updates in place, such as Fly.io, gives a
        release that comes back another identity; the deployment that made it stays."""
        return self.id == other.id or bool(self.deployment and self.deployment == other.deployment)


class Release(Record):
    """A numbered artifact and configuration, about to run on an instance."""

    number: int
    deployment: str
    """The id of the deployment that makes it: the idempotency key of everything it creates."""
    instance: Instance
    artifact: Artifact

    @property
    def digest(self) -> str:
        """Equal for two releases that would run the same thing in the same way."""
        return digest_of([self.artifact.identity, self.instance.config_digest])


class Phase(StrEnum):
    """How far the platform is with a release."""

    STARTING = "starting"
    RUNNING = "running"
    """The platform says it runs; whether it is healthy is for the health check to say."""
    FAILED = "failed"


class Rollout(Record):
    """The platform's own word about our revision, at one moment."""

    phase: Phase
    detail: str = ""
    """One line for people: what it is doing, or why it failed."""
    logs: str = ""
    """The last lines of the failing revision."""


class Endpoint(Record):
    """Where a release can be reached."""

    url: str
    """http://127.0.0.1:6969"""
    headers: dict[str, str] = Field(default_factory=dict)
    """What to send to reach this revision rather than another."""
