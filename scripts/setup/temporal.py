"""The Temporal CLI, which is also the local server: found, else downloaded, else compiled."""

from __future__ import annotations

import tempfile
from pathlib import Path

from scripts.setup.environment import PYTHON
from scripts.setup.golang import compile_program
from scripts.setup.shell import BIN, SetupFailed, program, run, say

MODULE = "github.com/temporalio/cli/cmd/temporal@v1.5.1"
"""The newest release that can be compiled from a module proxy alone."""

DOWNLOAD = """
import asyncio, sys
from temporalio.testing import WorkflowEnvironment

async def main() -> None:
    server = await WorkflowEnvironment.start_local(download_dest_dir=sys.argv[1])
    await server.shutdown()

asyncio.run(main())
"""
"""The SDK downloads the CLI that fits it when it starts a server for a test."""


def ensure() -> None:
    """Have `temporal` on the PATH or among our tools."""
    found = program("temporal")
    if found is not None:
        say("temporal", f"found {found}")
        return
    BIN.mkdir(parents=True, exist_ok=True)
    try:
        _download()
    except SetupFailed:
        say("temporal", "the SDK cannot download it here")
        compile_program(BIN / "temporal", MODULE, piece="temporal", takes="about 3 minutes")


def _download() -> None:
    with tempfile.TemporaryDirectory(dir=BIN) as folder:
        run([PYTHON, "-c", DOWNLOAD, folder], mend="", timeout=120)
        [executable] = Path(folder).iterdir()
        executable.replace(BIN / "temporal")
    say("temporal", f"downloaded {BIN / 'temporal'}")
