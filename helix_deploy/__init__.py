"""What code outside this repository may import: the contracts, the nouns and the errors.

`helix_deploy.stores` has what kinds build on that only store images, and `helix_deploy.testing` the
suite that every provider passes.
"""

from model import names
from model.artifact import Artifact, BuildSettings, Bundle, Image, Source
from model.errors import (
    Ambiguous,
    AuthExpired,
    BuildFailed,
    Busy,
    ConfigurationError,
    Conflict,
    HealthCheckFailed,
    HelixError,
    NotFound,
    NothingToRestore,
    PermissionDenied,
    PlatformUnhealthy,
    QuotaExceeded,
    Throttled,
    Transient,
)
from model.instance import HealthCheck, Instance, ObjectStorage, RegistryTarget, Target, Volume
from model.platform import (
    Capabilities,
    Endpoint,
    Identity,
    Phase,
    Release,
    Revision,
    Rollout,
)
from providers.base import CloudProvider, Context, PullCredentials
from providers.bucket import Bucket
from registries.base import Credentials, Registry, RegistryContext

__all__ = [
    "Ambiguous",
    "Artifact",
    "AuthExpired",
    "Bucket",
    "BuildFailed",
    "BuildSettings",
    "Bundle",
    "Busy",
    "Capabilities",
    "CloudProvider",
    "ConfigurationError",
    "Conflict",
    "Context",
    "Credentials",
    "Endpoint",
    "HealthCheck",
    "HealthCheckFailed",
    "HelixError",
    "Identity",
    "Image",
    "Instance",
    "NotFound",
    "NothingToRestore",
    "ObjectStorage",
    "PermissionDenied",
    "Phase",
    "PlatformUnhealthy",
    "PullCredentials",
    "QuotaExceeded",
    "Registry",
    "RegistryContext",
    "RegistryTarget",
    "Release",
    "Revision",
    "Rollout",
    "Source",
    "Target",
    "Throttled",
    "Transient",
    "Volume",
    "names",
]
