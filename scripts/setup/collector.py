"""OpenTelemetry's collector, as the tests need it: compiled once from a small module of ours."""

from __future__ import annotations

import shutil

from scripts.setup.shell import BIN, ROOT, SetupFailed, run, say

SOURCE = ROOT / "tests" / "services" / "collector"
PROGRAM = BIN / "helix-test-collector"


def ensure() -> None:
    """Have it among our tools. Say so where it cannot be."""
    if PROGRAM.exists():
        say("collector", f"found {PROGRAM}")
    elif shutil.which("go") is None:
        say("collector", "not here, and no Go to compile it: the tests of traces are skipped")
    else:
        BIN.mkdir(parents=True, exist_ok=True)
        say("collector", "go build (OpenTelemetry's collector): 1 to 3 minutes, once …")
        mend = "install Go 1.24 or newer, then run it again"
        try:
            run(["go", "build", "-o", PROGRAM, "."], mend=mend, timeout=1800, cwd=SOURCE)
        except SetupFailed as error:
            say("collector", f"not made, the tests of traces are skipped: {error.what}")
