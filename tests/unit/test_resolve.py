"""From helix.toml to an instance: defaults per kind, names, and what [deploy] puts over them."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from model.errors import ConfigurationError, NotFound
from model.instance import Approval, Guidance, Instance, ObjectStorage, Step
from project.load import load_project
from project.problems import ConfigErrors
from project.resolve import resolve


def instance(folder: Path, text: str, name: str = "dev") -> Instance:
    """An instance of a project with this file."""
    (folder / "helix.toml").write_text(text)
    return resolve(load_project(folder), name)


@pytest.fixture
def v2(tmp_path: Path) -> Path:
    """A folder with HelixDB v2 queries."""
    (tmp_path / "db" / "deep").mkdir(parents=True)
    (tmp_path / "db" / "deep" / "schema.hx").write_text("N::A { x: I64 }")
    return tmp_path


HEAD = '[project]\nname = "shop"\n'


def test_a_local_helixdb_v2_is_where_the_old_cli_put_it(v2: Path) -> None:
    found = instance(v2, HEAD + "[local.dev]\nport = 7000\n")
    assert found.target.kind == "local"
    assert (found.host, found.project_dir) == (socket.gethostname(), str(v2))
    assert (found.build.kind, found.build_mode) == ("helix", "dev")
    assert (found.port, found.publish) == (7000, 7000)
    assert found.env == {
        "HELIX_PORT": "7000",
        "HELIX_DATA_DIR": "/data",
        "HELIX_INSTANCE": "dev",
        "HELIX_PROJECT": "shop",
    }
    (volume,) = found.volumes
    assert (volume.path, volume.mount) == (str(v2 / ".helix" / ".volumes" / "dev"), "/data")
    assert (found.health_check.kind, found.health_check.path) == ("http", "/introspect")
    assert found.stop_first
    assert found.registry is None


@pytest.mark.parametrize("port", ["", "port = 0\n"])
def test_without_a_port_it_is_6969(v2: Path, port: str) -> None:
    assert instance(v2, HEAD + "[local.dev]\n" + port).publish == 6969


def test_windows_paths_in_queries_are_found(tmp_path: Path) -> None:
    (tmp_path / "src" / "q").mkdir(parents=True)
    (tmp_path / "src" / "q" / "a.hx").write_text("N::A { x: I64 }")
    found = instance(tmp_path, "[project]\nname = \"shop\"\nqueries = '.\\src\\q'\n[local.dev]\n")
    assert found.build.kind == "helix"


@pytest.mark.parametrize(
    ("kind", "table", "mode"),
    [
        ("local", "[local.dev]\n", "dev"),
        ("docker", "[cloud.dev.docker]\n", "release"),
        (
            "fly",
            '[cloud.dev.fly]\nvm_size = "a10"\nvolume_initial_size = 1\nauth_type = "Cli"\n',
            "release",
        ),
    ],
)
def test_build_modes_have_the_old_defaults(v2: Path, kind: str, table: str, mode: str) -> None:
    found = instance(v2, HEAD + table)
    assert (found.target.kind, found.build_mode) == (kind, mode)


def test_a_fly_volume_is_derived_when_it_is_not_named(v2: Path) -> None:
    text = (
        '[project]\nname = "book_shop"\n[cloud.my-edge.fly]\nvm_size = "a10"\n'
        'volume_initial_size = 7\nauth_type = "Cli"\n'
    )
    (volume,) = instance(v2, text, "my-edge").volumes
    assert (volume.name, volume.mount, volume.size_gb) == (
        "helix_book_shop_my_edge_data",
        "/data",
        7,
    )


def test_a_local_helixdb_v3_is_the_prebuilt_image(tmp_path: Path) -> None:
    found = instance(tmp_path, HEAD + '[local.dev]\nstorage = "disk"\n')
    assert (found.build.kind, found.build.image) == ("image", "ghcr.io/helixdb/helixdb:v0.0.4")
    assert (found.port, found.publish) == (8080, 6969)
    assert found.health_check.path == "/readyz"
    assert found.env["HELIX_DATA_DIR"] == found.volumes[0].mount


def test_v3_storage_in_a_bucket_is_set_by_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "x")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY", raising=False)
    monkeypatch.delenv("AWS_SESSION_TOKEN", raising=False)
    found = instance(
        tmp_path,
        HEAD + '[local.dev]\nimage = "i"\ntag = "t"\nstorage = "s3"\n'
        's3 = { bucket = "b", prefix = "/p", endpoint_url = "http://m", allow_http = true }\n',
    )
    assert found.build.image == "i:t"
    assert found.env == {
        "S3_BUCKET": "b",
        "S3_REGION": "us-east-1",
        "DB_PATH": "p/",
        "AWS_ENDPOINT": "http://m",
        "AWS_ALLOW_HTTP": "true",
    }
    assert found.secrets == {"AWS_ACCESS_KEY_ID": "env:AWS_ACCESS_KEY_ID"}
    assert found.volumes == ()


def test_v3_storage_that_v2_would_overlook_is_refused_where_it_counts(tmp_path: Path) -> None:
    with pytest.raises(ConfigErrors, match="storage"):
        instance(tmp_path, HEAD + '[local.dev]\nstorage = "dsik"\n')
    with pytest.raises(ConfigurationError, match="where"):
        instance(tmp_path, HEAD + '[local.dev]\nstorage = "s3"\n')


def test_a_folder_with_a_dockerfile_is_a_container(tmp_path: Path) -> None:
    (tmp_path / "Dockerfile").write_text("FROM scratch\n")
    found = instance(tmp_path, HEAD + "[local.dev]\nport = 7000\n")
    assert (found.build.kind, found.port, found.publish) == ("dockerfile", 8080, 7000)
    assert (found.env, found.volumes, found.build_mode) == ({}, (), "")


def test_deploy_goes_over_the_defaults_key_by_key(tmp_path: Path) -> None:
    found = instance(
        tmp_path,
        HEAD
        + """
