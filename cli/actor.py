"""Who is asking for a deployment, and from which version of the source."""

from __future__ import annotations

import getpass
import socket
import subprocess
from collections.abc import Mapping
from pathlib import Path

CI = (
    ("GITHUB_ACTIONS", "github:{GITHUB_REPOSITORY} run {GITHUB_RUN_ID} by {GITHUB_ACTOR}"),
    ("GITLAB_CI", "gitlab:{CI_PROJECT_PATH} job {CI_JOB_ID} by {GITLAB_USER_LOGIN}"),
)
"""The variable that tells a CI system -> how its jobs are called."""


class _Blank(dict[str, str]):
    def __missing__(self, key: str) -> str:
        return "?"


def actor(environ: Mapping[str, str]) -> str:
    """Who asks: the CI job, else user@host."""
    for variable, text in CI:
        if environ.get(variable):
            return text.format_map(_Blank(environ))
    try:
        user = getpass.getuser()
    except (KeyError, OSError):  # a container's user may have no name
        user = "unknown"
    return f"{user}@{socket.gethostname()}"


def commit(folder: Path) -> str:
    """The git commit that a folder is at, with «+» if files differ from it; empty if there is
    none. Never fails and takes two seconds at most."""
    try:
        found = subprocess.run(
            ["git", "describe", "--always", "--dirty=+", "--exclude=*"],
            cwd=folder,
            capture_output=True,
            text=True,
            timeout=2,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return found.stdout.strip() if found.returncode == 0 else ""
