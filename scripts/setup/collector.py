"""OpenTelemetry's collector, as the tests need it: compiled once from a small module of ours."""

from __future__ import annotations

from scripts.setup.golang import compile_program
from scripts.setup.shell import BIN, ROOT, SetupFailed, say

SOURCE = ROOT / "tests" / "services" / "collector"
PROGRAM = BIN / "helix-test-collector"


def ensure() -> None:
    """Have it among our tools. Say so where it cannot be."""
    if PROGRAM.exists():
        say("collector", f"found {PROGRAM}")
        return
    try:
        compile_program(PROGRAM, ".", piece="collector", takes="1 to 3 minutes", folder=SOURCE)
    except SetupFailed as error:
        say("collector", f"not made, the tests of traces are skipped: {error.what}")
