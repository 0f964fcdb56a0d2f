"""The images of one instance on an engine: pulled for a release, removed when none needs them."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import suppress

import docker
from docker.errors import APIError, ImageNotFound

from model import names
from model.docker_errors import classify
from model.errors import NotFound, Transient
from model.instance import Instance
from model.platform import Release
from providers.base import Context


class Images:
    """What an instance's engine has of its repository."""

    def __init__(self, client: docker.DockerClient, instance: Instance, context: Context) -> None:
        self._client = client
        self._context = context
        local = names.docker_name(instance.project, instance.name)
        self._local = local
        self._ours = {local, instance.registry.repository if instance.registry else local}

    def ensure(self, release: Release) -> str:
        """The name under which the engine can run the release's image; pulled if it is not there.

        Raises:
            NotFound: the image is nowhere.
            PermissionDenied, AuthExpired, Transient: it cannot be pulled.
        """
        image = release.artifact.image
        if image is None:
            raise NotFound("this release has no image", hint="check the build kind in helix.toml")
        for reference in filter(None, (image.reference, image.id)):
            with suppress(ImageNotFound):
                self._client.images.get(reference)
                return reference
        if not image.digest:
            raise NotFound(
                f"the engine has no image {image.short}, and it was never in a registry",
                hint="push again, to build it anew",
            )
        self._pull(image.repository, image.digest)
        return image.reference

    def _pull(self, repository: str, digest: str) -> None:
        credentials = self._context.pull()
        auth = (
            {
                "username": credentials.username,
                "password": credentials.password.get_secret_value(),
                "serveraddress": credentials.registry,
            }
            if credentials
            else None
        )
        short = f"{repository}@{digest[7:19]}"
        try:
            for said in self._pulling(repository, digest, auth):
                self._context.report(f"pulling {short}: {said}")
        except APIError as error:
            said = " ".join(str(error.explanation or error).split())
            cls = classify(said, default=Transient)
            raise cls(
                f"the engine cannot pull {short}: {said}",
                hint="" if cls.retryable else "check the registry, its repository and credentials",
            ) from None

    def _pulling(self, repository: str, digest: str, auth: dict[str, str] | None) -> Iterator[str]:
        """Pull, and say how far it is about once a second."""
        said_at = 0.0
        for event in self._client.api.pull(
            repository, tag=digest, auth_config=auth, stream=True, decode=True
        ):
            if failure := event.get("error"):  # it may come in the stream, after HTTP 200
                raise APIError(failure, explanation=failure)
            if time.monotonic() - said_at > 1:
                said_at = time.monotonic()
                yield str(event.get("status", ""))

    def remove_unused(self) -> None:
        """Remove those built for this instance that no container uses, stopped ones included. One
        that has a name outside of the instance's repositories stays."""
        used = {one["ImageID"] for one in self._client.api.containers(all=True)}
        for image in self._client.images.list(name=self._local):
            references = [*image.tags, *(image.attrs.get("RepoDigests") or ())]
            if image.id in used or not {repository_of(one) for one in references} <= self._ours:
                continue
            for reference in references:
                with suppress(ImageNotFound, APIError):  # in use after all: it stays
                    self._client.images.remove(reference)


def repository_of(reference: str) -> str:
    """The part of an image's name before its tag or digest."""
    name = reference.split("@", 1)[0]
    head, _, tail = name.rpartition(":")
    return head if head and "/" not in tail else name
