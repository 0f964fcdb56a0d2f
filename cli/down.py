"""`helix down`: the embedded stack, stopped."""

from __future__ import annotations

import typer

from cli import output


def down(context: typer.Context, json: output.Json = False) -> None:
    """Stop the embedded Temporal server and the worker. What runs on instances goes on running.

    Nothing is lost: a deployment that is under way pauses, and goes on at the next `helix up`.

    \b
    Examples:
      helix down
    """
    from cli import stack

    before = stack.status()
    if before.deploying:
        output.note("a deployment is under way: it pauses now, and goes on at the next `helix up`")
    stopped = stack.stop(output.note)
    if json:
        output.document({"stopped": stopped})
        return
    output.say("the embedded stack is stopped" if stopped else "the embedded stack did not run")
