"""`helix remove`: an instance out of helix.toml."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from cli import output
from cli.exits import Usage


def remove(
    context: typer.Context,
    instance: Annotated[str, typer.Argument(help="The instance.")],
    path: Annotated[
        Path | None, typer.Option("--path", "-p", help="The folder of the project.")
    ] = None,
    group: Annotated[
        str,
        typer.Option("--from", help="local, cloud or enterprise, if several have that name."),
    ] = "",
    json: output.Json = False,
) -> None:
    """Remove an instance and its [deploy] settings from helix.toml. What runs goes on running.

    Removing it twice changes nothing. To stop what runs, use helix destroy first.

    \b
    Example:
      helix remove staging

    \b
    Exit codes:
      0 done, or it was not there   2 wrong usage
    """
    from cli.project import save
    from project import edit
    from project.document import read
    from project.find import find_file
    from project.load import understand
    from project.problems import dotted
    from project.reading import nearest

    document = read(find_file(path))
    entries = understand(document).instances
    found = [entry for entry in entries if entry.name == instance]
    chosen = [entry for entry in found if group in ("", entry.key[0])]
    if len(chosen) > 1:
        names = ", ".join(f"[{dotted(entry.key)}]" for entry in chosen)
        raise Usage(
            f"several instances are called «{instance}»: {names}",
            hint="say which with --from local, --from cloud or --from enterprise",
        )
    text = document.text
    removed: list[str] = []
    for entry in chosen:
        text = edit.remove(text, entry.key[:2])
        removed.append(dotted(entry.key))
    if chosen and len(found) == 1:
        shorter = edit.remove(text, ("deploy", instance))
        removed += [dotted(("deploy", instance))] if shorter != text else []
        text = shorter
    changed = save(document, text)
    if json:
        output.document({"file": str(document.path), "removed": removed, "changed": changed})
    elif changed:
        output.say(f"removed {', '.join(f'[{table}]' for table in removed)} from {document.path}")
    else:
        near = nearest(instance, [entry.name for entry in entries])
        hint = f"; did you mean «{near}»?" if near else ""
        output.say(f"there is no instance «{instance}»{hint}; nothing was changed")
