"""Which kinds of registry an image can be stored in."""

from __future__ import annotations

from model.catalog import Catalog

REGISTRIES = Catalog(
    "helix.registries",
    builtin={
        "docker_hub": "registries.docker_hub:DockerHubRegistry",
        "ecr": "registries.ecr:EcrRegistry",
        "fly": "registries.fly:FlyRegistry",
        "gar": "registries.gar:GarRegistry",
        "ghcr": "registries.ghcr:GhcrRegistry",
        "oci": "registries.oci:OciRegistry",
    },
    extras={"ecr": "aws", "gar": "gcp"},
)
