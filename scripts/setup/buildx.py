"""Docker's buildx, the best of the builders: found, else compiled. The others do without it."""

from __future__ import annotations

import subprocess

from scripts.setup.golang import compile_program
from scripts.setup.shell import BIN, SetupFailed, say

MODULE = "github.com/docker/buildx/cmd/buildx@v0.38.2"


def ensure() -> None:
    """Have buildx, as a plugin of the docker CLI or among our tools. Say so where it cannot be."""
    goal = BIN / "buildx"
    if subprocess.run(["docker", "buildx", "version"], capture_output=True).returncode == 0:
        say("buildx", "found the docker CLI's plugin")
    elif goal.exists():
        say("buildx", f"found {goal}")
    else:
        try:
            compile_program(goal, MODULE, piece="buildx", takes="about 3 minutes")
        except SetupFailed as error:
            say("buildx", f"not made, its tests are skipped: {error.what}")
