"""What a release looks like as a Fly machine, and how a machine is read back as a release."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict

from model.errors import ConfigurationError
from model.instance import HealthCheck, Instance
from model.names import short_id
from model.platform import Release, Revision

Json = dict[str, Any]


class FlySettings(BaseModel):
    """The keys of `[cloud.<instance>.fly]` that are not a part of `Instance` itself."""

    model_config = ConfigDict(extra="ignore")

    vm_size: str
    volume_initial_size: int = 1
    """GB; the volume is made, or grown, to it, and never shrunk."""
    auth_type: Literal["Cli", "ApiKey"] = "Cli"
    private: bool = False
    """No public address."""
    region: str | None = None
    """Where the app's machine or volume is already if None, else what is nearest to the worker."""
    org: str | None = None
    token: str | None = None
    """A secret reference."""


MB_PER_CPU = {"shared": 256, "performance": 2048}
GPUS = {
    "a10": "a10",
    "a100-40gb": "a100-pcie-40gb",
    "a100-80gb": "a100-sxm4-80gb",
    "l40s": "l40s",
}
"""vm_size -> what the API calls the GPU. Each comes with 8 performance CPUs and 32 GB."""


def guest_of(vm_size: str) -> Json:
    """A machine's `guest`, of a size as Fly's price list names it: shared-cpu-4x.

    Raises:
        ConfigurationError: there is no such size.
    """
    if vm_size in GPUS:
        cpus = {"cpu_kind": "performance", "cpus": 8, "memory_mb": 32768}
        return {**cpus, "gpu_kind": GPUS[vm_size], "gpus": 1}
    kind, _, count = vm_size.replace("-cpu", "").partition("-")
    if kind not in MB_PER_CPU or count not in {"1x", "2x", "4x", "8x", "16x"}:
        raise ConfigurationError(
            f"there is no machine size «{vm_size}»",
            hint="set `vm_size` to one of: shared-cpu-1x, …-2x, …-4x, …-8x, performance-1x, "
            f"…-2x, …-4x, …-8x, …-16x, {', '.join(GPUS)}",
        )
    cpus_wanted = int(count[:-1])
    return {
        "cpu_kind": kind,
        "cpus": cpus_wanted,
        "memory_mb": cpus_wanted * MB_PER_CPU[kind],
    }


# Metadata of a machine. Fly's own keys have underscores, and so have ours.
INSTANCE = "helix_instance"
DEPLOYMENT = "helix_deployment"
RELEASE = "helix_release"
ARTIFACT = "helix_artifact"
CONFIG = "helix_config"
SERVING = "helix_serving"
"""Set when the release was promoted."""
REPLACED = "helix_replaced"
"""The version of the same machine that served before this one."""

GROUP = "fly_process_group"
OUR_GROUP = "app"
"""What flyctl calls the machines that serve; others (a release command, a worker) are not ours."""
CHECK = "helix"
"""The name of our check on the machine."""


def metadata_of(machine: Json) -> dict[str, str]:
    """A machine's metadata; empty strings never occur."""
    found = (machine.get("config") or {}).get("metadata") or {}
    return {str(key): str(value) for key, value in found.items() if value}


def serves(machine: Json) -> bool:
    """Whether a machine is of the group that serves, and exists."""
    gone = machine.get("state") in {"destroyed", "destroying"}
    return not gone and metadata_of(machine).get(GROUP, OUR_GROUP) == OUR_GROUP


def is_gone(machine: Json | None) -> bool:
    """Whether there is no such machine any more."""
    return machine is None or machine.get("state") == "destroyed"


def is_down(machine: Json) -> bool:
    """Whether a machine has ended; started, starting and everything between is not."""
    return machine.get("state") in {"stopped", "failed", "destroyed", "destroying", "suspended"}


def in_place_of(machines: list[Json]) -> Json | None:
    """The newest machine on which a release replaces the one before it, not promoted yet."""
    found = [
        one for one in machines if REPLACED in metadata_of(one) and SERVING not in metadata_of(one)
    ]
    return max(found, key=lambda one: release_of(metadata_of(one)), default=None)


