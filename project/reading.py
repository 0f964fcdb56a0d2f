"""Turns one table of helix.toml into its model, and says everything that is odd about it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from difflib import get_close_matches
from functools import cache
from types import UnionType
from typing import Annotated, Any, TypeVar, Union, get_args, get_origin

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from project.document import Document
from project.problems import Key, Problem, dotted
from project.table import Table

T = TypeVar("T", bound=Table)


def fields(cls: type[Table]) -> dict[str, Any]:
    """The keys of a table as the file writes them, each with its pydantic field."""
    return {field.alias or name: field for name, field in cls.model_fields.items()}


def nearest(word: str, known: Iterator[str] | list[str]) -> str:
    """The known word most like this one, or the empty string."""
    near = get_close_matches(word, list(known), n=1, cutoff=0.6)
    return near[0] if near else ""


Forgive = Callable[[Key], tuple[str, ...]]
"""A key path -> the generations of HelixDB's CLI that do not mind what stands there."""


def _never(key: Key) -> tuple[str, ...]:
    return ()


def read_table(
    cls: type[T], value: Any, key: Key, document: Document, forgive: Forgive = _never
) -> tuple[T | None, list[Problem]]:
    """Read one table.

    Args:
        cls: its model.
        value: what the file has there.
        key: where that is.
        forgive: what it does not mind is left out with a warning, and is no error.

    Returns:
        The model, or None if a problem is an error; and all problems, warnings included.
    """
    if not isinstance(value, dict):
        problem = document.problem(
            key, f"this is {_what(value)}", of_value=True, code="type", expected="a table"
        )
        return None, [problem]
    spelling: dict[Key, Key] = {}
    problems: list[Problem] = []
    adapted = _adapt(cls, value, key, key, document, problems, spelling)
    while True:
        try:
            return cls.model_validate(adapted), problems
        except ValidationError as error:
            adapted, fatal = _forgiven(
                error, cls, key, adapted, spelling, document, forgive, problems
            )
        if fatal:
            return None, problems


def _forgiven(
    error: ValidationError,
    cls: type[Table],
    key: Key,
    table: dict[str, Any],
    spelling: dict[Key, Key],
    document: Document,
    forgive: Forgive,
    problems: list[Problem],
) -> tuple[dict[str, Any], bool]:
    """Note what is wrong; give the table without what is forgiven, and whether anything is not."""
    fatal = False
    found: dict[Key, ErrorDetails] = {}
    for details in error.errors(include_url=False):
        found.setdefault(_once(details["loc"]), details)  # one for each list is enough
    for details in found.values():
        problem, place = _problem(details, cls, key, spelling, document)
        location = _location(details)
        accepted_by = forgive(place) if location else ()
        if accepted_by:
            problem = problem.model_copy(
                update={
                    "severity": "warning",
                    "code": "ignored",
                    "message": f"{problem.message}, and is ignored as HelixDB "
                    f"{', '.join(accepted_by)} does",
                    "accepted_by": accepted_by,
                }
            )
            table = _without(table, location)
        fatal = fatal or not accepted_by
        problems.append(problem)
    return table, fatal


def _once(location: Key) -> Key:
    """A place in a table, without what comes after the first position in a list."""
    return next(
        (location[:at] for at, part in enumerate(location) if isinstance(part, int)), location
    )


def _location(details: ErrorDetails) -> Key:
    """Where in the table what is wrong stands: for a missing key, what it is missing from."""
    location = tuple(part for part in details["loc"] if part != "[key]")
    return location[:-1] if details["type"] == "missing" else location


def _without(table: dict[str, Any], location: Key) -> dict[str, Any]:
    """A copy of the table in which the value at a place is gone."""
    first = location[0]
    assert isinstance(first, str)
    inner = table.get(first)
    if len(location) > 1 and isinstance(inner, dict):
        return {**table, first: _without(inner, location[1:])}
    return {name: value for name, value in table.items() if name != first}


def _tables_in(annotation: Any) -> tuple[str, type[Table]] | None:
    """How tables occur in a field's type: ("one", T), ("list", T) or ("map", T)."""
    origin = get_origin(annotation)
    arguments = get_args(annotation)
    if origin is Annotated:
        return _tables_in(arguments[0])
    if origin in (Union, UnionType):
        return next(filter(None, map(_tables_in, arguments)), None)
    if origin in (list, dict):
        inner = _tables_in(arguments[-1])
        return ("list" if origin is list else "map", inner[1]) if inner else None
    if isinstance(annotation, type) and issubclass(annotation, Table):
        return "one", annotation
    return None


