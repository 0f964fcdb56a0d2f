"""Which kinds a release can run on."""

from __future__ import annotations

from model.catalog import PROVIDER_GROUP, Catalog

PROVIDERS = Catalog(
    PROVIDER_GROUP,
    builtin={
        "local": "providers.docker:LocalProvider",
        "docker": "providers.docker:DockerProvider",
        **dict.fromkeys(
            ("acr", "docker_hub", "ecr", "gar", "ghcr", "oci"),
            "providers.registry_only:RegistryOnlyProvider",
        ),
        "fly": "providers.fly:FlyProvider",
        "aws": "providers.aws:AwsProvider",
        "gcp": "providers.gcp:GcpProvider",
        "azure": "providers.azure:AzureProvider",
        "kubernetes": "providers.kubernetes:KubernetesProvider",
        "swarm": "providers.swarm:SwarmProvider",
        "helix": "providers.helix_cloud:HelixCloudProvider",
        "enterprise": "providers.helix_cloud:EnterpriseProvider",
    },
    extras={"aws": "aws", "gcp": "gcp", "azure": "azure", "kubernetes": "kubernetes"},
)
