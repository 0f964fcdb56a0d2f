"""The README and the pages it links say what is true."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest

from cli.main import COMMANDS
from project.load import load_project
from scripts.kinds import written

ROOT = Path(__file__).parent.parent.parent
PAGES = sorted([ROOT / "README.md", ROOT / "CONTRIBUTING.md", *(ROOT / "docs").rglob("*.md")])


def test_the_table_of_kinds_is_current() -> None:
    text = (ROOT / "README.md").read_text()
    assert written(text) == text, "run: python -m scripts.kinds"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", page.read_text()):
        if not target.startswith(("http:", "https:")):
            assert (page.parent / target).exists(), f"{page.name}: {target}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_commands_exist(page: Path) -> None:
    known = {*COMMANDS, "--help", "--version", "<typo>"}
    for name in re.findall(r"(?:^|`|\$ )helix ([a-z][a-z-]*)", page.read_text(), re.MULTILINE):
        assert name in known, f"{page.name}: helix {name}"


def test_the_example_of_a_helix_toml_is_valid(tmp_path: Path) -> None:
    examples = re.findall(r"```toml\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    assert examples
    for example in examples:
        tomllib.loads(example)
        (tmp_path / "helix.toml").write_text(example)
        (tmp_path / "Dockerfile").write_text("FROM scratch\n")
        project = load_project(tmp_path / "helix.toml")
        assert [entry.errors for entry in project.instances] == [[] for _ in project.instances]