def _adapt(
    cls: type[Table],
    value: dict[str, Any],
    new: Key,
    old: Key,
    document: Document,
    problems: list[Problem],
    spelling: dict[Key, Key],
) -> dict[str, Any]:
    """The table with today's spelling of keys and values; notes what it changed or does not know.

    Args:
        new: the key path with today's spelling.
        old: the key path as the file writes it; remembered in `spelling`.
    """
    known = fields(cls)
    result: dict[str, Any] = {}
    for name, item in value.items():
        today = cls.ALIASES.get(name, name)
        if today != name and today in value:
            today = name
        new_key, old_key = (*new, today), (*old, name)
        spelling[new_key] = old_key
        if today not in known:
            near = nearest(name, list(known))
            problems.append(
                document.problem(
                    old_key,
                    "this key is not known; it is kept and has no effect",
                    severity="warning",
                    code="unknown-key",
                    fix=f"did you mean «{near}»?" if near else "",
                )
            )
            continue
        if today != name:
            problems.append(
                document.problem(
                    old_key,
                    f"an old spelling of «{today}»",
                    severity="warning",
                    code="deprecated-spelling",
                    fix=f"write {today}",
                )
            )
        tables = _tables_in(known[today].annotation)
        if tables is not None:
            item = _adapt_inside(tables, item, new_key, old_key, document, problems, spelling)
        result[today] = _respell(cls, today, name, item, old_key, document, problems)
    return result


def _adapt_inside(
    tables: tuple[str, type[Table]], item: Any, new: Key, old: Key, *context: Any
) -> Any:
    how, cls = tables
    if how == "one" and isinstance(item, dict):
        return _adapt(cls, item, new, old, *context)
    if how == "list" and isinstance(item, list):
        return [
            _adapt(cls, each, (*new, at), (*old, at), *context) if isinstance(each, dict) else each
            for at, each in enumerate(item)
        ]
    if how == "map" and isinstance(item, dict):
        return {
            name: _adapt(cls, each, (*new, name), (*old, name), *context)
            if isinstance(each, dict)
            else each
            for name, each in item.items()
        }
    return item


def _respell(
    cls: type[Table],
    key: str,
    written: str,
    value: Any,
    place: Key,
    document: Document,
    problems: list[Problem],
) -> Any:
    """The value in today's spelling."""
    spellings = {**cls.VALUES.get(key, {}), **cls.VALUES.get(written, {})}
    today = spellings.get(value) if isinstance(value, str) else None
    if today is None:
        return value
    problems.append(
        document.problem(
            place,
            f"«{value}» is another spelling of {_shown(today)}, which HelixDB's CLI refuses",
            of_value=True,
            severity="warning",
            code="deprecated-spelling",
            fix=f"write {_assignment(key, today)}",
        )
    )
    return today


def _problem(
    details: ErrorDetails,
    cls: type[Table],
    key: Key,
    spelling: dict[Key, Key],
    document: Document,
) -> tuple[Problem, Key]:
    """A validation error as a problem of the file, and where it stands."""
    location = tuple(part for part in details["loc"] if part != "[key]")
    place = _written((*key, *location), spelling)
    context = details.get("ctx", {})
    kind = details["type"]
    if kind == "missing":
        name = str(location[-1])
        holder = _written((*key, *location[:-1]), spelling)
        problem = document.problem(
            holder,
            f"the key {name} is missing",
            code="missing-key",
            expected=_expected_of(cls, location),
            fix=f"add {name} to [{dotted(holder)}]",
        )
        return problem, holder
    found = details["input"]
    expected = _EXPECTED.get(kind, "")
    if kind in ("literal_error", "enum"):
        expected = "one of " + ", ".join(map(_shown, _choices(context)))
    elif kind.startswith(("greater_than", "less_than")):
        expected = _expected_of(cls, location) or details["msg"].removeprefix("Input should be ")
    elif kind == "string_pattern_mismatch":
        expected = f"text that matches {context['pattern']}"
    elif kind == "value_error" and not location:
        return document.problem(place, str(context["error"])), place
    elif kind == "value_error":
        expected = str(context["error"])
    if kind == "string_too_short" or (isinstance(found, str) and not found.strip()):
        empty = document.problem(
            place, "this must not be empty", of_value=True, code="empty", expected="text"
        )
        return empty, place
    fix = ""
    if kind == "literal_error" and isinstance(found, str):
        near = nearest(found.lower(), _choices(context))
        fix = f"did you mean {_shown(near)}?" if near else ""
    elif kind == "string_type" and isinstance(found, int | float):
        fix = f"put it in quotes: {_shown(str(found).lower())}"
    elif kind in ("int_type", "int_from_float", "bool_type") and isinstance(found, str):
        bare = found.strip().lower()
        if bare.isdigit() or bare in ("true", "false"):
            fix = f"write it without quotes: {bare}"
    problem = document.problem(
        place,
        f"this is {_what(found)}",
        of_value=True,
        code="type" if kind.endswith("_type") else "value",
        expected=expected or details["msg"],
        fix=fix,
    )
    return problem, place


