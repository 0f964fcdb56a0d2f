"""What can be known to fail on Fly.io before anything is changed. Reads only."""

from __future__ import annotations

import re
from difflib import get_close_matches

from model.errors import ConfigurationError, PlatformUnhealthy
from model.instance import Instance
from providers.fly_api import Json
from providers.fly_app import FlyApp
from providers.fly_machine import (
    INSTANCE,
    FlySettings,
    beyond_fly,
    guest_of,
    is_down,
    metadata_of,
)

LONGEST_NEW_NAME = 32
"""Characters of a new app's name; HelixDB's CLI refuses longer ones too."""


def check_settings(instance: Instance, settings: FlySettings) -> None:
    """What the settings alone tell.

    Raises:
        ConfigurationError.
    """
    guest_of(settings.vm_size)
    if instance.registry is None:
        raise ConfigurationError(
            "Fly.io can only run an image that is in a registry",
            hint='set kind = "fly" in [deploy.<instance>.registry], or leave that table out',
        )
    if len(instance.volumes) > 1:
        raise ConfigurationError(
            f"a Fly machine has one volume, not {len(instance.volumes)}",
            hint="put all data below one mount",
        )
    for volume in instance.volumes:
        if volume.path or not re.fullmatch(r"[a-z0-9_]+", volume.name):
            raise ConfigurationError(
                f"«{volume.path or volume.name}» cannot be a Fly volume",
                hint='name it with a-z, 0-9 and _ only: volume = "helix_data:/data"',
            )


def check_region(wanted: str | None, regions: list[Json]) -> None:
    """Whether there is such a region."""
    codes = [str(row.get("code")) for row in regions if not row.get("deprecated")]
    if not wanted or not codes or wanted in codes:
        return
    near = get_close_matches(wanted, codes, n=1)
    raise ConfigurationError(
        f"Fly.io has no region «{wanted}»",
        hint=f"did you mean «{near[0]}»?" if near else f"known: {', '.join(codes)}",
    )


def check_app(app: FlyApp, found: Json | None, settings: FlySettings) -> None:
    """Whether the app is ours, or can be made."""
    if found is None:
        if len(app.name) > LONGEST_NEW_NAME:
            raise ConfigurationError(
                f"the app «{app.name}» would have {len(app.name)} characters",
                hint="shorten the project's or the instance's name: at most "
                f"{LONGEST_NEW_NAME} all in all",
            )
        return
    org = (found.get("organization") or {}).get("slug")
    if settings.org and org and org != settings.org:
        raise ConfigurationError(
            f"the app «{app.name}» belongs to the organisation «{org}»",
            hint=f'set org = "{org}", or leave it out',
        )


def check_machines(app: FlyApp, machines: list[Json], instance: Instance) -> None:
    """Whether the machines that are there can become the one that is wanted."""
    running = [one for one in machines if not is_down(one)]
    if instance.stop_first and len(running) > 1:
        raise ConfigurationError(
            f"{len(running)} machines of {app.name} run, each with data of its own",
            hint=f"keep one: fly scale count 1 --app {app.name}",
        )


def check_volume(volume: Json | None, settings: FlySettings) -> None:
    """Whether the volume is where it is wanted, on a host that answers."""
    if volume is None:
        return
    if volume.get("host_status") == "unreachable":
        raise PlatformUnhealthy(
            f"the host of the volume {volume['id']} cannot be reached",
            hint="wait, or make a new volume of its last snapshot: fly volumes snapshots list "
            f"{volume['id']}",
        )
    region = volume.get("region")
    if settings.region and region and region != settings.region:
        raise ConfigurationError(
            f"the volume «{volume['name']}» is in {region}, and cannot move to {settings.region}",
            hint=f'set region = "{region}", or move the data: fly volumes fork {volume["id"]} '
            f"--region {settings.region}",
        )


def notes(instance: Instance, serving: list[Json]) -> list[str]:
    """What a person should know before it happens."""
    found = []
    if instance.stop_first and serving:
        found.append("the machine is updated in place: requests fail for some seconds")
    if beyond := beyond_fly(instance.health_check):
        found.append(
            "Fly.io's health check takes any answer from 200 to 299 for healthy, whatever "
            f"{' and '.join(beyond)} in health_check say"
        )
    for machine in serving:
        env = (machine.get("config") or {}).get("env") or {}
        lost = sorted(set(env) - {*instance.env, *instance.secrets})
        if lost and INSTANCE not in metadata_of(machine):
            found.append(
                f"the machine that runs now has {', '.join(lost)}, which the release will not "
                f"have: add them to secrets or env of [deploy.{instance.name}]"
            )
    return found
