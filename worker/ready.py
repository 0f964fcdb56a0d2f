"""Asks the worker of this state folder whether it takes work: exit code 0 if it does.

    python3 -m worker.ready

For the health check of a container, which has no curl. Nothing but the standard library: it runs
every few seconds.
"""

from __future__ import annotations

import json
import sys
from http.client import HTTPConnection, HTTPException

from worker.paths import state_dir

TIMEOUT = 4.0
"""Seconds; longer than the endpoint itself waits for a worker that is stuck."""


def main() -> int:
    """0 if a worker takes work, else 1, and why."""
    answers = []
    for file in state_dir().glob("health-*.json"):
        try:
            place = json.loads(file.read_text())
            connection = HTTPConnection(place["host"], place["port"], timeout=TIMEOUT)
            connection.request("GET", "/readyz")
            answer = connection.getresponse()
            if answer.status == 200:
                return 0
            answers.append(answer.read().decode(errors="replace"))
        except (OSError, HTTPException, ValueError, KeyError) as error:
            answers.append(f"{file.name}: {error}")
    sys.stderr.write("\n".join(answers or [f"no worker runs in {state_dir()}"]) + "\n")
    return 1


if __name__ == "__main__":
    sys.exit(main())
