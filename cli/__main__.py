"""The entry point of `helix`: by the fork server if one answers, else here.

Most of the time of a short command is spent importing. So everything that costs is imported after
the question whether somebody has imported it already.
"""

from __future__ import annotations

import os
import sys
from contextlib import suppress


def main() -> None:
    """Run the command that `sys.argv` names, and end the process with its exit code."""
    from cli import forkserver

    code = forkserver.ask(sys.argv[1:])
    if code is None:
        from cli.main import run

        code = run()
    if "temporalio" not in sys.modules:
        sys.exit(code)
    # The client's native threads can crash the interpreter while it shuts down, after all work is
    # done (sdk-python#300): end at once instead.
    with suppress(BrokenPipeError):
        sys.stdout.flush()
        sys.stderr.flush()
    os._exit(code)


if __name__ == "__main__":
    main()
