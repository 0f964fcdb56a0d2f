"""The `docker_hub` kind: Docker Hub, docker.io."""

from __future__ import annotations

from typing import ClassVar

from registries.oci import OciRegistry


class DockerHubRegistry(OciRegistry):
    """docker.io: a user name with an access token. `repository` is `name/image`.

    The first push creates the repository. Pulls are limited; a refusal says the limit, which Docker
    Hub sends in `ratelimit-limit` and `ratelimit-remaining`, and is tried again later.
    """

    kind: ClassVar[str] = "docker_hub"
    denied_hint: ClassVar[str] = (
        "the access token needs «Read & Write», and the name before the / must be your account or "
        "an organisation where you may push"
    )
