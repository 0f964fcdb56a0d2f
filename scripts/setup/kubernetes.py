"""A Kubernetes control plane for the tests: compiled once from its published modules.

The API server, the controller manager and the scheduler are linked into one program (see
`control_plane/main.go`), which takes half the time and a third of the disk of three. What they
store goes to etcd, which is a Debian package. There is no kubelet: the tests bring their own.
"""

from __future__ import annotations

import os
import re
import shutil
from pathlib import Path

from scripts.setup import packages
from scripts.setup.shell import CACHE, SetupFailed, run, say

SOURCE = Path(__file__).parent / "control_plane"
BUILD_SECONDS = 3600
"""It takes 8 minutes on two idle cores."""


def version() -> str:
    """The version that `control_plane/go.mod` names: 1.36.3."""
    found = re.search(r"k8s\.io/kubernetes v(\S+)", (SOURCE / "go.mod").read_text())
    assert found is not None, "go.mod names no version of k8s.io/kubernetes"
    return found[1]


def program() -> Path:
    """Where it is once it is made."""
    return CACHE / f"kubernetes-{version()}" / "control-plane"


def ensure() -> None:
    """Have the control plane and etcd. Say so where they cannot be: their tests are skipped."""
    made = program()
    try:
        packages.ensure("etcd")
        if made.exists():
            say("kubernetes", f"found {made}")
        elif shutil.which("go") is None:
            say("kubernetes", "not here, and no Go to compile it: its tests are skipped")
        else:
            say("kubernetes", f"compiling {version()}: about 8 minutes on two cores, once …")
            _compile(made)
            say("kubernetes", f"made {made}")
    except SetupFailed as error:
        say("kubernetes", f"not made, its tests are skipped: {error.what}")


def _compile(goal: Path) -> None:
    goal.parent.mkdir(parents=True, exist_ok=True)
    new = goal.with_suffix(f".{os.getpid()}")
    name = "k8s.io/component-base/version"
    major, minor, _ = version().split(".", 2)
    about = {"gitVersion": f"v{version()}", "gitMajor": major, "gitMinor": minor}
    flags = " ".join(["-s -w", *(f"-X {name}.{key}={value}" for key, value in about.items())])
    run(
        ["go", "build", "-trimpath", "-ldflags", flags, "-o", new, "."],
        mend="install Go as new as control_plane/go.mod says, then run it again",
        timeout=BUILD_SECONDS,
        env={"CGO_ENABLED": "0", "GOFLAGS": "-mod=readonly"},
        cwd=SOURCE,
    )
    new.replace(goal)
