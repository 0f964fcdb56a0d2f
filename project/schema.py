"""The JSON Schema and the reference page of helix.toml, both generated from the models.

python -m project.schema docs      # writes both again
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Iterator
from inspect import cleandoc
from pathlib import Path
from typing import Any

from project.config import EnterpriseTable, HelixToml, LocalTable, ProjectTable
from project.database import DbConfig, GraphConfig, S3Storage, VectorConfig
from project.deploy import (
    ApprovalTable,
    BuildTable,
    DeploySettings,
    FreezeTable,
    HealthCheckTable,
    NotificationTable,
    ObjectStorageTable,
    OnFailureTable,
    RegistryTable,
    ScheduleTable,
    StepsTable,
    StepTable,
    VolumeTable,
    WindowTable,
)
from project.kinds import KIND_ALIASES, KINDS
from project.reading import described, fields
from project.table import Table


def as_schema(packages: Iterable[tuple[str, type[Table]]] = ()) -> dict[str, Any]:
    """The JSON Schema (draft 2020-12) of the whole file. Unknown keys are allowed, as they are
    everywhere.

    Args:
        packages: the kinds of installed packages and their tables, which an editor shall know too.
    """
    schema = HelixToml.model_json_schema(by_alias=True)
    deploy = DeploySettings.model_json_schema(by_alias=True)
    definitions = {**schema.pop("$defs"), **deploy.pop("$defs")}
    definitions["DeploySettings"] = deploy
    cloud = definitions["CloudTable"]
    for name, kind in KIND_ALIASES.items():
        cloud["properties"][name] = {**cloud["properties"][kind], "deprecated": True}
    for kind, table in packages:
        own = table.model_json_schema(by_alias=True)
        definitions |= own.pop("$defs", {})
        cloud["properties"][kind] = own
    schema["properties"]["deploy"] = {
        "description": "How instances are deployed: defaults, and a table for each instance.",
        "allOf": [{"$ref": "#/$defs/DeploySettings"}],
        "additionalProperties": {"$ref": "#/$defs/DeploySettings"},
    }
    # In `allOf`, the keys of the settings would count as additional: list them as known.
    schema["properties"]["deploy"]["properties"] = dict.fromkeys(deploy["properties"], True)
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "helix.toml",
        **_untitled(schema),
        "$defs": _untitled(dict(sorted(definitions.items()))),
    }


def _untitled(schema: Any) -> Any:
    """Without the titles that only repeat the names."""
    if isinstance(schema, dict):
        return {
            name: _untitled(value)
            for name, value in schema.items()
            if name != "title" or not isinstance(value, str)
        }
    return [_untitled(each) for each in schema] if isinstance(schema, list) else schema


def as_json(packages: Iterable[tuple[str, type[Table]]] = ()) -> str:
    """The schema as the text of its file."""
    return json.dumps(as_schema(packages), indent=2, ensure_ascii=False) + "\n"


def as_markdown() -> str:
    """The reference page."""
    return "\n".join(_lines()) + "\n"


def _lines() -> Iterator[str]:
    yield "# helix.toml"
    yield ""
    yield "Every key, its type and its default. This page is made from the models in `project/`:"
    yield "`python -m project.schema docs` writes it again."
    yield ""
    yield "Keys that are not known are kept, and `helix validate` warns about them. Durations are"
    yield 'seconds, or text such as "30s", "5m" or "2h".'
    yield from _section("## [project]", ProjectTable)
    yield from _section("## [local.&lt;instance&gt;]", LocalTable, without=DbConfig)
    yield from _section("### [local.&lt;instance&gt;.s3]", S3Storage)
    yield from _section("## Database settings", DbConfig)
    yield ""
    yield "They stand directly in the table of an instance of HelixDB v2, whatever its kind."
    yield from _section("### vector_config", VectorConfig)
    yield from _section("### graph_config", GraphConfig)
    yield ""
    yield "## [cloud.&lt;instance&gt;.&lt;kind&gt;]"
    yield ""
    yield "An instance has exactly one kind. Database settings may stand beside the kind's own."
    for name, kind in KINDS.items():
        yield from _section(f"### [cloud.&lt;instance&gt;.{name}]", kind, without=DbConfig)
        spellings = [alias for alias, meant in KIND_ALIASES.items() if meant == name]
        if spellings:
            yield ""
            yield f"Also read: {', '.join(f'`{alias}`' for alias in spellings)}."
    yield from _section("## [enterprise.&lt;instance&gt;]", EnterpriseTable, without=DbConfig)
    yield from _section("## [deploy] and [deploy.&lt;instance&gt;]", DeploySettings)
    yield ""
    yield "What stands in `[deploy]` holds for all instances; `[deploy.<instance>]` goes over it,"
    yield "key by key. HelixDB's own CLIs do not look at either."
    for name, table in _DEPLOY_TABLES.items():
        yield from _section(f"### {name}", table)


_DEPLOY_TABLES: dict[str, type[Table]] = {
    "health_check": HealthCheckTable,
    "build": BuildTable,
    "registry": RegistryTable,
    "volumes": VolumeTable,
    "object_storage": ObjectStorageTable,
    "approval": ApprovalTable,
    "on_failure": OnFailureTable,
    "notifications.&lt;name&gt;": NotificationTable,
    "steps": StepsTable,
    "schedule": ScheduleTable,
    "freeze": FreezeTable,
    "freeze.windows": WindowTable,
    "steps.&lt;step&gt;": StepTable,
}


def _section(title: str, cls: type[Table], without: type[Table] | None = None) -> Iterator[str]:
    yield ""
    yield title
    yield ""
    yield cleandoc(cls.__doc__ or "")
    left_out = set(fields(without)) if without else set()
    rows = {name: field for name, field in fields(cls).items() if name not in left_out}
    if not rows:
        return
    yield ""
    yield "| key | type | default | |"
    yield "|---|---|---|---|"
    for name, field in rows.items():
        text = " ".join((field.description or "").split())
        spellings = [old for old, today in cls.ALIASES.items() if today == name]
        if spellings:
            text += f" Also read: {', '.join(f'`{old}`' for old in spellings)}."
        for written, today in cls.VALUES.get(name, {}).items():
            text += f" `{written}` is read as `{today}`."
        yield f"| `{name}` | {_cell(described(cls, name))} | {_default(field)} | {_cell(text)} |"


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("<", "&lt;").replace(">", "&gt;")


def _default(field: Any) -> str:
    if field.is_required():
        return "**required**"
    value = field.get_default(call_default_factory=True)
    if value is None or isinstance(value, Table) or value in ({}, []):
        return ""
    return f"`{json.dumps(value)}`"


def write(folder: Path) -> list[Path]:
    """Write both files into a folder; gives those that changed."""
    changed = []
    for name, content in (("helix.schema.json", as_json()), ("helix-toml.md", as_markdown())):
        file = folder / name
        if not file.exists() or file.read_text(encoding="utf-8") != content:
            file.write_text(content, encoding="utf-8")
            changed.append(file)
    return changed


if __name__ == "__main__":
    for written in write(Path(sys.argv[1])):
        sys.stdout.write(f"wrote {written}\n")