[cloud.dev.docker]
host = "ssh://me@box:22"
port = 80
publish = 8081
volume = "data:/data"

[deploy]
env = { A = "1", B = "1" }
registry = "127.0.0.1:5000/shop"
keep_releases = 9
build = { dockerfile = "docker/Dockerfile", args = { X = "1" } }
health_check = { path = "/a", timeout = 1 }
steps.push = { attempts = 7 }

[deploy.dev]
env = { B = "2" }
secrets = { C = "env:C" }
command = "run --fast 'a b'"
volumes = ["cache:/cache", { mount = "/data", name = "better", size_gb = 3 }]
health_check = { timeout = "1500ms", deadline = "2m" }
stop_grace = "1m"
strategy = "start-first"

[deploy.dev.build]
target = "small"
args = { Y = "2" }

[deploy.dev.steps.health-check]
deadline = "5m"
""",
    )
    assert found.target.settings == {"host": "ssh://me@box:22"}
    assert (found.port, found.publish, found.host) == (80, 8081, "")
    assert found.env == {"A": "1", "B": "2"}
    assert found.secrets == {"C": "env:C"}
    assert found.command == ("run", "--fast", "a b")
    assert [(v.name, v.mount, v.size_gb) for v in found.volumes] == [
        ("cache", "/cache", 0),
        ("better", "/data", 3),
    ]
    assert found.registry is not None
    assert (found.registry.kind, found.registry.repository) == ("oci", "127.0.0.1:5000/shop")
    assert (found.keep_releases, found.stop_grace, found.strategy) == (9, 60, "start-first")
    assert (found.build.dockerfile, found.build.target) == ("docker/Dockerfile", "small")
    assert found.build.args == {"X": "1", "Y": "2"}
    check = found.health_check
    assert (check.path, check.timeout, check.deadline) == ("/a", 1.5, 120)
    assert found.steps[Step.PUSH].attempts == 7
    assert found.steps[Step.HEALTH_CHECK].deadline == 300


def test_a_relative_folder_is_the_projects_for_a_local_instance(tmp_path: Path) -> None:
    (tmp_path / "Dockerfile").write_text("FROM scratch\n")
    found = instance(tmp_path, HEAD + '[local.dev]\n[deploy.dev]\nvolumes = ["./data:/data"]\n')
    assert found.volumes[0].path == str(tmp_path / "data")


def test_a_registry_table_keeps_references_and_no_secrets(tmp_path: Path) -> None:
    (tmp_path / "Dockerfile").write_text("FROM scratch\n")
    found = instance(
        tmp_path,
        HEAD + '[local.dev]\n[deploy.registry]\nrepository = "r.example/s"\nusername = "u"\n'
        'password = "env:PW"\nca = "ca.pem"\n',
    )
    assert found.registry is not None
    assert found.registry.settings == {"username": "u", "password": "env:PW", "ca": "ca.pem"}


def test_a_kind_that_only_stores_images_is_its_own_registry(tmp_path: Path) -> None:
    (tmp_path / "Dockerfile").write_text("FROM scratch\n")
    found = instance(
        tmp_path,
        HEAD + '[cloud.dev.ghcr]\nrepository = "ghcr.io/a/b"\npassword = "env:T"\n',
    )
    assert found.registry is not None
    assert (found.registry.kind, found.registry.repository) == ("ghcr", "ghcr.io/a/b")
    assert found.registry.settings == {"password": "env:T"}


def test_helix_cloud_gets_a_bundle_and_its_cluster(tmp_path: Path) -> None:
    found = instance(tmp_path, HEAD + '[cloud.dev.helix]\ncluster_id = "c"\nregion = "r"\n')
    assert found.build.kind == "bundle"
    assert found.target.settings == {"cluster_id": "c", "region": "r"}


@pytest.mark.parametrize("cluster", ["", "  ", "YOUR_CLUSTER_ID"])
def test_a_placeholder_stops_a_push_before_anything_happens(tmp_path: Path, cluster: str) -> None:
    with pytest.raises(ConfigurationError, match="no cluster yet"):
        instance(tmp_path, HEAD + f'[cloud.dev.helix]\ncluster_id = "{cluster}"\n')


def test_a_local_instance_wins_over_one_of_the_same_name(tmp_path: Path) -> None:
    text = HEAD + '[cloud.dev.helix]\ncluster_id = "c"\n[local.dev]\n'
    assert instance(tmp_path, text).target.kind == "local"


def test_instances_come_in_the_files_order(tmp_path: Path) -> None:
    (tmp_path / "helix.toml").write_text(
        HEAD + '[cloud.z.helix]\ncluster_id = "c"\n[local.y]\n[cloud.a.docker]\n[local.b]\n'
    )
    names = [(each.name, each.is_local) for each in load_project(tmp_path).instances]
    assert names == [("z", False), ("y", True), ("a", False), ("b", True)]


def test_a_wrong_instance_leaves_the_others_usable(tmp_path: Path) -> None:
    (tmp_path / "helix.toml").write_text(HEAD + "[local.dev]\n[cloud.prod.fly]\nregion = 1\n")
    project = load_project(tmp_path)
    assert resolve(project, "dev").name == "dev"
    with pytest.raises(ConfigErrors) as caught:
        resolve(project, "prod")
    assert len(caught.value.problems) == 4


def test_an_unknown_name_gets_the_nearest_one(tmp_path: Path) -> None:
    with pytest.raises(NotFound, match="did you mean «dev»"):
        instance(tmp_path, HEAD + "[local.dev]\n", "dve")


def test_nothing_to_run_says_what_to_add(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="Dockerfile"):
        instance(tmp_path, HEAD + "[cloud.dev.docker]\n")


def test_the_file_is_found_from_a_folder_below(tmp_path: Path) -> None:
    (tmp_path / "helix.toml").write_text(HEAD + "[local.dev]\n")
    (tmp_path / "a" / "b").mkdir(parents=True)
    assert load_project(tmp_path / "a" / "b").path == tmp_path / "helix.toml"


def test_a_first_generation_project_is_told_to_migrate(tmp_path: Path) -> None:
    (tmp_path / "config.hx.json").write_text("{}")
    with pytest.raises(ConfigurationError, match="migrate"):
        load_project(tmp_path)


def test_a_file_that_is_wrong_as_a_whole_is_not_loaded(tmp_path: Path) -> None:
    (tmp_path / "helix.toml").write_text("[local.dev]\n")
    with pytest.raises(ConfigErrors, match=r"\[project\] is missing"):
        load_project(tmp_path)


def test_approval_may_be_a_word_a_table_and_taken_back(tmp_path: Path) -> None:
    text = HEAD + '[cloud.dev.docker]\nimage = "a:1"\n[deploy]\n{}\n[deploy.dev]\n{}\n'

    def approval(defaults: str, own: str) -> Approval | None:
        return instance(tmp_path, text.format(defaults, own)).approval

    assert approval("", "") is None
    assert approval("", "approval = true") == Approval()
    assert approval("approval = true", "approval = false") is None
    assert approval("approval = false", 'approval = {window = "2h"}') == Approval(window=7200)
    assert approval('approval = {by = ["ada@x"]}', 'approval = {otherwise = "approve"}') == (
        Approval(by=("ada@x",), otherwise="approve")
    )


def test_a_failed_step_is_rolled_back_or_a_person_is_asked(tmp_path: Path) -> None:
    text = HEAD + '[cloud.dev.docker]\nimage = "a:1"\n[deploy.dev]\nbake = "5m"\n{}\n'

    def guidance(own: str) -> Guidance | None:
        found = instance(tmp_path, text.format(own))
        assert found.bake == 300
        return found.guidance

    assert guidance("") is None and guidance('on_failure = "roll-back"') is None
    assert guidance('on_failure = "ask"') == Guidance(window=1800)
    assert guidance('on_failure = {window = "10m"}') == Guidance(window=600)


@pytest.mark.parametrize(
    ("wrong", "key"),
    [
        ('approval = "yes"', "deploy.dev.approval"),
        ('approval = {otherwise = "maybe"}', "deploy.dev.approval.otherwise"),
        ("approval = {window = 0}", "deploy.dev.approval.window"),
        ('approval = {by = "ada"}', "deploy.dev.approval.by"),
        ('on_failure = "retry"', "deploy.dev.on_failure"),
        ('bake = "soon"', "deploy.dev.bake"),
    ],
)
def test_a_wrong_word_about_people_is_named(tmp_path: Path, wrong: str, key: str) -> None:
    text = HEAD + f'[cloud.dev.docker]\nimage = "a:1"\n[deploy.dev]\n{wrong}\n'
    with pytest.raises(ConfigErrors) as refused:
        instance(tmp_path, text)
    assert refused.value.problems[0].key.startswith(key)


V3 = 'image = "ghcr.io/helixdb/helixdb:v0.0.4"\n'


def test_object_storage_is_told_to_a_helixdb_of_any_kind(tmp_path: Path) -> None:
    found = instance(
        tmp_path,
        HEAD + f'[cloud.dev.aws]\nregion = "eu-west-1"\n{V3}'
        '[deploy.dev]\nobject_storage = "acme-data"\n',
    )
    assert found.object_storage == ObjectStorage(bucket="acme-data", region="eu-west-1")
    told = {"S3_BUCKET": "acme-data", "S3_REGION": "eu-west-1", "DB_PATH": "db/"}
    assert (found.env, found.secrets, found.volumes) == (told, {}, ())
    assert found.stop_first and found.health_check.path == "/readyz"


def test_object_storage_of_google_cloud_is_reached_by_its_own_address(tmp_path: Path) -> None:
    found = instance(
        tmp_path,
        HEAD + f'[cloud.dev.gcp]\nproject_id = "p"\nregion = "europe-west1"\n{V3}'
        '[deploy.dev.object_storage]\nbucket = "acme-data"\nprefix = "/live"\n'
        'access_key = "env:HMAC_ID"\nsecret_key = "env:HMAC_SECRET"\n',
    )
    assert found.env == {
        "S3_BUCKET": "acme-data",
        "S3_REGION": "auto",
        "DB_PATH": "live/",
        "AWS_ENDPOINT": "https://storage.googleapis.com",
    }
    assert found.secrets == {
        "AWS_ACCESS_KEY_ID": "env:HMAC_ID",
        "AWS_SECRET_ACCESS_KEY": "env:HMAC_SECRET",
    }
    assert found.object_storage is not None and found.object_storage.endpoint_url == ""


def test_object_storage_elsewhere_is_the_persons_own(tmp_path: Path) -> None:
    found = instance(
        tmp_path,
        HEAD + f"[cloud.dev.docker]\n{V3}"
        '[deploy.dev.object_storage]\nbucket = "b"\nendpoint_url = "http://minio:9000"\n'
        "allow_http = true\n",
    )
    assert (found.env["AWS_ENDPOINT"], found.env["AWS_ALLOW_HTTP"]) == ("http://minio:9000", "true")
    assert found.object_storage is not None
    assert found.object_storage.endpoint_url == "http://minio:9000"


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ('object_storage = { bucket = "b", access_key = "env:A" }\n', "half of a key"),
        ('object_storage = "b"\nenv = { HELIX_DATA_DIR = "/d" }\n', "HELIX_DATA_DIR"),
        ('object_storage = "b"\nbuild = { kind = "helix" }\n', "only a HelixDB v3"),
    ],
)
def test_object_storage_that_cannot_work_is_refused(tmp_path: Path, more: str, said: str) -> None:
    with pytest.raises(ConfigurationError, match=said):
        instance(tmp_path, HEAD + f"[cloud.dev.docker]\n{V3}[deploy.dev]\n{more}")
