"""Docker's buildx, the best of the builders: found, else compiled. The others do without it."""

from __future__ import annotations

import shutil
import subprocess

from scripts.setup.shell import BIN, SetupFailed, run, say

MODULE = "github.com/docker/buildx/cmd/buildx@v0.38.2"


def ensure() -> None:
    """Have buildx, as a plugin of the docker CLI or among our tools. Say so where it cannot be."""
    if subprocess.run(["docker", "buildx", "version"], capture_output=True).returncode == 0:
        say("buildx", "found the docker CLI's plugin")
    elif (BIN / "buildx").exists():
        say("buildx", f"found {BIN / 'buildx'}")
    elif shutil.which("go") is None:
        say("buildx", "not here, and no Go to compile it: its tests are skipped")
    else:
        BIN.mkdir(parents=True, exist_ok=True)
        say("buildx", f"go install {MODULE}: about 3 minutes on two cores, once …")
        mend = "install docker's buildx plugin, or Go 1.25 or newer, then run it again"
        try:
            run(["go", "install", MODULE], mend=mend, timeout=1800, env={"GOBIN": str(BIN)})
        except SetupFailed as error:
            say("buildx", f"not made, its tests are skipped: {error.what}")
