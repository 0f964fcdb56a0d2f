"""helix init, add, set, remove, validate and config, as a person or a script runs them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result
from typer.testing import CliRunner

import cli.project
from cli.main import app
from project.document import read
from project.eras import ERAS, verdict

DATA = Path(__file__).parent.parent / "data" / "helix_toml"


@pytest.fixture(autouse=True)
def empty_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No credentials anywhere, and a project folder called shop."""
    (tmp_path / "shop").mkdir()
    monkeypatch.chdir(tmp_path / "shop")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    for name in (
        "FLY_API_TOKEN", "FLY_ACCESS_TOKEN", "AWS_ACCESS_KEY_ID", "AWS_PROFILE", "HELIX_HOME",
        "AWS_WEB_IDENTITY_TOKEN_FILE", "GOOGLE_APPLICATION_CREDENTIALS", "AZURE_CLIENT_ID",
        "KUBECONFIG", "TEMPORAL_ADDRESS", "TEMPORAL_PROFILE",
    ):  # fmt: skip
        monkeypatch.delenv(name, raising=False)


def helix(*words: str, exit: int = 0) -> Result:
    """Run a command and insist on its exit code."""
    cli.project._SAID.clear()  # every command is a process of its own
    result = CliRunner().invoke(app, list(words))
    assert result.exit_code == exit, result.output
    return result


def text() -> str:
    """The file as it is now."""
    return Path("helix.toml").read_bytes().decode()


def files() -> dict[str, bytes]:
    """Every file of the project."""
    return {str(p): p.read_bytes() for p in sorted(Path().rglob("*")) if p.is_file()}


# --- init ----------------------------------------------------------------------------------------


def test_init_makes_a_project_that_every_helixdb_cli_accepts() -> None:
    helix("init")
    document = read(Path("helix.toml"))
    assert document.data == {
        "project": {"name": "shop", "queries": "./db/"},
        "local": {"dev": {"port": 6969}},
    }
    assert not [era for era in ERAS.values() if verdict(document, era)]
    assert Path("db/schema.hx").read_text().count("N::")
    helix("validate")


@pytest.mark.parametrize(
    "words",
    [
        (),
        ("--cloud", "fly"),
        ("fly", "--name", "edge", "--vm-size", "performance-4x", "--volume-size", "40"),
        ("--cloud", "docker", "--name", "production"),
        ("ecr",),
        ("cloud", "--region", "eu-west-1"),
    ],
)
def test_doing_it_twice_changes_nothing(words: tuple[str, ...]) -> None:
    helix("init", *words)
    before = files()
    result = helix("init", *words)
    assert "nothing was changed" in result.output
    assert files() == before


def test_the_released_forms_write_what_they_always_wrote() -> None:
    helix("init", "fly", "--auth", "api_key", "--vm-size", "performance-4x", "--private")
    assert read(Path("helix.toml")).data["cloud"]["shop"]["fly"] == {
        "build_mode": "release",
        "vm_size": "performance-4x",
        "volume": "helix_shop_shop_data:/data",
        "volume_initial_size": 20,
        "private": True,
        "auth_type": "ApiKey",
    }
    helix("init", "ecr", "-n", "img")
    assert read(Path("helix.toml")).data["cloud"]["img"]["ecr"] == {
        "repository_name": "helix-shop-img",
        "region": "us-east-1",
        "auth_type": "AwsCli",
        "build_mode": "release",
    }
    helix("init", "cloud", "--region", "eu-west-1", "-n", "prod")
    assert read(Path("helix.toml")).data["cloud"]["prod"]["helix"] == {
        "cluster_id": "YOUR_CLUSTER_ID",
        "region": "eu-west-1",
        "build_mode": "release",
    }
    for era in ("v2.0", "v2.1", "v2.3"):
        assert verdict(read(Path("helix.toml")), ERAS[era]) == []


def test_options_may_come_before_the_form_and_name_another_folder(tmp_path: Path) -> None:
    helix("init", "--path", str(tmp_path / "new"), "-q", "src/q", "-t", "empty", "local")
    assert read(tmp_path / "new" / "helix.toml").data["project"] == {
        "name": "new",
        "queries": "src/q",
    }
    assert (tmp_path / "new" / "src" / "q" / "queries.hx").exists()


def test_a_path_may_be_given_plainly(tmp_path: Path) -> None:
    helix("init", str(tmp_path / "other"))
    assert (tmp_path / "other" / "helix.toml").exists()


def test_a_folder_with_a_dockerfile_gets_no_queries() -> None:
    Path("Dockerfile").write_text("FROM scratch\n")
    helix("init")
    assert read(Path("helix.toml")).data["project"] == {"name": "shop"}
    assert not Path("db").exists()


def test_v3_options_are_understood() -> None:
    helix("init", "local", "--port", "7000", "--storage-uri", "s3://bucket/a", "--s3-allow-http")
    assert read(Path("helix.toml")).data["local"]["dev"] == {
        "port": 7000,
        "storage": "s3",
        "s3": {"bucket": "bucket", "prefix": "a/", "allow_http": True},
    }
    assert verdict(read(Path("helix.toml")), ERAS["v3"]) == []


