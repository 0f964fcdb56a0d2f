"""What Swarm is told: a release's specification, and how the public service takes it over."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, Literal

from pydantic import Field

from model import names
from model.errors import NotFound
from model.instance import Instance, Volume
from model.platform import Release
from providers.engine import EngineSettings
from providers.swarm_services import LABEL_PROMOTED, LABEL_SHAPE, Json, Service

SECOND = 1_000_000_000
"""Swarm counts in nanoseconds."""
RESTART_DELAY = 1.0
"""Seconds before Swarm starts a task again that ended."""


class SwarmSettings(EngineSettings):
    """`[cloud.<instance>.swarm]`."""

    replicas: int = Field(1, ge=1)
    """How many tasks."""
    constraints: list[str] = []
    """Where they may run, such as node.labels.disk==ssd."""
    publish_mode: Literal["ingress", "host"] = "ingress"
    """`ingress`: the port is open on every node. `host`: on the task's own node only."""
    monitor: float = Field(5, gt=0)
    """Seconds for which Swarm watches each new task before it believes in it."""
    secret_files: bool = False
    """Secrets become Swarm's own, as files under /run/secrets."""


def release_spec(
    release: Release,
    settings: SwarmSettings,
    name: str,
    *,
    values: Mapping[str, str],
    secrets: Sequence[Json],
    node: str,
) -> Json:
    """The specification of a release's own service.

    Args:
        values: the environment, secrets included.
        secrets: references to Swarm's secrets.
        node: the id of the node that has the volume; empty for any.
    """
    instance, image = release.instance, release.artifact.image
    if image is None:
        raise NotFound("this release has no image", hint="check the build kind in helix.toml")
    labels = {
        names.LABEL_INSTANCE: instance.key,
        names.LABEL_DEPLOYMENT: release.deployment,
        names.LABEL_RELEASE: str(release.number),
    }
    container: Json = {
        "Image": image.reference,
        "Labels": {**labels, names.LABEL_ROLE: "app"},
        "Env": [f"{key}={value}" for key, value in sorted(values.items())],
        "Args": list(instance.command),
        "Mounts": [_mount(volume, instance) for volume in instance.volumes],
        "Secrets": list(secrets),
        "StopGracePeriod": _nanoseconds(max(1, instance.stop_grace)),
    }
    check = instance.health_check
    if check.kind == "command":
        # Swarm itself then holds traffic back until it succeeds.
        container["Healthcheck"] = {
            "Test": ["CMD", *check.command],
            "Interval": _nanoseconds(max(1, check.interval)),
            "Timeout": _nanoseconds(check.timeout),
            "StartPeriod": _nanoseconds(check.start_period),
            "Retries": 3,
        }
    constraints = [*settings.constraints, *([f"node.id=={node}"] if node else [])]
    shape = {
        "publish": _port(instance.port, instance.publish, settings.publish_mode),
        "replicas": settings.replicas,
        "order": update_order(instance, settings),
        "stop_first": instance.stop_first,
        "node": node,
    }
    return {
        "Name": name,
        "Labels": {
            **labels,
            names.LABEL_ROLE: "release",
            names.LABEL_ARTIFACT: release.artifact.identity,
            names.LABEL_CONFIG: instance.config_digest,
            LABEL_SHAPE: json.dumps(shape),
        },
        "TaskTemplate": {
            "ContainerSpec": container,
            "Placement": {"Constraints": constraints},
            "Networks": [{"Target": settings.network}] if settings.network else [],
            "RestartPolicy": {"Condition": "any", "Delay": _nanoseconds(RESTART_DELAY)},
        },
        # With a volume, only the public service's task may open it.
        "Mode": replicated(0 if instance.stop_first else 1),
        "UpdateConfig": _config("stop-first", "pause", settings),
        "RollbackConfig": _config("stop-first", "pause", settings),
        "EndpointSpec": {"Mode": "vip", "Ports": _probed(instance)},
    }


def update_order(instance: Instance, settings: SwarmSettings) -> str:
    """In which order Swarm replaces a task. Two cannot have one port of a node at once."""
    shared = instance.publish is None or settings.publish_mode == "ingress"
    return "start-first" if shared and not instance.stop_first else "stop-first"


def public_spec(release: Service, name: str, *, promoted: str, rollback: bool) -> Json:
    """The specification of the public service with a release in it.

    Args:
        name: the public service's.
        promoted: the deployment whose release is current then.
        rollback: whether Swarm is to go back by itself if a task fails.
    """
    spec, shape = release.spec, release.shape
    labels = {key: value for key, value in spec["Labels"].items() if key != LABEL_SHAPE}
    labels[names.LABEL_ROLE] = "app"
    labels.pop(LABEL_PROMOTED, None)
    update = {**spec["UpdateConfig"], "Order": shape["order"]}
    update["FailureAction"] = "rollback" if rollback else "pause"
    ports = [*(spec["EndpointSpec"].get("Ports") or ())]
    return {
        **spec,
        "Name": name,
        "Labels": {**labels, **({LABEL_PROMOTED: promoted} if promoted else {})},
        "Mode": replicated(shape["replicas"]),
        "UpdateConfig": update,
        "RollbackConfig": {**spec["RollbackConfig"], "Order": shape["order"]},
        "EndpointSpec": {"Mode": "vip", "Ports": [*ports, *shape["publish"]]},
    }


def replicated(count: int) -> Json:
    """The mode of a service with so many tasks."""
    return {"Replicated": {"Replicas": count}}


def _probed(instance: Instance) -> list[Json]:
    """Ports that Swarm assigns on the task's own node: they lead to this very task."""
    wanted = {instance.port, instance.health_check.port or instance.port}
    return [
        {"TargetPort": port, "Protocol": "tcp", "PublishMode": "host"} for port in sorted(wanted)
    ]


def _port(port: int, publish: int | None, mode: str) -> list[Json]:
    if publish is None:
        return []
    return [{"TargetPort": port, "PublishedPort": publish, "Protocol": "tcp", "PublishMode": mode}]


def _mount(volume: Volume, instance: Instance) -> Json:
    if volume.path:
        return {"Type": "bind", "Source": volume.path, "Target": volume.mount}
    labels = {names.LABEL_INSTANCE: instance.key}
    return {
        "Type": "volume",
        "Source": volume.name,
        "Target": volume.mount,
        "VolumeOptions": {"Labels": labels},
    }


def _config(order: str, failure: str, settings: SwarmSettings) -> dict[str, Any]:
    return {
        "Parallelism": 1,
        "Order": order,
        "FailureAction": failure,
        "Monitor": _nanoseconds(settings.monitor),
        "MaxFailureRatio": 0,
    }


def _nanoseconds(seconds: float) -> int:
    return int(seconds * SECOND)
