"""Checks of a helix.toml that reads well: what a platform refuses, what would lose data."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from project.checks import check, deployable
from project.document import parse
from project.load import understand
from project.problems import ConfigErrors, Problem

ROOT = Path(__file__).parent.parent.parent

PROJECT = '[project]\nname = "shop"\n'
HELIX = '[deploy.build]\nimage = "ghcr.io/helixdb/helixdb:v0.0.4"\n'
OTHER = '[deploy.build]\nimage = "nginx"\n'
FLY = 'vm_size = "a10"\nvolume = "v:/data"\nvolume_initial_size = 1\nauth_type = "Cli"\n'


def found(text: str, code: str, folder: Path = Path("/none")) -> list[Problem]:
    """The problems of one code."""
    document = parse((PROJECT + text).encode(), folder / "helix.toml")
    return [problem for problem in check(understand(document)) if problem.code == code]


def severities(text: str, code: str) -> list[str]:
    """How bad the problems of one code are."""
    return [problem.severity for problem in found(text, code)]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (f"[cloud.{'x' * 21}.fly]\n{FLY}", []),
        (f"[cloud.{'x' * 22}.fly]\n{FLY}", ["error"]),
        (f"[cloud.Prod.fly]\n{FLY}", ["error"]),
        (f"[cloud.my_prod.fly]\n{FLY}", ["error"]),
        ("[local.Dev]\n", ["warning"]),
        ("[local.dev]\n", []),
        (f"[local.{'x' * 300}]\n", ["error"]),
        (
            '[cloud.i.ecr]\nrepository_name = "Shop"\nregion = "r"\nauth_type = "AwsCli"\n',
            ["error"],
        ),
        ('[cloud.i.ecr]\nrepository_name = "a/b-c"\nregion = "r"\nauth_type = "AwsCli"\n', []),
        ('[cloud.i.ecr]\nrepository_name = "r"\nregion = "r"\nauth_type = "AwsCli"\n', ["warning"]),
        (OTHER + "[local.dev]\n[local.Dev]\n", ["error", "warning"]),
    ],
)
def test_names_are_held_to_the_limits_of_their_platform(text: str, expected: list[str]) -> None:
    assert severities(text, "name") == expected


def test_a_fly_app_that_exists_already_keeps_its_long_name(tmp_path: Path) -> None:
    name = "x" * 30
    (tmp_path / ".helix" / name).mkdir(parents=True)
    (tmp_path / ".helix" / name / "fly.toml").write_text("")
    assert [p.severity for p in found(f"[cloud.{name}.fly]\n{FLY}", "name", tmp_path)] == [
        "warning"
    ]


def test_an_underscore_in_the_projects_name_is_no_problem_on_fly() -> None:
    text = f'[project]\nname = "book_shop"\n[cloud.edge.fly]\n{FLY}'
    assert [p for p in check(understand(parse(text.encode()))) if p.code == "name"] == []


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("[local.a]\nport = 1\n[local.b]\nport = 1\n", ["warning"]),
        ("[local.a]\n[local.b]\nport = 6969\n", ["warning"]),
        ("[local.a]\nport = 1\n[local.b]\nport = 2\n", []),
        (OTHER + "[cloud.a.docker]\npublish = 80\n[cloud.b.docker]\npublish = 80\n", ["error"]),
        (OTHER + "[local.a]\nport = 80\n[cloud.b.docker]\npublish = 80\n", ["error"]),
        (
            OTHER + '[cloud.a.docker]\npublish = 80\n[cloud.b.docker]\nhost = "ssh://h"\n'
            "publish = 80\n",
            [],
        ),
        ("[deploy]\npublish = 80\n" + OTHER + "[cloud.a.docker]\n[cloud.b.docker]\n", ["error"]),
    ],
)
def test_two_instances_on_one_engine_cannot_have_one_port(text: str, expected: list[str]) -> None:
    assert severities(text, "duplicate-port") == expected


def test_a_volume_of_two_instances_is_refused() -> None:
    both = '[cloud.a.docker]\nvolume = "data:/a"\n[cloud.b.docker]\nvolume = "data:/b"\n'
    (problem,) = found(OTHER + both, "shared-volume")
    assert (problem.severity, problem.key) == ("error", "cloud.b.docker")
    apart = both.replace("[cloud.b.docker]", '[cloud.b.docker]\nhost = "ssh://h"')
    assert found(OTHER + apart, "shared-volume") == []


def test_two_volumes_at_one_mount_are_refused() -> None:
    text = '[local.dev]\n[deploy.dev]\nvolumes = ["a:/data", "b:/data/"]\n' + OTHER
    (problem,) = found(text, "duplicate-mount")
    assert (problem.severity, problem.key) == ("error", "deploy.dev.volumes")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("[local.dev]\n", ["warning"]),
        ('[local.dev]\nstorage = "disk"\n', []),
        ("[local.dev]\n[deploy.dev]\nthrow_away = true\n", []),
        (HELIX + "[cloud.p.docker]\n", ["error"]),
        (HELIX + '[cloud.p.docker]\nvolume = "d:/var/lib/helix"\n', ["error"]),
        (HELIX + '[cloud.p.docker]\n[deploy.p]\nenv = { HELIX_DATA_DIR = "/data" }\n', ["error"]),
        (
            HELIX + '[cloud.p.docker]\nvolume = "d:/data"\n'
            '[deploy.p]\nenv = { HELIX_DATA_DIR = "/data" }\n',
            [],
        ),
        (HELIX + '[cloud.p.docker]\n[deploy.p]\nenv = { S3_BUCKET = "b" }\n', []),
        (HELIX + "[cloud.p.docker]\n[deploy.p]\nthrow_away = true\n", []),
        (OTHER + "[cloud.p.docker]\n", []),
    ],
)
def test_a_helixdb_that_forgets_is_found(text: str, expected: list[str]) -> None:
    assert severities(text, "memory-only") == expected


SHARED = (
    OTHER
    + "[cloud.p.docker]\n[cloud.q.docker]\n[cloud.r.docker]\n"
    + "".join(f'[deploy.{name}]\nvolumes = ["/srv/data:/data"]\n' for name in "pq")
)


@pytest.mark.parametrize(
    ("text", "name", "codes"),
    [
        (HELIX + "[cloud.p.docker]\n", "p", ["memory-only"]),
        (HELIX + "[cloud.p.docker]\n[deploy.p]\nthrow_away = true\n", "p", []),
        (HELIX + "[cloud.p.docker]\n[cloud.q.docker]\n[deploy.q]\nthrow_away = true\n", "q", []),
        (HELIX + "[local.p]\n", "p", []),
        (SHARED, "p", ["shared-volume"]),
        (SHARED, "q", ["shared-volume"]),
        (SHARED, "r", []),
    ],
)
def test_nothing_is_deployed_that_would_cost_data(text: str, name: str, codes: list[str]) -> None:
    project = understand(parse((PROJECT + text).encode(), Path("/none/helix.toml")))
    try:
        assert deployable(project, name).name == name
        refused: list[str] = []
    except ConfigErrors as errors:
        refused = [problem.code for problem in errors.problems]
    assert refused == codes


@pytest.mark.parametrize(
    "words", [("push", "p"), ("plan", "p"), ("schedule", "add", "p", "--cron=@daily")]
)
def test_a_command_that_would_deploy_it_changes_nothing(
    words: tuple[str, ...], tmp_path: Path
) -> None:
    (tmp_path / "helix.toml").write_text(PROJECT + HELIX + "[cloud.p.docker]\n")
    state = tmp_path / "state"
    done = subprocess.run(
        [sys.executable, "-m", "cli", *words],
        cwd=tmp_path,
        env={**os.environ, "HELIX_STATE_DIR": str(state), "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 2
    assert "loses it" in done.stderr and "throw_away = true" in done.stderr
    assert not (state / "server.json").exists()


@pytest.mark.parametrize(
    ("kind", "shape"),
    [
        ("ecr", "<account>.dkr.ecr.<region>.amazonaws.com/<name>"),
        ("ghcr", "ghcr.io/<owner>/<name>"),
        ("gar", "<location>-docker.pkg.dev/<project>/<repository>/<name>"),
        ("acr", "<registry>.azurecr.io/<name>"),
    ],
)
def test_a_registry_without_a_repository_is_found_at_its_line(kind: str, shape: str) -> None:
    text = OTHER + f'[cloud.p.docker]\n[deploy.p.registry]\nkind = "{kind}"\n'
    (problem,) = found(text, "repository")
    assert (problem.severity, problem.key, problem.line) == ("error", "deploy.p.registry.kind", 7)
    assert f'repository = "{shape}"' in problem.fix
    assert found(text + 'repository = "a/b"\n', "repository") == []
    assert found(OTHER + "[cloud.p.docker]\n", "repository") == []


AZURE = (
    '[cloud.p.azure]\nsubscription_id = "s"\nresource_group = "g"\nlocation = "westeurope"\n'
    'image = "ghcr.io/helixdb/helixdb:v0.0.4"\n'
)
ELSEWHERE = ('bucket = "…"', 'endpoint_url = "https://…"', "access_key", "secret_key", "env:…")


def test_where_no_bucket_is_made_a_database_is_told_which_keys_to_write() -> None:
    (azure,) = found(AZURE, "memory-only")
    assert azure.severity == "error"
    assert all(one in azure.fix for one in ("[deploy.p.object_storage]", *ELSEWHERE))
    (amazon,) = found(HELIX + '[cloud.p.aws]\nregion = "eu-west-1"\n', "memory-only")
    assert 'object_storage = "<bucket>"' in amazon.fix


def test_a_bucket_that_nothing_on_azure_opens_is_refused() -> None:
    text = OTHER + AZURE + '[deploy.p]\nobject_storage = "acme"\n'
    (problem,) = found(text, "storage-key")
    assert (problem.severity, problem.key) == ("error", "deploy.p.object_storage")
    assert "Blob Storage" in problem.message
    assert all(one in problem.fix for one in ("[deploy.p.object_storage]", *ELSEWHERE))
    keys = 'bucket = "acme"\naccess_key = "env:A"\nsecret_key = "env:B"\n'
    assert found(OTHER + AZURE + f"[deploy.p.object_storage]\n{keys}", "storage-key") == []
    assert found(OTHER + AZURE, "storage-key") == []


def test_secret_references_must_lead_somewhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("TEMPORAL_ADDRESS", raising=False)
    monkeypatch.delenv("TEMPORAL_PROFILE", raising=False)
    monkeypatch.setenv("HAVE", "x")
    (tmp_path / ".env").write_text("IN_FILE=x\n")
    (tmp_path / "key").write_text("x")
    text = (
        "[local.dev]\n[deploy.dev.secrets]\n"
        'A = "env:HAVE"\nB = "env:HAVE_NOT"\nC = "hunter2"\nD = "env:IN_FILE"\n'
        f'E = "file:{tmp_path}/key"\nF = "file:{tmp_path}/none"\nG = "vault:kv/shop#x"\n'
        '[deploy.build.secrets]\ntoken = "evn:X"\n'
    )
    problems = {p.key: p for p in found(text, "secret", tmp_path)}
    assert set(problems) == {
        "deploy.dev.secrets.B",
        "deploy.dev.secrets.C",
        "deploy.dev.secrets.F",
        "deploy.build.secrets.token",
    }
    assert {problem.severity for problem in problems.values()} == {"error"}
    assert "hunter2" not in str(problems["deploy.dev.secrets.C"])
    monkeypatch.setenv("TEMPORAL_ADDRESS", "temporal.example:7233")
    problems = {p.key: p for p in found(text, "secret", tmp_path)}
    assert problems["deploy.dev.secrets.B"].severity == "warning"
    assert problems["deploy.dev.secrets.C"].severity == "error"


def test_what_v3_does_to_the_file_is_said() -> None:
    assert severities(f"[cloud.p.fly]\n{FLY}", "v3-refuses") == ["warning"]
    assert severities(f"[local.dev]\n[cloud.p.fly]\n{FLY}", "v3-drops") == ["warning"]
    assert found("[local.dev]\n", "v3-drops") == []


def test_a_placeholder_is_named_before_a_push_meets_it() -> None:
    (problem,) = found('[cloud.p.helix]\ncluster_id = "YOUR_CLUSTER_ID"\n', "placeholder")
    assert (problem.severity, problem.key) == ("warning", "cloud.p.helix.cluster_id")


def test_a_local_name_hides_the_one_elsewhere() -> None:
    (problem,) = found('[local.p]\n[cloud.p.helix]\ncluster_id = "c"\n', "same-name")
    assert problem.key == "cloud.p.helix"
