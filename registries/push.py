"""Pushes an image from an engine to a registry, and checks what arrived."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from typing import Any

import docker
import requests
from docker.errors import APIError, DockerException, ImageNotFound

from model.artifact import Image
from model.docker_errors import classify
from model.errors import AuthExpired, HelixError, NotFound, PermissionDenied, Transient
from registries.base import Registry
from registries.credentials import engine_auth

REPORT_EVERY = 0.2
"""Seconds between two reports of progress."""
ENGINE_TIMEOUT = 120
"""Seconds the engine may say nothing."""

Report = Callable[[str, int, int], None]


def push_from_engine(
    registry: Registry, engine: str | None, image: Image, tag: str, report: Report
) -> Image:
    """Push an image under a tag, read the digest back from the registry, and compare.

    May be repeated: layers that are there are not sent again. The credentials go along with this
    one call and are written nowhere.

    Args:
        registry: where to; logs in by itself.
        engine: the engine's address (unix://…, tcp://…); None: the environment's.
        image: by `id`, as the engine knows it.
        tag: the tag to push it under.
        report: told «pushing», bytes done and bytes in all; may raise to give up.

    Returns:
        The image by its digest in the registry.

    Raises:
        PermissionDenied, AuthExpired: the registry refused the credentials for good, or only those
            that were in use.
        NotFound: the engine does not have the image.
        Transient, Throttled: the network or the registry failed, or what arrived differs.
    """
    name = f"{registry.repository}:{tag}"
    with _engine(engine) as client, _named(client, image.id or image.reference, name):
        auth = engine_auth(registry.host, registry.credentials())
        try:
            pushed = _push(client, registry.repository, tag, auth, report)
        except PermissionDenied as error:
            # Ask the registry itself: it knows better than the engine who was refused, and why.
            registry.authenticate()
            if "unauthorized" not in error.message and "authentication" not in error.message:
                raise
            raise AuthExpired(f"{error.message}, but accepts them now") from None
    stored = registry.find(tag)
    if stored is None or (pushed and stored != pushed):
        raise Transient(
            f"{name} was pushed as {pushed} but reads as {stored or 'nothing'}",
            hint="somebody else may push to the same tag",
        )
    return Image(repository=registry.repository, digest=stored, id=image.id)


@dataclass
class PushProgress:
    """The progress of all layers, summed, from the events of a push."""

    layers: dict[str, tuple[int, int]] = field(default_factory=dict)
    """Layer -> bytes done, bytes in all; known only once its upload begins."""

    def take(self, event: Mapping[str, Any]) -> None:
        """Note one event."""
        layer, detail = event.get("id"), event.get("progressDetail") or {}
        if not layer:
            return
        if total := detail.get("total"):
            # A layer with a tar header is a little longer than the engine said.
            self.layers[layer] = (min(detail.get("current", 0), total), total)
        elif event.get("status") == "Pushed" and layer in self.layers:
            total = self.layers[layer][1]
            self.layers[layer] = (total, total)

    @property
    def done(self) -> int:
        """Bytes sent."""
        return sum(done for done, _ in self.layers.values())

    @property
    def total(self) -> int:
        """Bytes to send, as far as known."""
        return sum(total for _, total in self.layers.values())


def _push(
    client: docker.DockerClient, repository: str, tag: str, auth: dict[str, str], report: Report
) -> str:
    """Returns the digest the engine says it pushed. An engine answers 200 first and tells of
    failures inside the stream, so every event counts."""
    digest, progress, reported = "", PushProgress(), 0.0
    events = client.api.push(repository, tag=tag, stream=True, decode=True, auth_config=auth)
    with closing(events):
        for event in events:
            if "error" in event:
                message = str(event.get("errorDetail", {}).get("message") or event["error"])
                raise _from_message(message, f"{repository}:{tag}")
            digest = event.get("aux", {}).get("Digest", digest)
            progress.take(event)
            if time.monotonic() - reported >= REPORT_EVERY:
                report("pushing", progress.done, progress.total)
                reported = time.monotonic()
    report("pushing", progress.total, progress.total)
    return digest


@contextmanager
def _engine(address: str | None) -> Iterator[docker.DockerClient]:
    try:
        client = (
            docker.DockerClient(base_url=address, timeout=ENGINE_TIMEOUT)
            if address
            else docker.from_env(timeout=ENGINE_TIMEOUT, use_context=False)
        )
        try:
            yield client
        finally:
            client.close()
    except ImageNotFound as error:
        raise NotFound(
            f"the engine does not have the image: {error.explanation}",
            hint="build it again",
        ) from None
    except APIError as error:
        raise _from_message(str(error.explanation or error), "the image") from None
    except (DockerException, requests.RequestException) as error:
        raise Transient(
            f"the Docker engine {address or ''} does not answer: {type(error).__name__}",
            hint="check that it runs: docker info",
        ) from None


@contextmanager
def _named(client: docker.DockerClient, image: str, name: str) -> Iterator[None]:
    """Give an image a name for a while: an engine pushes names only."""
    before = _id(client, name)
    wanted = client.images.get(image)
    wanted.tag(name)
    try:
        yield
    finally:
        # The last name of an image stays: removing that would remove the image.
        if before != wanted.id and len(client.images.get(image).tags) > 1:
            # Removing a name, unlike moving it, takes along the digest noted under it.
            client.api.remove_image(name, noprune=True)
            if before is not None:
                client.images.get(before).tag(name)


def _id(client: docker.DockerClient, name: str) -> str | None:
    try:
        return str(client.images.get(name).id)
    except ImageNotFound:
        return None


def _from_message(message: str, what: str) -> HelixError:
    return classify(message, default=Transient)(f"cannot push {what}: {message}")
