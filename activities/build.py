"""The step `build`: source → artifact, made by the best builder this machine has.

The same source and settings give the same artifact: what was built before is found by the digest of
both, in the registry by its tag or in the engine by its label, and not built again.
"""

from __future__ import annotations

import os
import platform
import re
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from activities import beat
from activities.boundary import step_activity
from model.artifact import Artifact, BuildSettings, Bundle, Image, Source
from model.base import digest_of
from model.errors import ConfigurationError, NotFound, PermissionDenied, PlatformUnhealthy
from model.instance import Instance, RegistryTarget
from model.names import LABEL_DEPLOYMENT, content_tag, docker_name, image_tag
from model.steps import BuildInput

if TYPE_CHECKING:
    from pydantic import SecretStr

    from activities.services import Services
    from model.deployment import DeployRequest
    from registries.base import Registry

LABEL_BUILT_FROM = "helix.built-from"
"""The digest of source and build settings that an image was made from."""

MIN_FREE = 200 << 20
"""Bytes that must be free beside a few times the source, or a build is not begun."""


class BuildActivities:
    """Content-addressed: a second build of the same thing finds the first one's result."""

    def __init__(self, services: Services) -> None:
        self._services = services

    @step_activity("build")
    def build(self, given: BuildInput) -> Artifact:
        """Make the artifact, or find it.

        Returns:
            The artifact. `reused` says that it was there; its image has a digest if that was in
            the registry, so that nothing has to be pushed, and only an id if it is in the engine.

        Raises:
            BuildFailed: with the last lines of the output, which is kept whole at `log_url`.
            ConfigurationError, NotFound, PermissionDenied, Transient, PlatformUnhealthy.
        """
        instance = given.request.instance
        with self._services.registry(instance) as registry:
            if instance.build.kind == "image":
                return self._take(instance, registry)
            source = given.request.source
            if source is None:
                raise ConfigurationError("there is no source to build", hint="run: helix push")
            if instance.build.kind == "bundle":
                bundle = Bundle(digest=source.digest, url=source.url, size=source.size)
                return Artifact(bundle=bundle, built_from=source.digest)
            refresh = given.request.refresh
            anew = [refresh] if refresh else []
            built_from = digest_of([source.digest, _settings_of(instance), *anew])
            found = self._find(instance, registry, built_from)
            return found or self._make(given, source, registry, built_from)

    def _find(
        self, instance: Instance, registry: Registry | None, built_from: str
    ) -> Artifact | None:
        """What was built from the same before: in the registry, else in this machine's engine."""
        from builders import images

        beat.report("looking for an earlier build of the same")
        tag = content_tag(built_from)
        known = Artifact(built_from=built_from, tag=tag, reused=True)
        if registry is not None and (digest := registry.find(tag)) is not None:
            image = Image(repository=registry.repository, digest=digest)
            return known.model_copy(update={"image": image})
        image_id = images.find_labelled(LABEL_BUILT_FROM, built_from)
        if image_id is None:
            return None
        return known.model_copy(update={"image": self._named(instance, registry, image_id, tag)})

    def _make(
        self, given: BuildInput, source: Source, registry: Registry | None, built_from: str
    ) -> Artifact:
        """Build it in a scratch folder that is gone afterwards."""
        from builders.base import BuildJob
        from builders.choose import choose
        from project.source import fetch
        from project.store import LogWriter

        services, instance = self._services, given.request.instance
        settings, tag = instance.build, content_tag(built_from)
        name = re.sub(r"[^\w.-]+", "-", given.deployment)
        with (
            _scratch(services.scratch_dir) as scratch,
            LogWriter(services.store, f"{name}/build.log", services.logs_dir) as log,
        ):
            beat.report("fetching the source", 0, source.size)
            context, work = scratch / "context", scratch / "work"
            work.mkdir(mode=0o700)
            fetch(source, context, services.store)
            text = _read(context / settings.dockerfile)
            builder = choose(settings, text)
            said = _Said(log.write)
            said.line(f"building {instance.key} with {builder.name}")
            logins = _logins(registry, text, instance)
            if given.request.refresh:
                _refresh_bases(text, settings, logins, said)
            image_id = builder.build(
                BuildJob(
                    context=context,
                    settings=settings,
                    tag=f"{docker_name(instance.project, instance.name)}:{tag}",
                    labels={LABEL_BUILT_FROM: built_from, LABEL_DEPLOYMENT: given.deployment},
                    secrets={
                        key: services.secret(instance, reference)
                        for key, reference in settings.secrets.items()
                    },
                    logins=logins,
                    scratch=work,
                    log=said.line,
                    beat=said.beat,
                )
            )
            url = log.url
        return Artifact(
            image=self._named(instance, registry, image_id, tag),
            built_from=built_from,
            tag=tag,
            builder=builder.name,
            log_url=url,
        )

    def _named(
        self, instance: Instance, registry: Registry | None, image_id: str, tag: str
    ) -> Image:
        """Give an image of the engine its names: the content's, and the build mode's, which tools
        that know HelixDB projects look for."""
        from builders import images

        local = docker_name(instance.project, instance.name)
        for name in (tag, image_tag(instance.build_mode)):
            images.name(image_id, local, name)
        return Image(repository=registry.repository if registry else local, id=image_id)

    def _take(self, instance: Instance, registry: Registry | None) -> Artifact:
        """Resolve a prebuilt image to what will run, whatever its tag points at tomorrow.

        An image that only this engine has is taken by its id. Any other is taken by the digest its
        registry gives it now; without a registry of our own, it is fetched into the engine.
        """
        from builders import images

        reference, wanted = instance.build.image, instance.build.platform
        image = images.find(reference) if registry is None else _local(reference)
        only_here = image is not None and not image.digest
        if image is None or not only_here:
            if registry is not None:
                image = self._resolve(instance, registry)
            else:
                fixed = "@" in reference
                said = _Said(lambda line: None)
                images.pull(reference, {}, said.line, said.beat, platform=wanted, refresh=not fixed)
                image = images.find(reference)
        if image is None:
            raise NotFound(
                f"the image {reference} is not in the engine", hint="check the name and tag"
            )
        built_from = digest_of([image.identity, _settings_of(instance)])
        tag = content_tag(built_from)
        reused = False
        if registry is not None and (digest := registry.find(tag)) is not None:
            image, reused = Image(repository=registry.repository, digest=digest), True
        elif registry is not None and only_here:
            image = Image(repository=registry.repository, id=image.id)
        return Artifact(image=image, built_from=built_from, tag=tag, reused=reused)

    def _resolve(self, instance: Instance, registry: Registry) -> Image:
        """The digest an image has in the registry it comes from."""
        from registries.base import RegistryContext
        from registries.oci import OciRegistry
        from registries.reference import Reference

        origin = Reference.parse(instance.build.image)
        if origin.digest:
            return Image(repository=origin.repository, digest=origin.digest)
        beat.report(f"resolving {instance.build.image}")
        ours = origin.host == registry.host and instance.registry is not None
        settings = instance.registry.settings if ours and instance.registry else {}
        target = RegistryTarget(repository=origin.repository, settings=settings)
        context = RegistryContext(
            secret=partial(self._services.secret, instance), report=beat.report
        )
        where = OciRegistry(target, context)
        try:
            digest = where.find(origin.version)
        finally:
            where.close()
        if digest is None:
            raise NotFound(
                f"there is no image {instance.build.image}", hint="check its name and tag"
            )
        return Image(repository=origin.repository, digest=digest)


