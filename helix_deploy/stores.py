"""What kinds build on that only store images: the registry is a class, its provider is there.

[project.entry-points."helix.registries"]
harbor = "acme_harbor:HarborRegistry"        # derives from OciRegistry

[project.entry-points."helix.providers"]
harbor = "helix_deploy.stores:RegistryOnlyProvider"
"""

from providers.registry_only import RegistryOnlyProvider
from registries.oci import OciRegistry, OciSettings

__all__ = ["OciRegistry", "OciSettings", "RegistryOnlyProvider"]
