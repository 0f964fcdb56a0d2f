"""The names things get on a platform: exactly those that existing HelixDB projects already use."""

from __future__ import annotations

import re

LABEL_INSTANCE = "helix.instance"
"""Instance.key: whose it is."""
LABEL_DEPLOYMENT = "helix.deployment"
"""The deployment that made it: its idempotency key."""
LABEL_RELEASE = "helix.release"
"""The release number; a provider refuses to replace a newer one (fencing)."""
LABEL_ARTIFACT = "helix.artifact"
LABEL_CONFIG = "helix.config"
LABEL_ROLE = "helix.role"
"""`app`, or `edge` for the proxy in front of it."""


def base_name(project: str, instance: str) -> str:
    """`helix-<project>-<instance>`: compose project, image repository, app name."""
    return f"helix-{project}-{instance}"


def image_tag(build_mode: str) -> str:
    """The mutable tag of a HelixDB build mode."""
    return {"debug": "debug", "dev": "dev", "release": "latest"}.get(build_mode, "latest")


def content_tag(digest: str) -> str:
    """The immutable tag of an artifact built from this digest of source and settings."""
    return f"src-{digest[:24]}"


def docker_name(project: str, instance: str) -> str:
    """`base_name` as a Docker container or repository name: lower case, no odd characters."""
    name = re.sub(r"[^a-z0-9_.-]+", "-", base_name(project, instance).lower()).rstrip("._-")
    return re.sub(r"[._-]{2,}", lambda run: run[0] if _SEPARATOR.fullmatch(run[0]) else "-", name)


_SEPARATOR = re.compile(r"\.|__?|-+")
"""What Docker allows between two letters or digits of a repository's name."""


def short_id(deployment: str) -> str:
    """The part of a deployment's id that people see: the random end of it."""
    return deployment.rsplit("-", 1)[-1][:8]