def test_gitignore_is_appended_to(tmp_path: Path) -> None:
    Path(".gitignore").write_bytes(b"node_modules\r\n.env")
    helix("init")
    content = Path(".gitignore").read_bytes()
    assert content == b"node_modules\r\n.env\r\n.helix/\r\ntarget/\r\n*.log\r\n"


def test_an_instance_name_asks_which_cloud_and_elsewhere_lists_the_choices() -> None:
    result = helix("init", "--cloud", "dev", exit=2)
    assert "kubernetes" in result.output
    assert not Path("helix.toml").exists()


def test_an_instance_name_takes_the_only_cloud_with_credentials(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("FLY_API_TOKEN", "x")
    helix("init", "--cloud", "dev")
    data = read(Path("helix.toml")).data
    assert list(data["cloud"]["dev"]) == ["fly"]
    assert "local" not in data  # a local «dev» would hide it
    before = files()
    monkeypatch.setenv("AWS_PROFILE", "x")
    helix("init", "--cloud", "dev")
    assert files() == before
    assert "aws, " in helix("init", "--cloud", "other", exit=2).output.replace("fly, ", "")


def test_editors_find_the_schema() -> None:
    helix("init")
    first = text().splitlines()[0]
    place = first.removeprefix("#:schema ")
    assert json.loads(Path(place).read_text())["title"] == "helix.toml"


# --- add, set, remove ----------------------------------------------------------------------------

ODD = (
    "\ufeff# the shop\r\n[project]\r\nname = 'shop' # ours\r\nmystery = 1\r\n\r\n"
    "[local.dev]\r\nport = 6969\r\n\r\n# for customers\r\n[extra]\r\nx = { y = 1 }\r\n"
)


def test_add_and_remove_leave_every_other_byte() -> None:
    Path("helix.toml").write_bytes(ODD.encode())
    helix("add", "fly", "--name", "edge", "--region", "ams")
    assert text().startswith(ODD)
    assert "\n" not in text().replace("\r\n", "")
    assert "nothing was changed" in helix("add", "fly", "--name", "edge").output
    helix("set", "edge.keep_releases", "3")
    helix("remove", "edge")
    assert text() == ODD
    assert "nothing was changed" in helix("remove", "edge").output


def test_add_gives_a_file_without_instances_its_first_one() -> None:
    Path("helix.toml").write_text('[project]\nname = "shop"\n')
    helix("add", "local", "--name", "dev", "--port", "7000")
    assert text() == '[project]\nname = "shop"\n\n[local.dev]\nport = 7000\n'


def test_add_refuses_another_kind_under_a_taken_name() -> None:
    helix("init", "fly", "-n", "edge")
    assert "another kind" in helix("add", "docker", "--name", "edge", exit=2).output


def test_add_without_a_kind_lists_them() -> None:
    helix("init")
    assert "kubernetes" in helix("add", exit=2).output
    assert "did you mean «docker»" in helix("add", "dokcer", exit=2).output


def test_set_finds_the_table_of_an_instances_key() -> None:
    helix("init", "fly", "-n", "edge")
    helix("set", "edge.region", "ams")
    helix("set", "edge.health_check.path", "/ok")
    helix("set", "cloud.edge.vm_size", "a10")
    helix("set", "dev.port", "7070")
    helix("set", "project.name", "5")
    data = read(Path("helix.toml")).data
    assert data["cloud"]["edge"]["fly"]["region"] == "ams"
    assert data["cloud"]["edge"]["fly"]["vm_size"] == "a10"
    assert data["deploy"]["edge"]["health_check"]["path"] == "/ok"
    assert data["local"]["dev"]["port"] == 7070
    assert data["project"]["name"] == "5"
    helix("set", "edge.region", "--unset")
    assert "region" not in read(Path("helix.toml")).data["cloud"]["edge"]["fly"]


def test_set_refuses_what_would_be_wrong_and_changes_nothing() -> None:
    helix("init", "fly", "-n", "edge")
    before = files()
    assert "performance-4x" in helix("set", "edge.vm_size", "huge", exit=2).output
    assert "whole number" in helix("set", "dev.port", "many", exit=2).output
    assert "did you mean «edge»" in helix("set", "egde.region", "x", exit=2).output
    helix("set", "dev", "1", exit=2)
    helix("set", "dev.port", exit=2)
    helix("set", "a b", "1", exit=2)
    assert files() == before


def test_remove_asks_which_of_two_of_one_name() -> None:
    Path("helix.toml").write_text(
        '[project]\nname = "s"\n[local.p]\n[cloud.p.helix]\ncluster_id = "c"\n[deploy.p]\n'
    )
    assert "--from" in helix("remove", "p", exit=2).output
    helix("remove", "p", "--from", "local")
    assert text() == '[project]\nname = "s"\n[cloud.p.helix]\ncluster_id = "c"\n[deploy.p]\n'


# --- validate ------------------------------------------------------------------------------------


def report(*words: str, exit: int = 0) -> Any:
    """What `helix validate --json` prints."""
    return json.loads(helix("validate", *words, "--json", exit=exit).stdout)


def test_validate_judges_as_any_era() -> None:
    file = str(DATA / "v2.0" / "A1.toml")
    for era, exit in {"v2.0": 0, "v2.1": 0, "v2.3": 2, "v3": 0}.items():
        helix("validate", file, "--strict", era, exit=exit)
    assert "known: v2.0" in helix("validate", file, "--strict", "v9", exit=2).output


def test_validate_gives_everything_as_data() -> None:
    Path("helix.toml").write_text('[project]\nname = "s"\n[local.dev]\nport = "1"\ncolour = 1\n')
    found = report(exit=2)
    assert (found["valid"], found["project"]) == (False, "s")
    assert found["instances"] == [{"name": "dev", "kind": "local", "valid": False}]
    assert found["helixdb_cli"]["v3"]["accepts"] is False
    errors = {p["key"]: p for p in found["problems"]}
    wrong = errors["local.dev.port"]
    assert (wrong["severity"], wrong["line"], wrong["column"]) == ("error", 4, 8)
    assert wrong["expected"].startswith("a whole number")
    assert wrong["file"] == str(Path("helix.toml").absolute())
    assert errors["local.dev.colour"]["severity"] == "warning"


def test_validate_reports_a_syntax_error_the_same_way() -> None:
    Path("helix.toml").write_text("[project\n")
    for words in ((), ("--strict", "v3")):
        (problem,) = report(*words, exit=2)["problems"]
        assert (problem["code"], problem["line"]) == ("syntax", 1)


def test_validate_takes_a_file_or_a_folder_and_leaves_no_trace_beside_a_file() -> None:
    Path("some.toml").write_text('[project]\nname = "s"\n[local.dev]\n')
    helix("validate", "some.toml")
    assert list(files()) == ["some.toml"]
    helix("validate", "none.toml", exit=2)
    helix("validate", str(Path.cwd()), exit=2)
    Path("some.toml").rename("helix.toml")
    helix("validate", str(Path.cwd()))


# --- config --------------------------------------------------------------------------------------

BEFORE = (
    '[project]\nname = "shop"\n\n# for developers\n[local.dev]\nport = 6969\nmine = "x"\n\n'
    '# for customers\n[cloud.edge.fly]\nvm_size = "a10" # large\nvolume = "v:/data"\n'
    'volume_initial_size = 1\nauth_type = "Cli"\n\n[deploy.edge]\nkeep_releases = 3\n'
)
REWRITTEN = (
    '[project]\nname = "shop"\nqueries = "db"\ncontainer_runtime = "docker"\n\n'
    '[local.dev]\nport = 7070\nimage = "i"\ntag = "t"\n\n[enterprise]\n'
)


def rewritten_by_v3() -> None:
    """A project that was seen here, and then rewritten by HelixDB's v3 CLI."""
    Path("helix.toml").write_text(BEFORE)
    helix("validate")
    Path("helix.toml").write_text(REWRITTEN)


def test_vanished_tables_are_noticed_until_they_are_back() -> None:
    rewritten_by_v3()
    for _ in range(2):
        output = helix("validate").output
        assert "[cloud.edge], [deploy.edge] were in helix.toml" in output
        assert "helix config restore" in output
    result = helix("config", "restore", exit=2)
    assert "+# for customers" in result.output
    assert text() == REWRITTEN
    helix("config", "restore", "--yes")
    assert "were in helix.toml" not in helix("validate").output
    assert text() == (
        '[project]\nname = "shop"\nqueries = "db"\ncontainer_runtime = "docker"\n\n'
        '# for developers\n[local.dev]\nport = 7070\nmine = "x"\nimage = "i"\ntag = "t"\n\n'
        '# for customers\n[cloud.edge.fly]\nvm_size = "a10" # large\nvolume = "v:/data"\n'
        'volume_initial_size = 1\nauth_type = "Cli"\n\n[deploy.edge]\nkeep_releases = 3\n'
        "\n[enterprise]\n"
    )
    assert "nothing has vanished" in helix("config", "restore", "--yes").output


def test_every_command_notices_what_vanished() -> None:
    rewritten_by_v3()
    assert "[cloud.edge], [deploy.edge] were in helix.toml" in helix("status").output


def test_one_may_agree_that_they_are_gone() -> None:
    rewritten_by_v3()
    helix("config", "accept")
    assert "were in helix.toml" not in helix("validate").output
    assert text() == REWRITTEN


def test_what_helix_itself_removes_has_not_vanished() -> None:
    helix("init", "fly", "-n", "edge")
    helix("remove", "edge")
    assert "gone" not in helix("validate").output


def test_a_broken_copy_or_a_read_only_folder_does_not_matter() -> None:
    helix("init")
    Path(".helix/helix.toml.seen").write_bytes(b"\xff[")
    helix("validate")
