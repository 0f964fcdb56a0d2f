"""Every kind has a page: how to set it up, what it must be allowed, and what was never run."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest

from project.load import load_project
from providers.catalog import PROVIDERS

PAGES = Path(__file__).parents[2] / "docs" / "providers"
HEADINGS = ("## In five minutes", "## Permissions", "## Tested against")


def page(kind: str) -> str:
    """The page of a kind."""
    return (PAGES / f"{kind}.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("kind", sorted(PROVIDERS.builtin))
def test_every_kind_has_its_page(kind: str) -> None:
    text = page(kind)
    assert text.startswith(f"# {kind}: ")
    places = [text.find(f"\n{heading}\n") for heading in HEADINGS]
    assert -1 not in places, dict(zip(HEADINGS, places, strict=True))
    assert places == sorted(places)


@pytest.mark.parametrize("kind", sorted(PROVIDERS.builtin))
def test_it_says_what_was_never_run(kind: str) -> None:
    tested = page(kind).partition("\n## Tested against\n")[2]
    assert re.search(r"never (yet )?run", tested, re.IGNORECASE)


@pytest.mark.parametrize("kind", sorted(PROVIDERS.builtin))
def test_its_first_example_is_valid(kind: str, tmp_path: Path) -> None:
    examples = re.findall(r"```toml\n(.*?)```", page(kind), re.DOTALL)
    first = next(one for one in examples if f".{kind}]" in one or f"[{kind}." in one)
    tomllib.loads(first)
    head = "" if "[project]" in first else '[project]\nname = "shop"\n'
    (tmp_path / "helix.toml").write_text(head + first)
    (tmp_path / "Dockerfile").write_text("FROM scratch\n")
    project = load_project(tmp_path / "helix.toml")
    assert [entry.errors for entry in project.instances] == [[] for _ in project.instances]
    assert kind in {entry.kind for entry in project.instances}
