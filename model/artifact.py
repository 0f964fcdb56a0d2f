"""What a deployment is made from and what a build yields."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from model.base import Record

MOST_BUNDLE_FILES = 2_000
MOST_BUNDLE_BYTES = 20 << 20
"""What Helix Cloud takes at most (HelixDB's CLI, `enterprise_deploy.rs`)."""


class Source(Record):
    """An immutable, content-addressed snapshot of a build context."""

    digest: str
    """sha256 over names, modes, link targets and contents: 64 hexadecimal digits."""
    url: str
    """Where any worker can fetch the archive: file://, s3://, gs:// or abfs://."""
    size: int = 0
    """Bytes of the compressed archive."""
    files: int = 0


class BuildSettings(Record):
    """How an artifact is made."""

    kind: Literal["dockerfile", "image", "helix", "bundle"] = "dockerfile"
    """`dockerfile`: build a context. `image`: take a prebuilt image. `helix`: a HelixDB v2 project
    whose context the `helix` CLI of HelixDB generates. `bundle`: a Helix Cloud query bundle."""
    context: str = "."
    """The build context, relative to the project folder."""
    dockerfile: str = "Dockerfile"
    """Relative to the context."""
    image: str = ""
    """The reference of the prebuilt image (`kind = "image"`)."""
    target: str = ""
    """The stage of a multi-stage Dockerfile to build; the last one if empty."""
    platform: str = ""
    """For example linux/amd64; the engine's own if empty."""
    args: dict[str, str] = Field(default_factory=dict)
    """Build arguments. Not for secrets: they stay in the image's history."""
    secrets: dict[str, str] = Field(default_factory=dict)
    """Build secrets: id -> secret reference, for `RUN --mount=type=secret,id=…`."""


class Image(Record):
    """An image by digest, never by tag."""

    repository: str
    """Host and path without tag: ghcr.io/acme/shop, or a bare local name."""
    digest: str = ""
    """The manifest digest in the registry (sha256:…); empty if it was never in a registry."""
    id: str = ""
    """The engine's own id (sha256:…) where the image was built; empty if unknown."""

    @property
    def reference(self) -> str:
        """What an engine can run: repository@digest, else the engine's own id."""
        return f"{self.repository}@{self.digest}" if self.digest else self.id

    @property
    def identity(self) -> str:
        """The digest that names this image: the manifest's, else the engine's."""
        return self.digest or self.id

    @property
    def short(self) -> str:
        """For people: the repository and the first twelve digits of the digest."""
        return f"{self.repository}@{self.identity.removeprefix('sha256:')[:12]}"


class Bundle(Record):
    """A Helix Cloud query bundle, stored by its content."""

    digest: str
    url: str
    size: int = 0


class Artifact(Record):
    """What a build yields: an image, or a query bundle for Helix Cloud."""

    image: Image | None = None
    bundle: Bundle | None = None
    built_from: str = ""
    """The digest of source and build settings together; equal means nothing to build."""
    tag: str = ""
    """The content-addressed tag the image is stored under in its registry."""
    reused: bool = False
    """True if it was found rather than built."""
    builder: str = ""
    """Which builder made it."""
    log_url: str = ""

    @property
    def identity(self) -> str:
        """The digest of what will run."""
        if self.image is not None:
            return self.image.identity
        return self.bundle.digest if self.bundle is not None else ""

    @property
    def short(self) -> str:
        """For people."""
        if self.image is not None:
            return self.image.short
        return f"bundle {self.bundle.digest[:12]}" if self.bundle is not None else "nothing"
