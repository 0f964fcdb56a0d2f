"""One named target of a project, resolved: everything a deployment must know about it.

The CLI resolves an instance from helix.toml once, and this value travels with the deployment, so
that a later edit of the file, or a worker on another machine, changes nothing. It holds no secret:
only references to them.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Literal

from pydantic import Field, JsonValue

from model.artifact import BuildSettings
from model.base import Record, digest_of
from model.freeze import Window
from model.policy import Policy

End = Literal["succeeded", "rolled-back", "cancelled", "needs-attention"]
"""How a deployment can end: the values of `model.deployment.Outcome`."""


class Step(StrEnum):
    """The six steps of a deployment, in their order."""

    VALIDATE = "validate"
    BUILD = "build"
    AUTHENTICATE = "authenticate"
    PUSH = "push"
    DEPLOY = "deploy"
    HEALTH_CHECK = "health-check"


class StepPolicy(Record):
    """What `[deploy.<instance>.steps.<step>]` may override; None keeps the default. Seconds."""

    timeout: float | None = Field(None, gt=0)
    """How long one attempt may take."""
    deadline: float | None = Field(None, gt=0)
    """How long all attempts together may take."""
    heartbeat: float | None = Field(None, gt=0)
    """How long a worker may be silent before it is taken for dead."""
    attempts: int | None = Field(None, ge=1)
    """How many attempts at most."""
    backoff: float | None = Field(None, gt=0)
    """Seconds before the second attempt; doubles from then on."""


class HealthCheck(Record):
    """How to tell that a release works. Durations in seconds."""

    kind: Literal["http", "tcp", "command", "none"] = "http"
    path: str = "/"
    port: int | None = None
    """The container's port to probe; the instance's own if None."""
    status: tuple[int, ...] = ()
    """Accepted status codes; any from 200 to 399 if empty."""
    body: str = ""
    """A regular expression that the body must contain; anything if empty."""
    command: tuple[str, ...] = ()
    """What to run inside the container (`kind = "command"`); exit 0 is healthy."""
    start_period: float = Field(0, ge=0)
    """Failures in this first time are not counted against `failures`."""
    interval: float = Field(0.5, gt=0)
    timeout: float = Field(3, gt=0)
    successes: int = Field(2, ge=1)
    """How many in a row make the release healthy."""
    deadline: float = Field(60, gt=0)
    """The release must be healthy within this time, start period included."""


class Approval(Record):
    """A person must agree before a release touches the instance."""

    window: float = Field(24 * 3600, gt=0)
    """Seconds to wait for an answer."""
    otherwise: Literal["reject", "approve"] = "reject"
    """What happens when nobody answers in time."""
    by: tuple[str, ...] = ()
    """Who may answer, as `actor` names them; anybody if empty."""


class Guidance(Record):
    """When a step fails for good, ask a person before rolling back."""

    window: float = Field(1800, gt=0)
    """Seconds to wait for an answer; then it is rolled back."""


class Channel(Record):
    """Where people, or their programs, are told how a deployment of the instance ended."""

    name: str
    """What helix.toml calls it."""
    kind: Literal["slack", "discord", "webhook"]
    url: str
    """A secret reference, or the URL itself."""
    secret: str = ""
    """A secret reference: what messages are signed with (`webhook` only); unsigned if empty."""
    on: tuple[End, ...] = ()
    """The ends that are told; all of them if empty."""
    template: str = ""
    """The text, with names such as $instance in it; our own if empty."""


class Volume(Record):
    """A place where data outlives the release."""

    mount: str
    """The absolute path in the container."""
    name: str = ""
    """The platform's volume name, or the empty string if `path` is given."""
    path: str = ""
    """A folder on the engine's host, absolute."""
    size_gb: int = 0
    """0: the platform's default."""


