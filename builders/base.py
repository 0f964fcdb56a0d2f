"""The contract of everything that can build an image from a Dockerfile."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar

from pydantic import SecretStr

from model.artifact import BuildSettings


@dataclass(frozen=True)
class BuildJob:
    """One build: a context folder, its settings, and what to call the result."""

    context: Path
    settings: BuildSettings
    tag: str
    """The local name the result gets: repository:tag."""
    labels: Mapping[str, str] = field(default_factory=dict)
    secrets: Mapping[str, SecretStr] = field(default_factory=dict)
    """Build secrets by id, resolved. Handed over in files of mode 0600, never as arguments."""
    logins: Mapping[str, tuple[str, SecretStr]] = field(default_factory=dict)
    """Registry host -> user and password, for private base images; beside what this machine's own
    Docker configuration holds."""
    scratch: Path | None = None
    """A private folder for what the build needs meanwhile; the machine's temporary one if None.
    Nothing is left in it."""
    log: Callable[[str], None] = lambda line: None
    """Takes each line of the build's output, secrets blotted out."""
    beat: Callable[[], None] = lambda: None
    """Called several times a second for as long as the build runs. Raises if the deployment is
    being cancelled: the build must then end and leave no process behind."""


class Builder(ABC):
    """Builds images with one tool."""

    name: ClassVar[str]
    features: frozenset[str] = frozenset()
    """Dockerfile features it can build with the engine at hand: see `builders.dockerfile`."""

    @classmethod
    @abstractmethod
    def probe(cls) -> Builder | None:
        """This builder if the machine has it, else None. Quick, and reads only."""

    @abstractmethod
    def build(self, job: BuildJob) -> str:
        """Build and load into the engine. Returns the image's id (sha256:…).

        Raises:
            BuildFailed: with the tail of the output as evidence.
            PlatformUnhealthy: disk full, engine gone.
            Transient: the network failed while a base image was fetched.
        """
