"""The kinds that store images and run nothing: the push is the release.

A release is a tag of the instance's repository, the one of its build mode (`latest`, `dev` or
`debug`), that points at the release's digest. Whoever runs the image elsewhere pulls that tag.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from datetime import datetime
from typing import ClassVar

from pydantic import BaseModel, ConfigDict

from model.errors import ConfigurationError, Conflict, NotFound, NothingToRestore
from model.instance import Instance
from model.names import image_tag
from model.platform import Capabilities, Endpoint, Identity, Phase, Release, Revision, Rollout
from providers.base import CloudProvider, Context, ImageStore


class RegistryOnlySettings(BaseModel):
    """The kind's table is the registry's own, and checked by it."""

    model_config = ConfigDict(extra="ignore")


class RegistryOnlyProvider(CloudProvider):
    """Any kind of registry, through `Context.registry`.

    The tag moves in `promote`, and only from where it was when the release started: an attempt that
    comes late, after a later deployment moved it, is refused.
    """

    kind: ClassVar[str] = "oci"
    capabilities: ClassVar[Capabilities] = Capabilities(runtime=False, logs=False)
    Settings: ClassVar[type[BaseModel]] = RegistryOnlySettings

    def __init__(self, instance: Instance, context: Context) -> None:
        super().__init__(instance, context)
        self._opened: ImageStore | None = None
        self._tag = image_tag(instance.build_mode)

    @property
    def _registry(self) -> ImageStore:
        if self._opened is None:
            self._opened = self.context.registry()
        if self._opened is None:
            raise ConfigurationError(
                f"«{self.instance.name}» only stores images, but names no registry",
                hint=f"see docs/providers for the table of the kind «{self.instance.target.kind}»",
            )
        return self._opened

    def identity(self) -> Identity:
        return self._registry.authenticate()

    def preflight(self) -> None:
        """See that the registry answers."""
        self._find_tag()

    def current(self) -> Revision | None:
        digest = self._find_tag()
        return Revision(id=digest, artifact=digest) if digest else None

    def start(self, release: Release, previous: Revision | None) -> str:
        """See that the image is there, and note where the tag points. Moves nothing yet.

        Raises:
            ConfigurationError: the release has no image in a registry.
            NotFound: the registry does not have it.
        """
        image = release.artifact.image
        if image is None or not image.digest:
            raise ConfigurationError(
                f"the release of «{self.instance.name}» has no image in a registry",
                hint="push again",
            )
        if self._registry.find(image.digest) is None:
            raise NotFound(f"the registry does not have {image.short}", hint="push again")
        return _handle(image.digest, self._find_tag())

    def poll(self, handle: str) -> Rollout:
        digest, _ = _read(handle)
        if self._registry.find(digest) is None:
            return Rollout(phase=Phase.FAILED, detail=f"{digest} is gone from the registry")
        return Rollout(phase=Phase.RUNNING, detail="stored")

    def endpoint(self, handle: str) -> Endpoint | None:
        return None

    def promote(self, handle: str) -> Revision:
        """Move the tag.

        Raises:
            Conflict: somebody else moved it since the release started.
        """
        digest, before = _read(handle)
        now = self._find_tag()
        if now not in (digest, before):
            raise Conflict(
                f"the tag {self.public_url()} was moved to {now} meanwhile",
                hint="another deployment, or a person, has taken over; see: helix status",
            )
        if now != digest:
            self._registry.tag(digest, self._tag)
        return Revision(id=digest, artifact=digest)

    def restore(self, deployment: str, previous: Revision | None) -> str | None:
        """Point the tag where it pointed before; remove it if there was none. The image itself
        stays, under the tag of its content."""
        if previous is None:
            self._registry.untag(self._tag, None)
            return None
        if self._find_tag() != previous.id:
            if self._registry.find(previous.id) is None:
                raise NothingToRestore(
                    f"the image {previous.id} is gone from {self._registry.repository}",
                    hint="push a release that works",
                )
            self._registry.tag(previous.id, self._tag)
        return _handle(previous.id, previous.id)

    def public_url(self) -> str:
        """What to pull: the repository with the tag."""
        return f"{self._registry.repository}:{self._tag}"

    def logs(
        self, *, since: datetime | None = None, tail: int | None = None, follow: bool = False
    ) -> Iterator[str]:
        """There are none.

        Raises:
            ConfigurationError: always.
        """
        raise ConfigurationError(
            f"«{self.instance.name}» stores images and runs nothing, so it has no logs",
            hint="ask whatever runs the image",
        )

    def prune(self, keep: Sequence[Revision]) -> None:
        """Nothing: images are kept for as long as the registry's own rules say."""

    def destroy(self, *, data: bool) -> None:
        """Remove the tag. Images stay, for the registry's own rules to remove."""
        self._registry.untag(self._tag, None)

    def _find_tag(self) -> str | None:
        return self._registry.find(self._tag)


def _handle(digest: str, before: str | None) -> str:
    return json.dumps({"digest": digest, "before": before})


def _read(handle: str) -> tuple[str, str | None]:
    """The digest, and where the tag pointed before."""
    found = json.loads(handle)
    return found["digest"], found["before"]
