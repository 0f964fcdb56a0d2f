"""The contract of everything a release can run on.

A provider is made for one instance, used by one activity, and closed. It keeps no state of its own:
whatever it must find again carries the deployment's id as a label, tag or deterministic name.

All calls are synchronous and may be made from any thread. Errors are those of `model.errors`, and
no SDK error may escape. SDK retries are off: Temporal repeats the activity, so that every attempt
can be seen. Every call may be repeated at any time, by another worker on another machine, after a
crash at any point of the first one, and must then finish the work rather than do it twice.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING, ClassVar, Protocol

from pydantic import BaseModel, SecretStr

from model.artifact import Bundle
from model.errors import ConfigurationError, Conflict
from model.instance import Instance
from model.platform import Capabilities, Endpoint, Identity, Release, Revision, Rollout

if TYPE_CHECKING:
    from providers.bucket import Bucket


@dataclass(frozen=True)
class PullCredentials:
    """What a platform needs to pull the release's image. Lives in memory only."""

    registry: str
    username: str
    password: SecretStr


class ImageStore(Protocol):
    """What a kind that only stores images needs of the instance's registry (see
    `registries.base.Registry`, which is one)."""

    @property
    def repository(self) -> str:
        """Host and path without a tag."""

    def authenticate(self) -> Identity:
        """Check that the credentials may pull and push. Reads only."""

    def find(self, reference: str) -> str | None:
        """The digest of a tag or digest; None if it is not there."""

    def tag(self, digest: str, tag: str) -> str | None:
        """Make `tag` point at `digest`. Returns the digest it pointed at before, or None."""

    def untag(self, tag: str, previous: str | None) -> None:
        """Point `tag` back at `previous`, or remove it if there was none."""


class BundleStore(Protocol):
    """Query bundles: those of releases, and those that a kind keeps to bring them back."""

    def read(self, bundle: Bundle) -> dict[str, bytes]:
        """The files of a bundle, by their paths."""

    def keep(self, name: str, content: bytes) -> None:
        """Keep content under a name that is used for no other content."""

    def kept(self, name: str) -> bytes | None:
        """What was kept under a name; None if nothing was."""


class _NoBundles:
    def read(self, bundle: Bundle) -> dict[str, bytes]:
        raise LookupError(bundle.url)

    def keep(self, name: str, content: bytes) -> None:
        raise LookupError(name)

    def kept(self, name: str) -> bytes | None:
        return None


def _no_secret(reference: str) -> SecretStr:
    raise LookupError(reference)


@dataclass(frozen=True)
class Context:
    """What the pipeline lends a provider for one activity."""

    secret: Callable[[str], SecretStr] = _no_secret
    """Resolves a secret reference; raises ConfigurationError if it leads nowhere."""
    pull: Callable[[], PullCredentials | None] = lambda: None
    """Credentials for the image's registry; None if it needs none."""
    registry: Callable[[], ImageStore | None] = lambda: None
    """The instance's registry, closed with the provider; None if it has none."""
    bundles: BundleStore = field(default_factory=_NoBundles)
    """Query bundles, for the kinds that take them."""
    report: Callable[[str], None] = lambda text: None
    """Says what is going on (one line); also keeps the activity alive. Raises if the deployment is
    being cancelled, so call it wherever stopping is safe, and never where it is not."""
    notes: list[str] = field(default_factory=list)
    """Warnings for the person, such as «a swap will interrupt service»."""