class ObjectStorage(Record):
    """A bucket in which a HelixDB v3 keeps its data, instead of a volume."""

    bucket: str
    prefix: str = "db/"
    """Where in the bucket."""
    region: str = "us-east-1"
    endpoint_url: str = ""
    """An S3-compatible storage elsewhere, the person's own; empty: that of the kind's own cloud."""
    create: bool = True
    """The provider makes the bucket if it is not there."""
    grant: bool = False
    """The provider gives the release's role what it needs on the bucket."""


class Target(Record):
    """What kind of platform an instance runs on, and that kind's own settings."""

    kind: str
    settings: dict[str, JsonValue] = Field(default_factory=dict)
    """Checked by the provider's own settings model."""


class RegistryTarget(Record):
    """Where the instance's images are stored."""

    kind: str = "oci"
    repository: str = ""
    """Host and path without a tag: 127.0.0.1:5000/shop."""
    settings: dict[str, JsonValue] = Field(default_factory=dict)
    """Checked by the registry's own settings model."""


class Instance(Record):
    """A named target, resolved from helix.toml."""

    project: str
    name: str
    target: Target
    registry: RegistryTarget | None = None
    """None: the image stays in the engine that built it."""
    build: BuildSettings = BuildSettings()
    build_mode: str = ""
    """HelixDB's own build mode (dev, debug, release), which also names the mutable tag."""
    host: str = ""
    """The machine whose engine runs it, for the `local` kind; empty for every other kind."""
    project_dir: str = ""
    """The project folder on `host`, absolute, for the `local` kind; empty otherwise."""
    port: int = 8080
    """The port the container listens on."""
    publish: int | None = None
    """The host's port for it, where the kind publishes one."""
    env: dict[str, str] = Field(default_factory=dict)
    secrets: dict[str, str] = Field(default_factory=dict)
    """Environment name -> secret reference (env:NAME, file:/path, …)."""
    command: tuple[str, ...] = ()
    """Replaces the image's own command if not empty."""
    volumes: tuple[Volume, ...] = ()
    object_storage: ObjectStorage | None = None
    """Where HelixDB keeps its data; what the container is told of it is in `env` and `secrets`."""
    health_check: HealthCheck = HealthCheck()
    strategy: Literal["auto", "start-first", "stop-first"] = "auto"
    """`auto`: stop-first with a volume or object storage, else start-first."""
    stop_grace: float = Field(10, ge=0)
    """Seconds between SIGTERM and SIGKILL."""
    keep_releases: int = Field(5, ge=1)
    """How many earlier releases stay available for a rollback."""
    rollback_deadline: float = Field(1800, gt=0)
    """Seconds for which a rollback is tried before a person is asked."""
    throw_away: bool = False
    """The instance may lose its data: allows a HelixDB that keeps it in memory."""
    approval: Approval | None = None
    guidance: Guidance | None = None
    bake: float = Field(0, ge=0)
    """Seconds for which a promoted release is watched; it is rolled back if it goes bad."""
    freeze: tuple[Window, ...] = ()
    """When deployments are refused."""
    policy: Policy = Policy()
    """What a release must fulfil."""
    steps: dict[Step, StepPolicy] = Field(default_factory=dict)
    notifications: tuple[Channel, ...] = ()

    @property
    def key(self) -> str:
        """Names the instance among all projects and, for local ones, machines."""
        name = f"{self.project}/{self.name}"
        return f"{name}@{self.host}" if self.host else name

    @property
    def single_writer(self) -> bool:
        """Whether it keeps data that two releases, or two containers, must never have open."""
        return bool(self.volumes or self.object_storage)

    @property
    def stop_first(self) -> bool:
        """Whether the previous release must be gone before the new one may start."""
        if self.strategy == "auto":
            return self.single_writer
        return self.strategy == "stop-first"

    @property
    def config_digest(self) -> str:
        """The digest of all that the running container depends on besides its image. Secret
        references count, their values do not: they are only known to the worker."""
        fields = {"target", "port", "publish", "env", "secrets", "command", "volumes", "host"}
        return digest_of(self.model_dump(mode="json", include=fields))
