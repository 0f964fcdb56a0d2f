"""The worker's image, built from this clone by the BuildKit client that is here."""

from __future__ import annotations

import os
import subprocess
import tomllib
from pathlib import Path

from scripts.setup import images
from scripts.setup.shell import BIN, ROOT, SetupFailed, run, say

SECRETS = {
    "pip-conf": Path(os.environ.get("PIP_CONFIG_FILE") or "/etc/pip.conf"),
    "ca-certificates": Path(os.environ.get("PIP_CERT") or "/etc/ssl/certs/ca-certificates.crt"),
}
"""What pip may need on this machine to reach its index. None of it stays in the image."""


def name() -> str:
    """The image's name and tag."""
    return f"helix-deploy/worker:{_version()}"


def ensure() -> None:
    """Build it. What did not change is taken from the builder's cache."""
    say("image", f"building {name()} …")
    build(ROOT, name())
    say("image", f"made {name()}")


def build(source: Path, tag: str) -> None:
    """Build the image of a clone.

    Raises:
        SetupFailed: there is no BuildKit, or the build fails.
    """
    images.ensure(images.BUILD_BASE)
    arguments = {"BASE": images.BUILD_BASE, "VERSION": _version(), "REVISION": revision()}
    options = [f"--build-arg={key}={value}" for key, value in arguments.items()]
    options += [f"--secret=id={key},src={file}" for key, file in SECRETS.items() if file.is_file()]
    run(
        [*_buildx(), "build", "--load", "--provenance=false", *options, "--tag", tag, source],
        mend="see what the build says; where pip cannot reach its index, give it its settings in "
        "PIP_CONFIG_FILE and its certificates in PIP_CERT",
        timeout=1800,
    )


def _buildx() -> list[str | Path]:
    if subprocess.run(["docker", "buildx", "version"], capture_output=True).returncode == 0:
        return ["docker", "buildx"]
    if (BIN / "buildx").exists():
        return [BIN / "buildx"]
    raise SetupFailed(
        "the image needs BuildKit, and there is no buildx here",
        "install docker's buildx plugin, or compile ours: python3 -m scripts.setup buildx",
    )


def _version() -> str:
    return str(tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"])


def revision() -> str:
    """What is built: the commit, and whether something is changed since."""
    command = ["git", "-C", str(ROOT), "describe", "--always", "--abbrev=40", "--dirty"]
    done = subprocess.run(command, capture_output=True, text=True)
    return done.stdout.strip() or "unknown"
