"""cosign and osv-scanner, which policies are checked with: found, else compiled."""

from __future__ import annotations

from scripts.setup.golang import compile_program
from scripts.setup.shell import BIN, SetupFailed, program, say

MODULES = {
    "cosign": "github.com/sigstore/cosign/v3/cmd/cosign@v3.1.3",
    "osv-scanner": "github.com/google/osv-scanner/v2/cmd/osv-scanner@v2.2.4",
}
"""The program -> what it is compiled from."""


def ensure() -> None:
    """Have both on the PATH or among our tools. Say so where one cannot be."""
    for name, module in MODULES.items():
        if (found := program(name)) is not None:
            say(name, f"found {found}")
            continue
        try:
            compile_program(BIN / name, module, piece=name, takes="about 3 minutes")
        except SetupFailed as error:
            say(name, f"not made, its tests are skipped: {error.what}")
