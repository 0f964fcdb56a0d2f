"""Kinds of other packages: found by their entry points, and read, checked and told as ours are."""

from __future__ import annotations

import ast
import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from typer.testing import CliRunner

from cli.main import app
from model import catalog
from model.errors import ConfigurationError
from project import plugins
from project.load import inspect_project, load_project
from project.resolve import resolve
from providers.catalog import PROVIDERS
from registries.catalog import REGISTRIES

MODULE = """
from typing import ClassVar, Literal
from pydantic import BaseModel, ConfigDict, Field
from helix_deploy import Capabilities, CloudProvider
from helix_deploy.stores import OciRegistry, OciSettings

class Settings(BaseModel):
    "A ship of the fleet."
    model_config = ConfigDict(extra="forbid", use_attribute_docstrings=True)
    ship: str
    "Its name."
    size: Literal["small", "large"] = Field(examples=["large"])
    "How big it is."
    decks: int = 1
    port: int | None = None
    "Its own idea of a port."
    region: str = "north"

class Ship(CloudProvider):
    kind = "ship"
    capabilities = Capabilities(start_first=False)
    Settings = Settings

for name in CloudProvider.__abstractmethods__:
    setattr(Ship, name, lambda self, *a, **k: None)
Ship.__abstractmethods__ = frozenset()

class Half(CloudProvider):
    kind = "half"

class HarborSettings(OciSettings):
    project_quota: int = 0

class Harbor(OciRegistry):
    kind = "harbor"
    Settings = HarborSettings
"""
POINTS = """
[helix.providers]
ship = acme_kinds:Ship
half = acme_kinds:Half
gone = acme_nothing:Gone
docker = acme_kinds:Ship
harbor = helix_deploy.stores:RegistryOnlyProvider
[helix.registries]
harbor = acme_kinds:Harbor
"""
HEAD = '[project]\nname = "shop"\n\n'


def install(folder: Path, package: str, points: str) -> None:
    """As an installer leaves a package: its module, and what it says of itself."""
    (folder / "acme_kinds.py").write_text(MODULE)
    told = folder / f"{package}-1.2.dist-info"
    told.mkdir()
    (told / "METADATA").write_text(
        f"Metadata-Version: 2.1\nName: {package.replace('_', '-')}\nVersion: 1.2\n"
    )
    (told / "entry_points.txt").write_text(points)


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder with a package of kinds, where Python finds it."""
    folder = tmp_path / "site"
    folder.mkdir()
    install(folder, "acme_kinds", POINTS)
    monkeypatch.syspath_prepend(str(folder))
    catalog.plugins.cache_clear()
    plugins.table_of.cache_clear()
    yield folder
    sys.modules.pop("acme_kinds", None)
    catalog.plugins.cache_clear()
    plugins.table_of.cache_clear()


@pytest.fixture
def folder(tmp_path: Path, installed: Path) -> Path:
    """A project's folder."""
    found = tmp_path / "shop"
    found.mkdir()
    (found / "Dockerfile").write_text("FROM scratch\n")
    return found


def wrong(folder: Path, text: str) -> list[str]:
    """What is wrong with a file."""
    (folder / "helix.toml").write_text(HEAD + text)
    (entry,) = inspect_project(folder).instances
    return [str(problem).rpartition("helix.toml:")[2] for problem in entry.problems]


def test_its_table_is_checked_with_line_and_key(folder: Path) -> None:
    assert wrong(folder, '[cloud.p.ship]\nship = 7\nsize = "smal"\nvolume = "a:/b"\n') == [
        '5:8: error: cloud.p.ship.ship: this is 7 (expected text); put it in quotes: "7"',
        '6:8: error: cloud.p.ship.size: this is the text "smal" (expected one of "small", '
        '"large"); did you mean "small"?',
    ]
    assert wrong(folder, '[cloud.p.ship]\nsize = "small"\n') == [
        "4:10: error: cloud.p.ship: the key ship is missing (expected text); "
        "add ship to [cloud.p.ship]",
    ]
    (odd,) = wrong(folder, '[cloud.p.ship]\nship = "a"\nsize = "small"\ndeck = 1\n')
    assert "7:1: warning: cloud.p.ship.deck: this key is not known" in odd
    assert "did you mean «decks»?" in odd


