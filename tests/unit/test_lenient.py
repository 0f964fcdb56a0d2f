"""The verdict without --strict, on every file there is, pinned with its reason."""

from __future__ import annotations

from pathlib import Path

import pytest

from project.checks import check
from project.document import parse, read
from project.eras import ERAS, verdict
from project.load import understand
from project.problems import ConfigErrors, Problem

DATA = Path(__file__).parent.parent / "data" / "helix_toml"
PINNED = [
    line.split("\t")
    for line in (DATA / "lenient.tsv").read_text().splitlines()
    if not line.startswith("#")
]


@pytest.fixture(autouse=True)
def nothing_beside_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file alone: what else is in the folder plays a part."""
    monkeypatch.chdir(tmp_path)


def problems_of(raw: bytes) -> list[Problem]:
    """Everything that is said of a file, syntax errors included."""
    try:
        return check(understand(parse(raw)))
    except ConfigErrors as errors:
        return list(errors.problems)


def codes(problems: list[Problem], severity: str) -> str:
    """The codes of one severity, as the table has them."""
    found = sorted({problem.code for problem in problems if problem.severity == severity})
    return ",".join(found) or "-"


def test_every_file_is_pinned() -> None:
    assert {row[0] for row in PINNED} == {
        str(file.relative_to(DATA)) for file in DATA.glob("*/*.toml")
    }


@pytest.mark.parametrize("row", PINNED, ids=lambda row: row[0])
def test_a_lenient_verdict_is_the_pinned_one(row: list[str]) -> None:
    file, valid, errors, warnings, reason = row
    problems = problems_of((DATA / file).read_bytes())
    assert codes(problems, "error") == errors, reason
    assert codes(problems, "warning") == warnings, reason
    assert (valid == "valid") == (errors == "-")


@pytest.mark.parametrize("row", PINNED, ids=lambda row: row[0])
def test_what_a_released_cli_accepts_is_valid(row: list[str]) -> None:
    try:
        document = read(DATA / row[0])
    except ConfigErrors:
        return
    if any(not verdict(document, era) for era in ERAS.values()):
        assert row[1] == "valid"


def test_a_value_that_only_v3_overlooks_is_an_error_beside_hx_files(tmp_path: Path) -> None:
    file = tmp_path / "helix.toml"
    file.write_text('[project]\nname = "s"\n[local.dev]\nbuild_mode = "prod"\n')
    assert codes(check(understand(read(file))), "error") == "-"
    (tmp_path / "db").mkdir()
    (tmp_path / "db" / "schema.hx").write_text("N::A { x: I64 }")
    (problem,) = [p for p in check(understand(read(file))) if p.severity == "error"]
    assert problem.key == "local.dev.build_mode"
    assert "release" in problem.expected


def test_all_problems_come_at_once_each_with_place_and_fix() -> None:
    text = (
        '[project]\nname = 5\ncolor = 1\n[local.dev]\nport = "6969"\n'
        "[cloud.prod.fyl]\n[deploy.prd]\n[deploy.dev]\nstrategi = 1\nkeep_releases = 0\n"
    )
    problems = problems_of(text.encode())
    found = {(p.severity, p.line, p.column, p.key, p.fix) for p in problems}
    assert found >= {
        ("error", 2, 8, "project.name", 'put it in quotes: "5"'),
        ("warning", 3, 1, "project.color", ""),
        ("error", 5, 8, "local.dev.port", "write it without quotes: 6969"),
        ("error", 6, 13, "cloud.prod.fyl", "did you mean [cloud.prod.fly]?"),
        ("warning", 7, 9, "deploy.prd", "did you mean «prod»?"),
        ("warning", 9, 1, "deploy.dev.strategi", "did you mean «strategy»?"),
        ("error", 10, 17, "deploy.dev.keep_releases", ""),
    }


def test_each_old_spelling_is_read_and_named() -> None:
    text = (
        '[project]\nname = "s"\n[cloud.a.Ecr]\nrepository_name = "ab"\nregion = "r"\n'
        'auth_type = "aws_cli"\n[cloud.b.FlyIo]\nvm_size = "a10"\nvolume_initial_size = 1\n'
        'auth_type = "api_key"\nprivacy = "Public"\n[cloud.c.Helix]\ncluster_id = "x"\n'
    )
    project = understand(parse(text.encode()))
    assert [(entry.name, entry.kind) for entry in project.instances] == [
        ("a", "ecr"),
        ("b", "fly"),
        ("c", "helix"),
    ]
    fly = project.instances[1].table
    assert fly is not None
    assert (fly.auth_type, fly.private) == ("ApiKey", False)  # type: ignore[attr-defined]
    fixes = {p.fix for p in project.all_problems() if p.code == "deprecated-spelling"}
    assert {'write auth_type = "AwsCli"', "write [cloud.b.fly]", "write private"} <= fixes
