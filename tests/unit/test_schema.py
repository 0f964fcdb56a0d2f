"""The JSON Schema and the reference page of helix.toml are those of the models."""

from __future__ import annotations

import json
import tomllib
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from project.kinds import KINDS
from project.schema import as_json, as_markdown, as_schema

DOCS = Path(__file__).parent.parent.parent / "docs"
DATA = Path(__file__).parent.parent / "data" / "helix_toml"
AGAIN = "run: python -m project.schema docs"


def test_the_published_schema_is_current() -> None:
    assert (DOCS / "helix.schema.json").read_text() == as_json(), AGAIN


def test_the_reference_page_is_current() -> None:
    assert (DOCS / "helix-toml.md").read_text() == as_markdown(), AGAIN


def test_the_schema_is_one() -> None:
    jsonschema.Draft202012Validator.check_schema(as_schema())


def errors(data: dict[str, Any]) -> list[str]:
    """What an editor would underline."""
    validator = jsonschema.Draft202012Validator(as_schema())
    return [error.json_path for error in validator.iter_errors(data)]


@pytest.mark.parametrize("file", sorted(DATA.glob("v*/*.toml")), ids=lambda file: file.stem)
def test_an_editor_underlines_nothing_in_a_real_file(file: Path) -> None:
    assert errors(tomllib.loads(file.read_text())) == []


def test_an_editor_underlines_what_is_wrong() -> None:
    data = {
        "project": {"name": "s"},
        "local": {"dev": {"port": "6969"}},
        "cloud": {"p": {"fly": {}, "helix": {"cluster_id": "c"}}},
        "deploy": {"strategy": "fast", "p": {"keep_releases": 0}},
    }
    assert {"$.local.dev.port", "$.cloud.p", "$.deploy.strategy"} <= set(errors(data))
    assert "$.deploy.p.keep_releases" in errors(data)


def test_deploy_takes_defaults_and_tables_of_instances() -> None:
    deploy = {"env": {"A": "1"}, "health_check": "/ok", "p": {"registry": "r/s", "port": 80}}
    assert errors({"project": {"name": "s"}, "deploy": deploy}) == []


def test_every_key_of_every_kind_is_explained() -> None:
    page = as_markdown()
    for name, kind in KINDS.items():
        assert f".{name}]" in page
        for key, field in kind.model_fields.items():
            assert field.description, f"{name}.{key}"
            assert f"| `{field.alias or key}` |" in page


def test_every_key_an_editor_offers_is_explained() -> None:
    schema = json.loads(as_json())
    for name, table in schema["$defs"].items():
        for key, value in table.get("properties", {}).items():
            refers = "$ref" in json.dumps(value)
            assert "description" in value or refers, (name, key)
