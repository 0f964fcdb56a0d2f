"""A Kubernetes control plane for the tests: compiled once from its published modules.

The API server, the controller manager and the scheduler are linked into one program (see
`control_plane/main.go`), which takes half the time and a third of the disk of three. What they
store goes to etcd, which is a Debian package. There is no kubelet: the tests bring their own.
"""

from __future__ import annotations

import re
from pathlib import Path

from scripts.setup import packages
from scripts.setup.golang import compile_program
from scripts.setup.shell import CACHE, SetupFailed, say

SOURCE = Path(__file__).parent / "control_plane"


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
        else:
            _compile(made)
    except SetupFailed as error:
        say("kubernetes", f"not made, its tests are skipped: {error.what}")


def _compile(goal: Path) -> None:
    major, minor, _ = version().split(".", 2)
    about = {"gitVersion": f"v{version()}", "gitMajor": major, "gitMinor": minor}
    compile_program(
        goal,
        ".",
        piece="kubernetes",
        takes="about 8 minutes",
        folder=SOURCE,
        stamps={f"k8s.io/component-base/version.{key}": value for key, value in about.items()},
    )
