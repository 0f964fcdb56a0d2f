"""`helix set`: one value of helix.toml."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cli import output
from cli.exits import Usage

if TYPE_CHECKING:
    from project.document import Document
    from project.problems import Key, Problem


def set_(
    context: typer.Context,
    key: Annotated[
        str,
        typer.Argument(
            help="The key: project.queries, local.dev.port, or INSTANCE.KEY for short.",
            metavar="KEY",
        ),
    ],
    value: Annotated[
        str | None, typer.Argument(help="The value, as in TOML or as plain text.")
    ] = None,
    unset: Annotated[bool, typer.Option("--unset", help="Remove the key.")] = False,
    path: Annotated[
        Path | None, typer.Option("--path", "-p", help="The folder of the project.")
    ] = None,
    json: output.Json = False,
) -> None:
    """Set one key of helix.toml in place. Setting it twice changes nothing.

    A value that would make the file wrong is refused. INSTANCE.KEY finds the table: the instance's
    own if its kind has the key, else [deploy.INSTANCE].

    \b
    Examples:
      helix set production.region ams
      helix set dev.port 7070
      helix set production.health_check.path /healthz
      helix set deploy.keep_releases 10
      helix set production.region --unset

    \b
    Exit codes:
      0 done   2 wrong key or value; nothing was changed
    """
    from cli.project import save
    from project import edit
    from project.document import read
    from project.find import find_file
    from project.problems import dotted

    document = read(find_file(path))
    full = place_of(document, _split(key))
    if unset:
        text = edit.remove(document.text, full)
    elif value is None:
        raise Usage("which value?", hint=f'helix set {key} VALUE, or "" for empty text')
    else:
        text = _with_value(document, full, value)
    changed = save(document, text)
    if json:
        output.document({"file": str(document.path), "key": dotted(full), "changed": changed})
    else:
        output.say(f"{dotted(full)}: {'changed' if changed else 'nothing was changed'}")


def place_of(document: Document, key: Key) -> Key:
    """The full key path of what was typed.

    Raises:
        Usage: it names no table and no instance.
    """
    from project.config import HelixToml
    from project.load import GROUPS, understand
    from project.reading import fields, nearest

    tables = [*fields(HelixToml), "deploy"]
    project = understand(document)
    entry = project.entry(str(key[0]))
    if entry is None or key[0] in tables:
        if key[0] in tables or key[0] in document.data:
            if key[0] == "cloud" and len(key) > 2:
                return _with_kind(project.entry(str(key[1])), key)
            return key
        names = [each.name for each in project.instances]
        near = nearest(str(key[0]), [*tables, *names])
        raise Usage(
            f"«{key[0]}» is neither a table nor an instance",
            hint=f"did you mean «{near}»?"
            if near
            else f"known: {', '.join([*GROUPS, 'project', 'deploy', *names])}",
        )
    if len(key) == 1:
        raise Usage(f"which key of «{key[0]}»?", hint=f"helix set {key[0]}.KEY VALUE")
    from project.deploy import DeploySettings

    own = fields(type(entry.table)) if entry.table is not None else {}
    name = str(key[1])
    if name not in own and name not in entry.value and name in fields(DeploySettings):
        return ("deploy", entry.name, *key[1:])
    return (*entry.key, *key[1:])


def _with_kind(entry: Any, key: Key) -> Key:
    """cloud.prod.region names cloud.prod.fly.region."""
    if entry is None or entry.key[0] != "cloud" or key[2] == entry.key[-1]:
        return key
    return (*entry.key, *key[2:])


def _split(text: str) -> Key:
    """A dotted key, quoted parts included."""
    try:
        found: Any = tomllib.loads(f"{text} = 1")
    except tomllib.TOMLDecodeError:
        raise Usage(
            f"«{text}» is not a key", hint="write it as TOML does: local.dev.port"
        ) from None
    key: list[str] = []
    while isinstance(found, dict):
        name, found = next(iter(found.items()))
        key.append(name)
    return tuple(key)


def _with_value(document: Document, key: Key, written: str) -> str:
    """The text with the value, read as TOML if that is right there, else as plain text.

    Raises:
        ConfigErrors: neither is right there.
    """
    from project.document import parse
    from project.edit import set_value
    from project.load import understand
    from project.problems import ConfigErrors

    def errors(text: str) -> list[Problem]:
        found = understand(parse(text.encode(), document.path)).all_problems()
        return [problem for problem in found if problem.severity == "error" or problem.accepted_by]

    before = {(problem.key, problem.message) for problem in errors(document.text)}
    wrong: list[Problem] = []
    for value in _readings(written):
        text = set_value(document.text, key, value)
        new = [p for p in errors(text) if (p.key, p.message) not in before]
        if not new:
            return text
        wrong = wrong or new
    raise ConfigErrors(
        problem.model_copy(update={"severity": "error", "line": 0, "column": 0, "file": ""})
        for problem in wrong
    )


def _readings(written: str) -> list[Any]:
    try:
        found = tomllib.loads(f"value = {written}")
    except tomllib.TOMLDecodeError:
        return [written]
    return [found["value"], written] if len(found) == 1 else [written]
