"""`helix doctor`: what is wrong on this machine, and what to do about it."""

from __future__ import annotations

from typing import Annotated

import typer

from cli import output


def doctor(
    context: typer.Context,
    instance: Annotated[
        str, typer.Argument(help="Look at this instance's platform and registry as well.")
    ] = "",
    json: output.Json = False,
) -> None:
    """Check everything that a deployment needs, change nothing, and say what to type.

    \b
    Examples:
      helix doctor
      helix doctor production

    \b
    Exit codes:
      0 nothing is wrong   1 something is
    """
    import asyncio

    from cli.checkup import State, examine

    findings = asyncio.run(examine(instance))
    well = all(one.state is not State.PROBLEM for one in findings)
    if json:
        output.document({"well": well, "findings": [one.document for one in findings]})
    else:
        marks = {State.OK: "OK", State.NOTE: "note", State.PROBLEM: "PROBLEM"}
        output.table(
            ("", "what", "how it is"), [(marks[one.state], one.what, one.text) for one in findings]
        )
        for one in findings:
            if one.hint:
                output.note(f"{one.what}: {one.hint}")
    if not well:
        raise typer.Exit(1)
