"""`helix up`: the embedded stack, started if it does not run."""

from __future__ import annotations

from typing import Any

import typer

from cli import output


def up(context: typer.Context, json: output.Json = False) -> None:
    """Start the embedded Temporal server, its UI and a worker, or mend what is missing of them.

    Other commands do this by themselves. Where a Temporal is configured (TEMPORAL_ADDRESS,
    TEMPORAL_PROFILE, Temporal's configuration file) nothing is started: that one is used.

    \b
    Examples:
      helix up
      helix up --json
    """
    from cli import stack

    found = stack.ensure(output.note)
    if json:
        output.document(document(found))
        return
    if not found.embedded:
        output.say(f"Temporal is configured: {found.address}, namespace {found.namespace}")
        output.note("nothing to start here; a worker for it: helix worker")
        return
    output.say("the embedded stack runs" + ("" if found.started else " already"))
    output.say(f"  Temporal  {found.address}")
    output.say(f"  UI        {found.ui_url}")
    output.say(f"  logs      {stack.status().folder}")


def document(found: Any) -> dict[str, Any]:
    """The stack for machines."""
    from cli import stack

    answer: dict[str, Any] = {
        "address": found.address,
        "namespace": found.namespace,
        "ui_url": found.ui_url,
        "embedded": found.embedded,
        "started": found.started,
    }
    if found.embedded:
        now = stack.status()
        for name, process in (
            ("server", now.server),
            ("worker", now.worker),
            ("commands", now.commands),
        ):
            answer[name] = {"pid": process.pid} if process else None
        answer["folder"] = str(now.folder)
    return answer
