"""The contract of everything an image can be stored in.

A registry is made for one instance, used by one activity, and closed. Errors are those of
`model.errors`. Every call is idempotent: content is addressed by digest.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

from pydantic import BaseModel, SecretStr

from model.artifact import Image
from model.instance import RegistryTarget
from model.platform import Identity


@dataclass(frozen=True)
class Credentials:
    """What `docker login` would take. Lives in memory only."""

    username: str
    password: SecretStr


def _no_secret(reference: str) -> SecretStr:
    raise LookupError(reference)


@dataclass(frozen=True)
class RegistryContext:
    """What the pipeline lends a registry for one activity."""

    secret: Callable[[str], SecretStr] = _no_secret
    """Resolves a secret reference; raises ConfigurationError if it leads nowhere."""
    report: Callable[[str, int, int], None] = lambda text, done, of: None
    """Says what is going on, with bytes done and to do (0 if unknown); also keeps the activity
    alive. Raises if the deployment is being cancelled."""


class Registry(ABC):
    """Stores the images of one instance, in one repository of one kind of registry."""

    kind: ClassVar[str]
    Settings: ClassVar[type[BaseModel]]
    """The model of `RegistryTarget.settings` for this kind."""

    def __init__(self, target: RegistryTarget, context: RegistryContext) -> None:
        self.target = target
        self.context = context

    @property
    @abstractmethod
    def repository(self) -> str:
        """Host and path without a tag, as an engine names it: ghcr.io/acme/shop."""

    @property
    def host(self) -> str:
        """The host, and port if any, of `repository`."""
        return self.repository.split("/", 1)[0]

    @abstractmethod
    def authenticate(self) -> Identity:
        """Get credentials and check that they may pull and push here. Reads only.

        Raises:
            PermissionDenied: which registry, which account, and what is missing.
            Transient: the registry does not answer.
        """

    @abstractmethod
    def credentials(self) -> Credentials | None:
        """For the engine that pushes or pulls; None if the registry needs none. Fetched anew
        whenever the last ones are about to expire."""

    @abstractmethod
    def ensure_repository(self) -> None:
        """Create the repository where the registry wants that done first. Idempotent."""

    @abstractmethod
    def find(self, reference: str) -> str | None:
        """The manifest digest of a tag or digest of our repository; None if it is not there."""

    @abstractmethod
    def tag(self, digest: str, tag: str) -> str | None:
        """Make `tag` point at `digest`. Returns the digest it pointed at before, or None."""

    @abstractmethod
    def untag(self, tag: str, previous: str | None) -> None:
        """Undo `tag`: point it back at `previous`, or remove it if there was none."""

    @abstractmethod
    def copy(self, reference: str, origin: Registry | None = None) -> Image:
        """Copy an image from another repository, all platforms and without an engine, and return it
        by its digest here, which is the digest it had there.

        Args:
            origin: the registry to read it from, with its own login; without one, we log in as
                Docker does there.
        """

    def close(self) -> None:  # noqa: B027 - most have nothing to close
        """Give back connections. Always called, exactly once."""
