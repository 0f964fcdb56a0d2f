"""What a new instance's table says at first, per kind; and which clouds there are credentials for.

What only a person can know is written as YOUR_…, and a push stops there.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from model.names import base_name, docker_name
from project import plugins
from project.resolve import DEFAULT_PORT, fly_volume

Values = dict[str, Any]


@dataclass(frozen=True)
class Wishes:
    """What a person typed beside the kind; what is empty gets the kind's default."""

    project: str
    instance: str
    region: str = ""
    more: Mapping[str, Any] = field(default_factory=dict)
    """Further keys of the table, over those of the template."""


def _local(wishes: Wishes) -> Values:
    return {"port": DEFAULT_PORT}


def _helix(wishes: Wishes) -> Values:
    region = wishes.region or "us-east-1"
    return {"cluster_id": "YOUR_CLUSTER_ID", "region": region, "build_mode": "release"}


def _fly(wishes: Wishes) -> Values:
    values: Values = {"build_mode": "release"}
    if wishes.region:
        values["region"] = wishes.region
    return values | {
        "vm_size": "shared-cpu-4x",
        "volume": f"{fly_volume(wishes.project, wishes.instance)}:/data",
        "volume_initial_size": 20,
        "private": False,
        "auth_type": "Cli",
    }


def _ecr(wishes: Wishes) -> Values:
    return {
        "repository_name": docker_name(wishes.project, wishes.instance),
        "region": wishes.region or "us-east-1",
        "auth_type": "AwsCli",
        "build_mode": "release",
    }


def _docker(wishes: Wishes) -> Values:
    return {"host": "unix:///var/run/docker.sock", "publish": 8080}


def _aws(wishes: Wishes) -> Values:
    return {"region": wishes.region or "us-east-1"}


def _gcp(wishes: Wishes) -> Values:
    return {"project_id": "YOUR_PROJECT_ID", "region": wishes.region or "europe-west1"}


def _azure(wishes: Wishes) -> Values:
    return {
        "subscription_id": "YOUR_SUBSCRIPTION_ID",
        "resource_group": base_name(wishes.project, wishes.instance),
        "location": wishes.region or "westeurope",
    }


def _kubernetes(wishes: Wishes) -> Values:
    return {"namespace": "default"}


def _stored(prefix: str) -> Callable[[Wishes], Values]:
    def values(wishes: Wishes) -> Values:
        return {"repository": prefix + docker_name(wishes.project, wishes.instance)}

    return values


def _enterprise(wishes: Wishes) -> Values:
    return {"cluster_id": "YOUR_CLUSTER_ID"}


TEMPLATES: dict[str, Callable[[Wishes], Values]] = {
    "local": _local,
    "helix": _helix,
    "fly": _fly,
    "ecr": _ecr,
    "docker": _docker,
    "swarm": _docker,
    "aws": _aws,
    "gcp": _gcp,
    "azure": _azure,
    "kubernetes": _kubernetes,
    "ghcr": _stored("ghcr.io/YOUR_NAME/"),
    "docker_hub": _stored("YOUR_NAME/"),
    "gar": _stored("europe-docker.pkg.dev/YOUR_PROJECT_ID/images/"),
    "acr": _stored("YOUR_REGISTRY.azurecr.io/"),
    "oci": _stored("127.0.0.1:5000/"),
    "enterprise": _enterprise,
}
"""Kind -> its first table. That of a package's kind is made from its settings."""


def new_table(kind: str, wishes: Wishes) -> Values:
    """The first table of an instance."""
    template = TEMPLATES.get(kind)
    first = template(wishes) if template else plugins.first_table(kind, wishes.region)
    return {**first, **wishes.more}


def place(kind: str, instance: str) -> tuple[str, ...]:
    """Where an instance's table stands."""
    if kind in ("local", "enterprise"):
        return (kind, instance)
    return ("cloud", instance, kind)


# --- credentials ---------------------------------------------------------------------------------


@dataclass(frozen=True)
class Credentials:
    """Where a cloud's credentials usually are."""

    variables: tuple[str, ...]
    files: tuple[str, ...]
    """Relative to the home folder."""


CLOUDS: dict[str, Credentials] = {
    "helix": Credentials((), (".helix/credentials",)),
    "fly": Credentials(("FLY_API_TOKEN", "FLY_ACCESS_TOKEN"), (".fly/config.yml",)),
    "aws": Credentials(
        ("AWS_ACCESS_KEY_ID", "AWS_PROFILE", "AWS_WEB_IDENTITY_TOKEN_FILE"),
        (".aws/credentials", ".aws/config"),
    ),
    "gcp": Credentials(
        ("GOOGLE_APPLICATION_CREDENTIALS",),
        (".config/gcloud/application_default_credentials.json",),
    ),
    "azure": Credentials(("AZURE_CLIENT_ID",), (".azure/azureProfile.json",)),
    "kubernetes": Credentials(("KUBECONFIG",), (".kube/config",)),
}
"""The kinds that run releases in a cloud."""


def clouds_with_credentials(environ: Mapping[str, str] | None = None) -> list[str]:
    """The clouds whose credentials this machine seems to have. Looks only whether they exist."""
    found = os.environ if environ is None else environ
    home = Path(found.get("HOME") or Path.home())
    places = dict.fromkeys(CLOUDS, home)
    if found.get("HELIX_HOME"):
        places["helix"] = Path(found["HELIX_HOME"])
    result = []
    for kind, known in CLOUDS.items():
        files = [places[kind] / name for name in known.files]
        if kind == "helix" and found.get("HELIX_HOME"):
            files = [places[kind] / "credentials"]
        if any(found.get(name) for name in known.variables) or any(f.is_file() for f in files):
            result.append(kind)
    return result