_EXPECTED = {
    "string_type": "text",
    "int_type": "a whole number",
    "int_from_float": "a whole number",
    "float_type": "a number",
    "bool_type": "true or false",
    "list_type": "a list",
    "dict_type": "a table",
    "model_type": "a table",
    "model_attributes_type": "a table",
}


def _written(key: Key, spelling: dict[Key, Key]) -> Key:
    """A key path as the file writes it."""
    rest: Key = ()
    while key and key not in spelling:
        key, rest = key[:-1], (key[-1], *rest)
    return (*spelling.get(key, key), *rest)


def _choices(context: dict[str, Any]) -> list[str]:
    text = str(context.get("expected", "")).replace(" or ", ", ")
    return [choice.strip().strip("'") for choice in text.split(",")]


def _expected_of(cls: type[Table], location: tuple[str | int, ...]) -> str:
    """What the schema says of the value at a place in the table."""
    for part in location[:-1]:
        field = fields(cls).get(str(part))
        tables = _tables_in(field.annotation) if field is not None else None
        if tables is not None:
            cls = tables[1]
    field = fields(cls).get(str(location[-1]))
    return described(cls, str(location[-1])) if field is not None else ""


@cache
def _schema_of(cls: type[Table]) -> dict[str, Any]:
    return cls.model_json_schema()


def described(cls: type[Table], key: str) -> str:
    """The type of a key in words, from its JSON schema."""
    schema = _schema_of(cls)
    return _in_words(schema["properties"][key], schema.get("$defs", {}))


def _in_words(schema: dict[str, Any], definitions: dict[str, Any]) -> str:
    if "$ref" in schema:
        schema = definitions[schema["$ref"].rpartition("/")[2]]
    if "anyOf" in schema:
        words = [_in_words(each, definitions) for each in schema["anyOf"]]
        return " or ".join(dict.fromkeys(word for word in words if word != "nothing"))
    if "const" in schema:
        return _shown(schema["const"])
    if "enum" in schema:
        return "one of " + ", ".join(_shown(value) for value in schema["enum"])
    kind = str(schema.get("type"))
    if kind == "integer" and "maximum" in schema:
        return f"a whole number from {schema.get('minimum', 0)} to {schema['maximum']}"
    if kind in ("integer", "number"):
        word = "a whole number" if kind == "integer" else "a number"
        if "minimum" in schema and "maximum" not in schema:
            return f"{word} of at least {schema['minimum']}"
        return word
    if kind == "array":
        return "a list"
    plain = {"string": "text", "boolean": "true or false", "object": "a table", "null": "nothing"}
    return plain.get(kind, "anything")


def _shown(value: Any) -> str:
    """A value as TOML writes it."""
    if isinstance(value, bool):
        return str(value).lower()
    return f'"{value}"' if isinstance(value, str) else str(value)


def _assignment(key: str, value: Any) -> str:
    return f"{key} = {_shown(value)}"


def _what(value: Any) -> str:
    """A value in words, for «this is …»."""
    if isinstance(value, str):
        return f"the text {_shown(value if len(value) < 60 else value[:57] + '…')}"
    if isinstance(value, bool | int | float):
        return _shown(value) if len(str(value)) < 40 else "a very long number"
    if isinstance(value, dict):
        return "a table"
    if isinstance(value, list):
        return "a list"
    return f"a {type(value).__name__}"
