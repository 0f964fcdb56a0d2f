"""What can be known of an engine before a release goes there. Reads only."""

from __future__ import annotations

import errno
import shutil
import socket
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from model import names
from model.errors import ConfigurationError, Conflict, NotFound, PlatformUnhealthy
from model.instance import Instance
from providers.containers import Boxes
from providers.engine import Engine

MIN_DISK = 256 * 2**20
"""Bytes: with less free, the engine cannot even unpack an image."""
LOW_DISK = 2 * 2**30
"""Bytes: with less free, a person should know."""
LONGEST_NAME = 180
"""Docker puts names into paths and host names; longer ones fail late and oddly."""
ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64", "armv7l": "arm"}
"""The engine's word -> a platform's."""


def check_engine(
    engine: Engine, instance: Instance, network: str, note: Callable[[str], None]
) -> None:
    """See that the engine answers, and that image, names, platform, disk, port and network will do.

    Args:
        network: the network of the engine that the release wants to join; empty for none.
        note: takes warnings for the person.

    Raises:
        ConfigurationError, PlatformUnhealthy, Conflict, NotFound: see the hint.
    """
    check_names(instance)
    check_way_of_image(engine, instance)
    info = engine.check()
    check_platform(instance, info, note)
    if engine.address.is_local:
        check_disk(info, note)
    if instance.publish is not None:
        check_port(engine, instance, instance.publish)
    if network and not engine.client.networks.list(names=[network]):
        raise NotFound(
            f"the engine has no network «{network}»",
            hint=f"create it: docker network create {network}",
        )


def check_names(instance: Instance) -> None:
    """See that containers can be named after the instance."""
    name = names.docker_name(instance.project, instance.name)
    if len(name) > LONGEST_NAME:
        raise ConfigurationError(
            f"the name «{name[:40]}…» is longer than {LONGEST_NAME} characters",
            hint="shorten the project's or the instance's name in helix.toml",
        )


def check_way_of_image(engine: Engine, instance: Instance) -> None:
    """See that an image that is built here can get there."""
    if engine.address.is_local or instance.registry or instance.build.kind == "image":
        return
    raise ConfigurationError(
        f"the image must travel to the engine at {engine.address.machine}, "
        "and no registry is named",
        hint=f"add [deploy.{instance.name}.registry] with a repository",
    )


def check_platform(instance: Instance, info: dict[str, Any], note: Callable[[str], None]) -> None:
    """Say so if the image is built for another platform than the engine's."""
    wanted = instance.build.platform
    arch = ARCHITECTURES.get(info["Architecture"], info["Architecture"])
    if wanted and wanted.split("/")[1:2] != [arch]:
        note(f"the image is built for {wanted}, and the engine runs {info['OSType']}/{arch}")


def check_disk(info: dict[str, Any], note: Callable[[str], None]) -> None:
    """See that there is room for another image."""
    root = info["DockerRootDir"]
    try:
        free = shutil.disk_usage(root).free
    except OSError:
        return  # the engine lives in a machine of its own
    if free < MIN_DISK:
        raise PlatformUnhealthy(
            f"the engine's disk has {free // 2**20} MiB left at {root}",
            hint="free space: docker system df",
        )
    if free < LOW_DISK:
        note(f"the engine's disk has {free // 2**20} MiB left at {root}")


def check_port(engine: Engine, instance: Instance, port: int) -> None:
    """See that nobody but this instance holds the published port."""
    boxes = Boxes.read(engine.client, instance)
    ours = {box.id for box in boxes.all}
    holders = [box for box in boxes.everyone if port in box.ports]
    for box in holders:
        if box.id not in ours:
            raise _taken(port, f"the container {box.name}")
    if not holders and engine.address.is_local and is_listened_on(port):
        raise _taken(port, "another program on this machine")


def is_listened_on(port: int) -> bool:
    """Whether a port of this machine cannot be bound because somebody has it."""
    for family, address in ((socket.AF_INET, "0.0.0.0"), (socket.AF_INET6, "::")):
        with suppress(OSError), socket.socket(family) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if family == socket.AF_INET6:
                probe.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            try:
                probe.bind((address, port))
            except OSError as error:
                # Any other reason, such as a port below 1024, is none for the engine.
                if error.errno == errno.EADDRINUSE:
                    return True
    return False


def _taken(port: int, holder: str) -> Conflict:
    return Conflict(
        f"port {port} is held by {holder}",
        hint=f"free it, or choose another port in helix.toml; see: ss -ltnp 'sport = :{port}'",
    )
