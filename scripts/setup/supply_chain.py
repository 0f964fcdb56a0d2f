"""cosign and osv-scanner, which policies are checked with: found, else compiled."""

from __future__ import annotations

import shutil

from scripts.setup.shell import BIN, SetupFailed, program, run, say

MODULES = {
    "cosign": "github.com/sigstore/cosign/v3/cmd/cosign@v3.1.3",
    "osv-scanner": "github.com/google/osv-scanner/v2/cmd/osv-scanner@v2.2.4",
}
"""The program -> what it is compiled from."""


def ensure() -> None:
    """Have both on the PATH or among our tools. Say so where one cannot be."""
    for name, module in MODULES.items():
        found = program(name)
        if found is not None:
            say(name, f"found {found}")
        elif shutil.which("go") is None:
            say(name, "not here, and no Go to compile it: its tests are skipped")
        else:
            _compile(name, module)


def _compile(name: str, module: str) -> None:
    BIN.mkdir(parents=True, exist_ok=True)
    say(name, f"go install {module}: about 3 minutes on two cores, once …")
    mend = f"install {name}, or Go 1.26 or newer, then run it again"
    command = ["nice", "-n", "10", "go", "install", "-trimpath", "-ldflags=-s -w", module]
    try:
        run(command, mend=mend, timeout=1800, env={"GOBIN": str(BIN), "CGO_ENABLED": "0"})
    except SetupFailed as error:
        say(name, f"not made, its tests are skipped: {error.what}")
        return
    say(name, f"made {BIN / name}")
