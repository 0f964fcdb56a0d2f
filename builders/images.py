"""The images of the engine that builds: found, fetched and named."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping

from docker.errors import ImageNotFound
from docker.utils import parse_repository_tag
from pydantic import SecretStr

from builders.client import engine, translated
from builders.output import attended
from model.artifact import Image
from model.docker_errors import classify
from model.errors import NotFound, PermissionDenied, PlatformUnhealthy, Transient

_HINTS = {
    NotFound: "check its name and tag, and log in if it is private",
    PermissionDenied: "log in to its registry, or check what the account may pull",
    Transient: "the network, or the registry it comes from, did not answer",
    PlatformUnhealthy: "free some disk with `docker system df` and `docker builder prune`",
}


def find_labelled(label: str, value: str) -> str | None:
    """The id of the newest image that carries a label, or None."""
    with engine() as client:
        found = client.api.images(filters={"label": f"{label}={value}"})
    newest = max(found, key=lambda image: image.get("Created", 0), default=None)
    return str(newest["Id"]) if newest else None


def find(reference: str) -> Image | None:
    """An image of the engine by name, digest or id; None if it is not there.

    Its `digest` is the one it was pulled or pushed with under that very repository.
    """
    with engine() as client:
        try:
            image = client.images.get(reference)
        except ImageNotFound:
            return None
    repository = repository_of(reference)
    for known in image.attrs.get("RepoDigests") or ():
        name, _, digest = known.partition("@")
        if familiar(name) == familiar(repository):
            return Image(repository=repository, digest=digest, id=str(image.id))
    return Image(repository=repository, id=str(image.id))


def name(image: str, repository: str, tag: str) -> None:
    """Give an image a name. Idempotent."""
    with engine() as client:
        client.api.tag(image, repository, tag, force=True)


def pull(
    reference: str,
    logins: Mapping[str, tuple[str, SecretStr]],
    log: Callable[[str], None],
    beat: Callable[[], None],
    *,
    platform: str = "",
    refresh: bool = False,
) -> None:
    """Fetch an image into the engine, unless it is there already.

    Args:
        reference: a name with tag or digest.
        logins: registry host -> user and password, beside this machine's own configuration.
        log: takes lines of progress.
        beat: called several times a second; what it raises ends the wait.
        platform: for example linux/arm64; the engine's own if empty.
        refresh: ask the registry even if the name is there, since a tag may have moved.

    Raises:
        NotFound, PermissionDenied, Throttled, Transient: with what the registry said.
    """
    with engine() as client:
        if not refresh and not platform:
            try:
                client.images.get(reference)
                return
            except ImageNotFound:
                pass
        log(f"fetching {reference}")
        repository, tag = parse_repository_tag(reference)
        host = repository.split("/", 1)[0]
        login = logins.get(host)
        auth = login and {"username": login[0], "password": login[1].get_secret_value()}
        try:
            events = client.api.pull(
                repository,
                tag or "latest",
                stream=True,
                decode=True,
                auth_config=auth or None,
                platform=platform or None,
            )
            for line in attended(_lines(events), beat):
                event = json.loads(line)
                if "error" in event:
                    raise _not_pulled(reference, str(event["error"]))
                if "progress" not in event and event.get("status"):
                    log(str(event["status"]))
        except ImageNotFound as error:
            raise _not_pulled(reference, str(error.explanation)) from None
        except Exception as error:
            said = getattr(error, "explanation", None)
            if said is None:
                raise
            raise _not_pulled(reference, str(said)) from None


def _lines(events: Iterator[object]) -> Iterator[str]:
    with translated():
        for event in events:
            yield json.dumps(event)


def _not_pulled(reference: str, said: str) -> Exception:
    cls = classify(said, default=Transient)
    if "pull access denied" in said or "repository does not exist" in said:
        cls = NotFound
    said = " ".join(said.split())[:300]
    return cls(f"the image {reference} cannot be fetched: {said}", hint=_HINTS.get(cls, ""))


def repository_of(reference: str) -> str:
    """A reference without its tag and digest."""
    return str(parse_repository_tag(reference.partition("@")[0])[0])


def familiar(repository: str) -> str:
    """A repository as Docker shows it: its own hub's names without host and `library/`."""
    for prefix in ("docker.io/library/", "index.docker.io/library/", "docker.io/", "library/"):
        if repository.startswith(prefix):
            return repository.removeprefix(prefix)
    return repository