def check_build(request: DeployRequest, services: Services) -> str:
    """What can be known to fail before a build begins.

    Returns:
        The name of the builder that would build; empty for what needs none.

    Raises:
        ConfigurationError: no such Dockerfile in the source, a feature that no builder here has, or
            a file to copy that is not in the source.
        PlatformUnhealthy: there is no engine, or too little disk.
    """
    from builders.choose import choose
    from builders.client import describe
    from project.source import look

    source, settings = request.source, request.instance.build
    if settings.kind == "image":
        return ""
    if source is not None and settings.kind == "bundle":
        from builders.bundle import check_size

        check_size(source.files, source.size)
        return ""
    if source is None:
        raise ConfigurationError("there is no source to build", hint="run: helix push")
    text, names = look(source, settings.dockerfile, services.store)
    if text is None:
        raise ConfigurationError(
            f"there is no {settings.dockerfile} in the source",
            hint="create it, or set `dockerfile` to its path relative to the context",
        )
    builder = choose(settings, text)
    _check_copies(text, settings.dockerfile, names)
    engine = describe()
    folders = [services.scratch_dir, *([Path(engine.root)] if engine.local else [])]
    for folder in folders:
        _check_space(folder, MIN_FREE + 4 * source.size)
    return builder.name


def _check_copies(text: str, dockerfile: str, names: dict[str, str]) -> None:
    from builders.dockerfile import Dockerfile

    for line, path in Dockerfile(text).copies():
        parents = [str(parent) for parent in Path(path).parents]
        behind_link = any(names.get(parent) == "l" for parent in parents)
        if path != "." and path not in names and not behind_link:
            raise ConfigurationError(
                f"{dockerfile} line {line} copies {path}, which is not in the build context",
                hint="create it, correct the path, or see whether .dockerignore leaves it out",
            )


