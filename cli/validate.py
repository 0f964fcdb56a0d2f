"""`helix validate`: everything that is wrong with a helix.toml, at once."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cli import output
from cli.exits import Exit, Usage

if TYPE_CHECKING:
    from project.document import Document
    from project.load import Project
    from project.problems import Problem


def validate(
    context: typer.Context,
    path: Annotated[
        Path | None,
        typer.Argument(help="The file, or a folder in its project.", metavar="FILE|DIR"),
    ] = None,
    strict: Annotated[
        str,
        typer.Option(
            "--strict",
            help="Judge as that HelixDB CLI does: v2.0, v2.1, v2.3 or v3.",
            metavar="ERA",
        ),
    ] = "",
    json: output.Json = False,
) -> None:
    """Check helix.toml, and say all that is wrong with it or odd about it.

    Whatever a released HelixDB CLI accepts is valid here. With --strict the verdict is exactly that
    CLI's own.

    \b
    Examples:
      helix validate
      helix validate shop/helix.toml --json
      helix validate --strict v2.1

    \b
    Exit codes:
      0 valid   2 invalid
    """
    from project.document import read
    from project.find import find_file
    from project.problems import ConfigErrors

    _known(strict)
    file = find_file(path)
    document, problems = None, []
    try:
        document = read(file)
    except ConfigErrors as errors:
        problems = list(errors.problems)
    project = None
    if document is not None:
        project, problems = _judge(document, strict)
    valid = not any(problem.severity == "error" for problem in problems)
    if json:
        output.document(_report(file, strict, valid, problems, document, project))
    else:
        _show(file, strict, valid, problems, document)
    if not valid:
        raise typer.Exit(Exit.USAGE)


def _known(strict: str) -> None:
    from project.eras import ERAS

    if strict and strict not in ERAS:
        raise Usage(f"there is no era «{strict}»", hint=f"known: {', '.join(ERAS)}")


def _judge(document: Document, strict: str) -> tuple[Project, list[Problem]]:
    from cli.project import notice
    from project.checks import check
    from project.eras import ERAS, verdict
    from project.load import understand

    project = understand(document)
    if strict:
        return project, verdict(document, ERAS[strict])
    notice(document)
    return project, check(project)


def _generations(document: Document) -> dict[str, str]:
    """Each generation of HelixDB's CLI, and why it refuses the file; empty if it does not."""
    from project.eras import ERAS, verdict

    found: dict[str, str] = {}
    for name, era in ERAS.items():
        problems = verdict(document, era)
        first = problems[0] if problems else None
        found[name] = f"{first.key}: {first.message}".removeprefix(": ") if first else ""
    return found


def _report(
    file: Path,
    strict: str,
    valid: bool,
    problems: list[Problem],
    document: Document | None,
    project: Project | None,
) -> dict[str, Any]:
    refusals = _generations(document) if document is not None else {}
    return {
        "file": str(file),
        "valid": valid,
        "strict": strict or None,
        "project": project.name if project is not None else None,
        "instances": [
            {"name": entry.name, "kind": entry.kind, "valid": not entry.errors}
            for entry in (project.instances if project is not None else ())
        ],
        "helixdb_cli": {
            name: {"accepts": not why, "reason": why or None} for name, why in refusals.items()
        },
        "problems": [problem.model_dump(mode="json") for problem in problems],
    }


def _show(
    file: Path, strict: str, valid: bool, problems: list[Problem], document: Document | None
) -> None:
    for problem in problems:
        output.say(str(problem))
    errors = sum(problem.severity == "error" for problem in problems)
    counts = [
        f"{count} {word}{'s' if count > 1 else ''}"
        for count, word in ((errors, "error"), (len(problems) - errors, "warning"))
        if count
    ]
    judge = f" for HelixDB's CLI {strict}" if strict else ""
    output.say(
        f"{file} is {'valid' if valid else 'not valid'}{judge}"
        + (f": {', '.join(counts)}" if counts else "")
    )
    if document is not None and not strict:
        refusals = _generations(document)
        accepted = [name for name, why in refusals.items() if not why]
        output.say(f"HelixDB's own CLIs that accept it: {', '.join(accepted) or 'none'}")
        for name, why in refusals.items():
            if why:
                output.say(f"  {name} refuses it: {why}")
