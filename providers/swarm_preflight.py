"""What can be known of a swarm before a release goes there. Reads only."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from model import names
from model.errors import ConfigurationError, Conflict, NotFound, PlatformUnhealthy
from model.instance import Instance
from providers.docker_preflight import check_platform, check_way_of_image
from providers.engine import Engine
from providers.swarm_services import Service, Services, service_name
from providers.swarm_spec import SwarmSettings

LONGEST_NAME = 63 - 9
"""Swarm's limit for a service's name is that of DNS; a release's name has nine characters more."""
READS: dict[str, Callable[[dict[str, Any]], str]] = {
    "node.id": lambda node: str(node["ID"]),
    "node.hostname": lambda node: str(node["Description"].get("Hostname", "")),
    "node.role": lambda node: str(node["Spec"].get("Role", "")),
    "node.platform.os": lambda node: str(node["Description"]["Platform"].get("OS", "")),
    "node.platform.arch": lambda node: str(node["Description"]["Platform"].get("Architecture", "")),
}
"""What a constraint can ask of a node; labels besides."""


def check_swarm(
    engine: Engine,
    services: Services,
    instance: Instance,
    settings: SwarmSettings,
    note: Callable[[str], None],
) -> None:
    """See that a manager answers, and that image, names, nodes, ports and network will do.

    Args:
        note: takes warnings for the person.

    Raises:
        ConfigurationError, PlatformUnhealthy, Conflict, NotFound: see the hint.
    """
    _check_settings(instance, settings)
    check_way_of_image(engine, instance)
    info = engine.check()
    swarm = info.get("Swarm") or {}
    if not swarm.get("ControlAvailable"):
        raise ConfigurationError(
            f"the engine at {engine.address.machine} is not a manager of a swarm",
            hint="name a manager as `host`, or make it one: docker swarm init",
        )
    if swarm.get("Nodes", 1) > 1 and not instance.registry and instance.build.kind != "image":
        raise ConfigurationError(
            "the nodes of the swarm must pull the image, and no registry is named",
            hint=f"add [deploy.{instance.name}.registry] with a repository",
        )
    check_platform(instance, info, note)
    fitting_nodes(engine, settings, info)
    everyones = services.everyones()
    _check_public(services, instance, everyones)
    if settings.network:
        _check_network(engine, settings.network)
    if instance.publish is not None:
        _check_port(services, instance.publish, everyones)
        if settings.publish_mode == "host" or instance.stop_first:
            note("a swap interrupts service for as long as the next release takes to start")


def _check_settings(instance: Instance, settings: SwarmSettings) -> None:
    name = service_name(instance)
    where = f"[cloud.{instance.name}.swarm]"
    if len(name) > LONGEST_NAME:
        raise ConfigurationError(
            f"the name «{name[:40]}…» is longer than {LONGEST_NAME} characters, Swarm's limit",
            hint="shorten the project's or the instance's name in helix.toml",
        )
    if instance.stop_first and settings.replicas > 1:
        raise ConfigurationError(
            f"{settings.replicas} tasks cannot share what only one may have open",
            hint=f"set replicas = 1 in {where}, or remove the volume",
        )
    if settings.secret_files and (clash := {*instance.secrets} & {*instance.env}):
        raise ConfigurationError(
            f"{', '.join(sorted(clash))} is both a secret and an environment variable",
            hint=f"remove one of them from [deploy.{instance.name}]",
        )


def fitting_nodes(engine: Engine, settings: SwarmSettings, info: dict[str, Any]) -> list[str]:
    """The ids of the nodes that may run a task; the one we speak to first, if it is one.

    Args:
        info: what the engine says of itself.

    Raises:
        ConfigurationError: none of them fits `constraints`.
        PlatformUnhealthy: those that fit are down or drained.
    """
    ours = info["Swarm"].get("NodeID", "")
    nodes = engine.client.api.nodes()
    fit = [one for one in nodes if all(_meets(one, each) for each in settings.constraints)]
    if not fit:
        known = ", ".join(READS["node.hostname"](one) for one in nodes)
        raise ConfigurationError(
            f"no node of the swarm fits {', '.join(settings.constraints)}; there are: {known}",
            hint="correct `constraints`, or label a node: docker node update --label-add",
        )
    ready = [
        str(one["ID"])
        for one in fit
        if one["Status"].get("State") == "ready" and one["Spec"].get("Availability") == "active"
    ]
    if not ready:
        raise PlatformUnhealthy(
            "every node that fits is down, paused or drained", hint="see: docker node ls"
        )
    return sorted(ready, key=lambda one: (one != ours, one))


def _meets(node: dict[str, Any], constraint: str) -> bool:
    wanted = "!=" not in constraint
    key, _, value = constraint.partition("==" if wanted else "!=")
    key, value = key.strip(), value.strip()
    labels = {
        "node.labels.": node["Spec"].get("Labels") or {},
        "engine.labels.": (node["Description"].get("Engine") or {}).get("Labels") or {},
    }
    for prefix, found in labels.items():
        if key.startswith(prefix):
            return (found.get(key.removeprefix(prefix), "") == value) is wanted
    if key not in READS:
        return True  # Swarm knows more than we do, and says so itself
    return (READS[key](node) == value) is wanted


def _check_public(services: Services, instance: Instance, everyones: Sequence[Service]) -> None:
    public = next((one for one in everyones if one.name == services.public_name), None)
    if public is not None and public.labels.get(names.LABEL_INSTANCE) != instance.key:
        raise Conflict(
            f"there is a service «{public.name}» already, which is not ours",
            hint=f"remove or rename it: docker service rm {public.name}",
        )


def _check_network(engine: Engine, name: str) -> None:
    found = [one for one in engine.client.networks.list(names=[name]) if one.name == name]
    if not found:
        raise NotFound(
            f"the swarm has no network «{name}»",
            hint=f"create it: docker network create --driver overlay {name}",
        )
    if found[0].attrs.get("Scope") != "swarm":
        raise ConfigurationError(
            f"the network «{name}» is one node's own, and services cannot join it",
            hint="create an overlay network: docker network create --driver overlay <name>",
        )


def _check_port(services: Services, port: int, everyones: Sequence[Service]) -> None:
    for one in everyones:
        ports = (one.attrs.get("Endpoint") or {}).get("Ports") or ()
        if one.name != services.public_name and port in {
            each.get("PublishedPort") for each in ports
        }:
            raise Conflict(
                f"port {port} is held by the service {one.name}",
                hint="free it, or choose another port in helix.toml",
            )