def serving_of(machines: list[Json]) -> list[Json]:
    """The machines that serve: those of the newest promoted release, else those we did not make.
    None while a later release replaces them in place."""
    promoted = [one for one in machines if SERVING in metadata_of(one)]
    newest = max((release_of(metadata_of(one)) for one in promoted), default=0)
    replacing = in_place_of(machines)
    if replacing is not None and release_of(metadata_of(replacing)) > newest:
        return []
    if promoted:
        return [one for one in promoted if release_of(metadata_of(one)) == newest]
    adopted = [one for one in machines if INSTANCE not in metadata_of(one)]
    return [one for one in adopted if not is_down(one)] or adopted


def release_of(metadata: Mapping[str, str]) -> int:
    """The number of the release that made it; 0 if we did not."""
    number = metadata.get(RELEASE, "")
    return int(number) if number.isdigit() else 0


def revision_of(machine: Json, version: str, config: Json, beside: list[str]) -> Revision:
    """One version of one machine, as what a rollback needs to bring it back.

    Args:
        beside: ids of all machines that served together with it.
    """
    metadata = {key: str(value) for key, value in (config.get("metadata") or {}).items()}
    return Revision(
        id=version,
        release=release_of(metadata),
        deployment=metadata.get(DEPLOYMENT, ""),
        artifact=metadata.get(ARTIFACT, ""),
        config=metadata.get(CONFIG, ""),
        detail={
            "machine": str(machine["id"]),
            "image": str(config.get("image", "")),
            "machines": ",".join(beside or [str(machine["id"])]),
        },
    )


def machine_name(release: Release) -> str:
    """Unique in the app, so that Fly itself refuses to create a second one."""
    return f"helix-r{release.number}-{short_id(release.deployment)}".lower()


def config_of(release: Release, settings: FlySettings, volume: str, replaced: str) -> Json:
    """The machine's `config` of a release.

    Args:
        volume: the id of the volume to mount; empty if the release has none.
        replaced: the version of the same machine that serves now; empty for a new machine.
    """
    instance = release.instance
    assert release.artifact.image is not None
    config: Json = {
        "image": release.artifact.image.reference,
        "env": dict(instance.env),
        "guest": guest_of(settings.vm_size),
        "restart": {"policy": "always"},
        "stop_config": {"signal": "SIGTERM", "timeout": _go(instance.stop_grace)},
        "services": [] if settings.private else [_service(instance)],
        "checks": checks_of(instance),
        "metadata": {
            "fly_platform_version": "v2",
            GROUP: OUR_GROUP,
            INSTANCE: instance.key,
            DEPLOYMENT: release.deployment,
            RELEASE: str(release.number),
            ARTIFACT: release.artifact.identity,
            CONFIG: instance.config_digest,
            **({REPLACED: replaced} if replaced else {}),
        },
    }
    if instance.command:
        config["init"] = {"cmd": list(instance.command)}
    if volume:
        config["mounts"] = [{"volume": volume, "path": instance.volumes[0].mount}]
    return config


def checks_of(instance: Instance) -> Json:
    """Fly's own check of the instance's health; it runs on the machine's host, with or without
    traffic. Fly takes any answer from 200 to 299 for healthy."""
    check = instance.health_check
    if check.kind not in ("http", "tcp"):
        return {}
    found: Json = {
        "type": check.kind,
        "port": check.port or instance.port,
        "interval": _go(max(2, check.interval)),
        "timeout": _go(min(60, max(1, check.timeout))),
        "grace_period": _go(max(1, check.start_period)),
    }
    if check.kind == "http":
        found |= {"method": "GET", "path": check.path}
    return {CHECK: found}


def beyond_fly(check: HealthCheck) -> list[str]:
    """The settings of a health check that Fly's own cannot express."""
    if check.kind != "http":
        return []
    return [name for name in ("status", "body") if getattr(check, name)]


def mounts_of(machine: Json) -> list[tuple[str, str]]:
    """The volumes a machine has, each with its path."""
    mounts = (machine.get("config") or {}).get("mounts") or []
    return [(str(one.get("volume", "")), str(one.get("path", ""))) for one in mounts]


def _service(instance: Instance) -> Json:
    """HTTP and HTTPS from the internet. Never stopped for want of traffic: it is a database."""
    return {
        "protocol": "tcp",
        "internal_port": instance.port,
        "autostart": False,
        "autostop": "off",
        "ports": [
            {"port": 80, "handlers": ["http"], "force_https": True},
            {"port": 443, "handlers": ["http", "tls"]},
        ],
    }


def _go(seconds: float) -> str:
    """A duration as Go writes it."""
    return f"{round(seconds * 1000)}ms" if seconds % 1 else f"{int(seconds)}s"
