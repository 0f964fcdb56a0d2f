"""The bucket in which a HelixDB keeps its data, where the kind's own cloud has it.

A bucket that Helix made carries the instance's key as a tag, and only such a one is ever removed.
One that somebody else made is used as it is.
"""

from __future__ import annotations

from abc import ABC, abstractmethod

from model.errors import ConfigurationError, Conflict
from model.instance import Instance, ObjectStorage
from providers.base import Context


class Bucket(ABC):
    """Every call may be repeated at any time, after a crash at any point of the first one."""

    def __init__(self, instance: Instance, storage: ObjectStorage, context: Context) -> None:
        self.instance = instance
        self.storage = storage
        self.context = context

    @property
    def name(self) -> str:
        """The bucket's name."""
        return self.storage.bucket

    @abstractmethod
    def owner(self) -> str | None:
        """The key of the instance whose bucket it is, empty if nobody's; None if there is no such
        bucket. Reads only.

        Raises:
            PermissionDenied: it is another account's, or the permission is missing.
        """

    @abstractmethod
    def is_empty(self) -> bool:
        """Whether nothing is in it. Reads only."""

    @abstractmethod
    def create(self) -> None:
        """Create it, unless it is there."""

    @abstractmethod
    def protect(self) -> None:
        """Encrypted, versioned, closed to the public; and, at last, marked as the instance's."""

    @abstractmethod
    def check_access(self) -> None:
        """What can be known of the release's own access to it. Reads only.

        Raises:
            ConfigurationError, PermissionDenied: the release could not use it.
        """

    @abstractmethod
    def delete(self) -> None:
        """Delete everything in it, old versions too, and then itself."""

    def check(self) -> None:
        """Everything that can be known to fail before anything is changed. Reads only.

        Raises:
            NotFound, ConfigurationError, Conflict, PermissionDenied: with what to do.
        """
        owner = self.owner()
        if owner is None and not self.storage.create:
            raise ConfigurationError(
                f"there is no bucket «{self.name}»",
                hint=f"create it, or remove create = false from {self._where}",
            )
        if owner and owner != self.instance.key:
            raise Conflict(
                f"the bucket «{self.name}» belongs to the instance {owner}",
                hint=f"name another bucket in {self._where}",
            )
        self.check_access()

    def ensure(self) -> None:
        """Make it, unless it is there. A bucket without an owner that has something in it is
        somebody's, and stays as it is; an empty one may be ours, of an attempt that died."""
        if not self.storage.create:
            return
        owner = self.owner()
        if owner is None:
            self.context.report(f"creating the bucket {self.name}")
            self.create()
        if not owner and (owner is None or self.is_empty()):
            self.protect()

    def remove(self) -> None:
        """Remove it with all data.

        Raises:
            ConfigurationError: it is not ours to remove, and what a person has to do.
        """
        owner = self.owner()
        if owner is None:
            return
        if owner != self.instance.key:
            raise ConfigurationError(
                f"the bucket «{self.name}» was not made for {self.instance.key}: its data stays",
                hint=f"remove what is under {self.storage.prefix} in it yourself",
            )
        self.context.report(f"removing the bucket {self.name}")
        self.delete()

    @property
    def _where(self) -> str:
        return f"[deploy.{self.instance.name}.object_storage]"