def _check_space(folder: Path, needed: int) -> None:
    try:
        free = shutil.disk_usage(folder).free
    except OSError:
        return  # not ours to see: the build itself will tell
    if free < needed:
        raise PlatformUnhealthy(
            f"only {free >> 20} MB are free in {folder}, and the build may need {needed >> 20}",
            hint="free some with `docker system df` and `docker builder prune`",
        )


def _refresh_bases(
    text: str, settings: BuildSettings, logins: dict[str, tuple[str, SecretStr]], said: _Said
) -> None:
    """Fetch the base images again, since their tags may have moved. One that only this engine has,
    and no registry, stays as it is."""
    from builders import images
    from builders.dockerfile import Dockerfile

    for base in Dockerfile(text).bases(settings.args, settings.target):
        try:
            images.pull(
                base, logins, said.line, said.beat, platform=settings.platform, refresh=True
            )
        except (NotFound, PermissionDenied) as error:
            if images.find(base) is None:
                raise
            said.line(f"{base} stays as it is: {error.message}")


def _settings_of(instance: Instance) -> dict[str, Any]:
    """The settings that change what is built. Where the context lies is not one of them."""
    settings = instance.build.model_dump(mode="json", exclude={"context"})
    return settings | {"platform": instance.build.platform or _architecture()}


def _architecture() -> str:
    """What is built for when no platform is named: the engine's own architecture."""
    from builders import client

    try:
        return client.describe().architecture
    except PlatformUnhealthy:
        return platform.machine()  # no engine: then only a registry can have the image


def _local(reference: str) -> Image | None:
    """As `images.find`, on a machine that may have no engine at all."""
    from builders import images

    try:
        return images.find(reference)
    except PlatformUnhealthy:
        return None


def _logins(
    registry: Registry | None, text: str, instance: Instance
) -> dict[str, tuple[str, SecretStr]]:
    """Our own registry's credentials, if the Dockerfile is based on an image in it."""
    from builders.dockerfile import Dockerfile

    if registry is None:
        return {}
    bases = Dockerfile(text).bases(instance.build.args, instance.build.target)
    if not any(base.startswith(f"{registry.host}/") for base in bases):
        return {}
    found = registry.credentials()
    return {registry.host: (found.username, found.password)} if found else {}


def _read(dockerfile: Path) -> str:
    try:
        return dockerfile.read_text(errors="replace")
    except OSError:
        raise ConfigurationError(
            f"there is no {dockerfile.name} in the source",
            hint="create it, or set `dockerfile` to its path relative to the context",
        ) from None


@dataclass
class _Said:
    """Takes a build's lines: all to the log, now and then the last one to the heartbeat."""

    write: Callable[[str], None]
    last: str = "building"
    _reported: float = field(default=0.0)

    def line(self, line: str) -> None:
        self.write(line)
        self.last = line[:200]

    def beat(self) -> None:
        """Raises if the deployment is being cancelled."""
        beat.checkpoint()
        if time.monotonic() - self._reported >= 0.5:
            beat.report(self.last)
            self._reported = time.monotonic()


@contextmanager
def _scratch(root: Path) -> Iterator[Path]:
    """A private folder, removed in the end. What a killed worker leaves, its successor removes."""
    root.mkdir(parents=True, exist_ok=True, mode=0o700)
    folder = Path(tempfile.mkdtemp(prefix="build-", dir=root))
    try:
        yield folder
    finally:
        for parent, names, _ in os.walk(folder):  # a read-only folder cannot be emptied
            for name in names:
                if not os.path.islink(path := os.path.join(parent, name)):
                    os.chmod(path, 0o700)
        shutil.rmtree(folder, ignore_errors=True)