def test_what_every_kind_can_be_told_holds_for_it_too(folder: Path) -> None:
    (folder / "helix.toml").write_text(
        HEAD + '[cloud.p.ship]\nship = "a"\nsize = "small"\nport = 81\nvolume = "data:/data"\n'
        'image = "acme/x:1"\n'
    )
    found = resolve(load_project(folder), "p")
    assert (found.port, found.build.image) == (81, "acme/x:1")
    assert [(volume.name, volume.mount) for volume in found.volumes] == [("data", "/data")]
    # Its own keys are its settings, the one that is ours as well among them.
    assert found.target.kind == "ship"
    assert found.target.settings == {"ship": "a", "size": "small", "port": 81}
    PROVIDERS.load("ship").Settings.model_validate(found.target.settings)


def test_a_kind_that_stores_images_has_the_table_of_its_registry(folder: Path) -> None:
    table = '[cloud.p.harbor]\nrepository = "h.test/a/b"\nproject_quota = 3\nusername = "u"\n'
    (folder / "helix.toml").write_text(HEAD + table)
    found = resolve(load_project(folder), "p")
    assert found.registry is not None
    assert (found.registry.kind, found.registry.repository) == ("harbor", "h.test/a/b")
    REGISTRIES.load("harbor").Settings.model_validate(found.registry.settings)
    assert found.registry.settings == {"project_quota": 3, "username": "u"}
    assert not PROVIDERS.load("harbor").capabilities.runtime


def test_init_writes_a_table_to_start_from(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    done = CliRunner().invoke(app, ["init", "--cloud", "ship", "--region", "south"])
    assert done.exit_code == 0, done.output
    entry = load_project(folder).entry("shop")
    assert entry is not None
    assert entry.value == {"ship": "YOUR_SHIP", "size": "large", "region": "south"}
    with pytest.raises(ConfigurationError, match="ship is «YOUR_SHIP»"):
        resolve(load_project(folder), "shop")
    schema = json.loads((folder / ".helix" / "helix.schema.json").read_text())
    told = schema["$defs"]["CloudTable"]["properties"]["ship"]
    assert told["properties"]["ship"]["description"] == "Its name."


def test_a_broken_package_is_named_and_harms_nobody_else(folder: Path) -> None:
    text = '[cloud.a.docker]\nimage = "x"\n[cloud.b.half]\n[cloud.c.gone]\n'
    (folder / "helix.toml").write_text(HEAD + text)
    project = load_project(folder)
    assert resolve(project, "a").target.kind == "docker"
    found = {entry.name: [str(one) for one in entry.errors] for entry in project.instances}
    assert "«half» of acme-kinds 1.2 is not complete: it lacks current, destroy" in found["b"][0]
    assert "«gone» of acme-kinds 1.2 cannot be loaded: ModuleNotFoundError" in found["c"][0]


def test_a_kind_of_ours_cannot_be_replaced(installed: Path) -> None:
    assert PROVIDERS.load("docker").__module__ == "providers.docker"
    assert "docker" not in plugins.kinds()


def test_two_packages_with_one_kind_are_refused(installed: Path) -> None:
    install(installed, "other_ships", "[helix.providers]\nship = acme_kinds:Ship\n")
    catalog.plugins.cache_clear()
    with pytest.raises(ConfigurationError, match=r"acme-kinds 1\.2 and other-ships 1\.2"):
        PROVIDERS.load("ship")


def test_a_kind_that_is_not_installed_says_what_to_do() -> None:
    with pytest.raises(ConfigurationError, match="install the package that brings it"):
        PROVIDERS.load("zeppelin")


EXAMPLE = Path(__file__).parents[2] / "examples" / "provider-container"


def test_the_example_imports_nothing_of_ours_but_the_public_package() -> None:
    ours = {"cli", "workflows", "activities", "providers", "registries", "builders", "project"}
    ours |= {"model", "ledger", "worker", "tests", "scripts"}
    for file in EXAMPLE.rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text())):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            assert not {name.partition(".")[0] for name in names} & ours, file


def test_the_code_of_the_page_stands_in_the_example() -> None:
    page = (EXAMPLE.parents[1] / "docs" / "writing-a-provider.md").read_text()
    written = "".join(file.read_text() for file in EXAMPLE.rglob("*.py"))
    blocks = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    assert len(blocks) > 5
    for block in blocks:
        assert block in written, block
    (package,) = [
        block for block in re.findall(r"```toml\n(.*?)```", page, re.DOTALL) if "container" in block
    ]
    assert package in (EXAMPLE / "pyproject.toml").read_text()
