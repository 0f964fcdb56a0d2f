"""Which kinds of registry an image can be stored in."""

from __future__ import annotations

from model.catalog import REGISTRY_GROUP, Catalog

REGISTRIES = Catalog(
    REGISTRY_GROUP,
    builtin={
        "acr": "registries.acr:AcrRegistry",
        "docker_hub": "registries.docker_hub:DockerHubRegistry",
        "ecr": "registries.ecr:EcrRegistry",
        "fly": "registries.fly:FlyRegistry",
        "gar": "registries.gar:GarRegistry",
        "ghcr": "registries.ghcr:GhcrRegistry",
        "oci": "registries.oci:OciRegistry",
    },
    extras={"acr": "azure", "ecr": "aws", "gar": "gcp"},
)
