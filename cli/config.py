"""`helix config`: what another CLI dropped from helix.toml, and how to get it back."""

from __future__ import annotations

from difflib import unified_diff
from pathlib import Path
from typing import Annotated

import typer

from cli import output
from cli.exits import Usage

config = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode=None,
    add_completion=False,
    help="Get back what another CLI dropped from helix.toml, or agree to it.\n\n"
    "\b\nExamples:\n  helix config restore\n  helix config accept",
)

Where = Annotated[
    Path | None, typer.Argument(help="The file, or a folder in its project.", metavar="FILE|DIR")
]


@config.command()
def restore(
    context: typer.Context,
    path: Where = None,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    json: output.Json = False,
) -> None:
    """Put back the tables that have vanished from helix.toml since it was last seen here.

    Their place, comments and unknown keys come back with them; what was set since stays as it is
    now. The difference is shown first.

    \b
    Exit codes:
      0 restored, or nothing to restore   2 nobody said yes
    """
    from cli.project import save
    from project.document import read
    from project.find import find_file
    from project.problems import dotted
    from project.seen import restored, vanished

    document = read(find_file(path))
    gone = vanished(document)
    text = restored(document) if gone else document.text
    difference = list(
        unified_diff(
            document.text.splitlines(),
            text.splitlines(),
            "now",
            "restored",
            lineterm="",
        )
    )
    if not json:
        for row in difference:
            output.say(row)
    if gone and not yes:
        if json or not output.interactive():
            raise Usage("nothing was changed", hint="add --yes to restore this")
        if not typer.confirm("Restore this?", err=True):
            raise typer.Exit
    changed = save(document, text)
    if json:
        output.document(
            {
                "file": str(document.path),
                "changed": changed,
                "restored": [dotted(key) for key in gone],
                "diff": difference,
            }
        )
    elif not changed:
        output.say("nothing has vanished")
    else:
        output.say(f"restored {', '.join(f'[{dotted(key)}]' for key in gone)}")


@config.command()
def accept(context: typer.Context, path: Where = None, json: output.Json = False) -> None:
    """Agree that helix.toml is right as it is now; what has vanished is not mentioned again.

    \b
    Exit codes:
      0 done
    """
    from project.document import read
    from project.edit import encoded
    from project.find import find_file
    from project.problems import dotted
    from project.seen import keep, vanished

    document = read(find_file(path))
    gone = [dotted(key) for key in vanished(document)]
    keep(document.path, encoded(document.text, document))
    if json:
        output.document({"file": str(document.path), "accepted": gone})
    else:
        output.say(f"agreed: {', '.join(gone)}" if gone else "nothing has vanished")