class CloudProvider(ABC):
    """Runs releases of one instance on one kind of platform.

    The life of a release, as the workflow calls it:

        preflight → current → start → poll… → endpoint (probed) → promote

    and of one that failed:

        restore → poll… → promote      (previous known)
        restore                        (there was none: nothing of ours may remain)
    """

    kind: ClassVar[str]
    capabilities: ClassVar[Capabilities]
    Settings: ClassVar[type[BaseModel]]
    """The model of `Instance.target.settings` for this kind."""

    def __init__(self, instance: Instance, context: Context) -> None:
        self.instance = instance
        self.context = context

    @abstractmethod
    def identity(self) -> Identity:
        """Who we are on the platform. Reads only.

        Raises:
            PermissionDenied, AuthExpired: the credentials are wrong or old.
            Transient, PlatformUnhealthy: the platform does not answer.
        """

    def lacking(self) -> list[str] | None:
        """The permissions that a deployment needs and these credentials lack, by the names that
        the platform has for them. None where the platform cannot be asked. Reads only."""
        return None

    @abstractmethod
    def preflight(self) -> None:
        """Everything that can be known to fail before anything is changed: region, quota,
        permissions, disk, ports, names. Reads only. Warnings go to `context.notes`."""

    def bucket(self) -> Bucket | None:
        """The bucket of `instance.object_storage`, where the kind's own cloud has it: it is made
        before a release starts, and removed by `destroy --data`. None if there is none, or if it
        is somewhere else and the person's own."""
        return None

    @abstractmethod
    def current(self) -> Revision | None:
        """What serves the instance now, or None. Reads only; repeatable during a deployment,
        where it goes on to name the previous revision until `promote`."""

    def down(self) -> str:
        """Why nobody is served although `current` names a revision, in one line; empty if it runs,
        or if the platform does not tell. Reads only."""
        return ""

    @abstractmethod
    def start(self, release: Release, previous: Revision | None) -> str:
        """Begin to run the release beside, or (`instance.stop_first`) instead of, the previous.

        Finds what carries `release.deployment`, else creates it. Does not wait, and gives the
        release no traffic where the platform lets us hold it back.

        Returns:
            A handle: at most 2 kB of text without secrets, with which any worker can go on.

        Raises:
            Conflict: a newer release is there already (fencing), or a name or port is taken.
        """

    @abstractmethod
    def poll(self, handle: str) -> Rollout:
        """The platform's own word about the handle's revision. Reads only, returns at once."""

    @abstractmethod
    def endpoint(self, handle: str) -> Endpoint | None:
        """Where the health check can reach this very revision, before it has any traffic if the
        platform allows. None if it cannot be reached from here: then `probe` is asked instead.
        Reads only."""

    def probe(self, handle: str) -> str:
        """What the platform's own check of this very revision found, for one that `endpoint` does
        not reach: empty if it is healthy, else what is wrong, in one line. Reads only, and returns
        at once.

        Raises:
            ConfigurationError: the platform has no check of its own.
        """
        raise ConfigurationError(
            f"a release on «{self.kind}» cannot be reached from the worker",
            hint='set kind = "command" or kind = "none" in its health_check',
        )

    def run_check(self, handle: str, command: Sequence[str], timeout: float) -> tuple[int, str]:
        """Run a health-check command beside the revision: exit code and output.

        Raises:
            ConfigurationError: this kind cannot run commands.
        """
        raise NotImplementedError

    @abstractmethod
    def promote(self, handle: str) -> Revision:
        """Give the handle's revision all traffic, and leave the previous one stopped but ready to
        come back. Idempotent. Returns what is now current."""

    @abstractmethod
    def restore(self, deployment: str, previous: Revision | None) -> str | None:
        """Undo what `start` (and `promote`) of this deployment did, however far they came: stop and
        remove what carries its id, then begin to run `previous` again if it does not run.

        Never deletes a volume that holds data.

        Returns:
            A handle to poll and promote, or None if there was no previous revision.

        Raises:
            NothingToRestore: the previous revision is gone.
        """

    @abstractmethod
    def public_url(self) -> str:
        """Where people reach the instance once a release is promoted; empty if nowhere."""

    @abstractmethod
    def logs(
        self, *, since: datetime | None = None, tail: int | None = None, follow: bool = False
    ) -> Iterator[str]:
        """Lines of the current revision, oldest first, without line ends."""

    @abstractmethod
    def prune(self, keep: Sequence[Revision]) -> None:
        """Remove what no rollback needs any more: everything of ours but the current revision and
        `keep`. Never a volume. Idempotent."""

    @abstractmethod
    def destroy(self, *, data: bool) -> None:
        """Remove the instance from the platform; its data only if `data`. Idempotent."""

    def close(self) -> None:  # noqa: B027 - most have nothing to close
        """Give back connections and tunnels. Always called, exactly once."""


def superseded(newer: int, ours: int) -> Conflict:
    """The refusal of a release that a later deployment has overtaken (fencing)."""
    return Conflict(
        f"release {newer} is there already, and this is {ours}",
        hint="a later deployment has taken over; see: helix status",
    )
