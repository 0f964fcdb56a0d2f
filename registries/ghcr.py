"""The `ghcr` kind: GitHub's container registry."""

from __future__ import annotations

import os
from typing import ClassVar

from pydantic import SecretStr

from registries.base import Credentials
from registries.oci import OciRegistry

HOST = "ghcr.io"


class GhcrRegistry(OciRegistry):
    """ghcr.io: a user name with a classic token, or, in GitHub Actions, the job's own.

    The package is created by the first push, private. `repository` may leave the host out.
    """

    kind: ClassVar[str] = "ghcr"
    denied_hint: ClassVar[str] = (
        "the token needs the scope write:packages (a classic one), or `permissions: packages: "
        "write` in GitHub Actions, and the package must be linked to the repository"
    )

    def _repository(self) -> str:
        name = self.target.repository
        # GitHub shows owners in mixed case; image names have none.
        return name.lower() if name.startswith(f"{HOST}/") else f"{HOST}/{name.lower()}"

    def credentials(self) -> Credentials | None:
        """The settings, else Docker's configuration, else GitHub Actions' GITHUB_TOKEN."""
        found = super().credentials()
        token = os.environ.get("GITHUB_TOKEN")
        if found is None and token:
            return Credentials(os.environ.get("GITHUB_ACTOR", "token"), SecretStr(token))
        return found
