"""What docker-compose.yml promises, and the secrets and settings that it is given."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml

from cli.temporal import SEARCH_ATTRIBUTES
from scripts.setup import stack as programs
from scripts.setup.shell import ROOT
from scripts.stack import prepare

TEXT = (ROOT / "docker-compose.yml").read_text()
SERVICES: dict[str, Any] = yaml.safe_load(TEXT)["services"]
ONCE = {"databases", "temporal-schema", "temporal-namespace"}
WORKERS = ("worker-1", "worker-2")


@pytest.fixture
def engine_socket(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An engine's, as far as this is about its address."""
    import socket

    path = tmp_path / "s"
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
    monkeypatch.setenv("DOCKER_HOST", f"unix://{path}")
    return path


def test_its_images_are_those_that_the_set_up_has() -> None:
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    worker = f"${{STACK_WORKER_IMAGE:-helix-deploy/worker:{version}}}"
    assert {one["image"] for one in SERVICES.values()} == {*programs.IMAGES, worker}


@pytest.mark.parametrize("name", sorted(set(SERVICES) - ONCE))
def test_what_runs_long_is_restarted_watched_and_waited_for(name: str) -> None:
    service = SERVICES[name]
    assert service["restart"] == "unless-stopped"
    assert service["healthcheck"]["interval"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    for port in service.get("ports", ()):
        assert port.startswith("${STACK_ADDRESS}:")


def test_nothing_waits_without_saying_for_what() -> None:
    for name, service in SERVICES.items():
        for other, how in service.get("depends_on", {}).items():
            wanted = "service_completed_successfully" if other in ONCE else "service_healthy"
            assert how == {"condition": wanted}, f"{name} waits for {other}"


def test_prometheus_looks_where_the_workers_are() -> None:
    jobs = yaml.safe_load((ROOT / "stack/prometheus.yml").read_text())["scrape_configs"]
    targets = next(one for one in jobs if one["job_name"] == "helix-worker")["static_configs"]
    ports = [
        SERVICES[name]["environment"]["HELIX_METRICS_ADDRESS"].split(":")[1] for name in WORKERS
    ]
    expected = [f"{name}:{port}" for name, port in zip(WORKERS, ports, strict=True)]
    assert targets == [{"targets": expected}]


def test_its_namespace_has_the_search_attributes_that_commands_set() -> None:
    script = (ROOT / "stack/temporal/namespace.sh").read_text()
    assert f"for name in {' '.join(SEARCH_ATTRIBUTES)}; do" in script


def test_no_secret_is_in_an_environment() -> None:
    values = {
        str(value)
        for service in SERVICES.values()
        for name, value in service.get("environment", {}).items()
        if re.search("PASSWORD|SECRET|KEY", name)
    }
    assert values
    assert all("/run/secrets/" in value for value in values)


def test_every_setting_and_secret_is_made(tmp_path: Path, engine_socket: Path) -> None:
    prepare(tmp_path / "stack", tmp_path / "env")
    made = set(re.findall(r"^(STACK_\w+)=", (tmp_path / "env").read_text(), re.MULTILINE))
    assert set(re.findall(r"\$\{(STACK_\w+)(?::\?[^}]*)?\}", TEXT)) == made
    for path in re.findall(r"\$\{STACK_DIR\}/([\w./-]+)", TEXT):
        assert (tmp_path / "stack" / path).exists(), path


def test_secrets_are_for_their_owner_alone_and_made_once(
    tmp_path: Path, engine_socket: Path
) -> None:
    env = tmp_path / "env"
    prepare(tmp_path / "stack", env)
    files = [file for file in (tmp_path / "stack").rglob("*") if file.is_file()]
    before = {file: file.read_bytes() for file in [*files, env]}
    assert len(before) > 12
    assert {file.stat().st_mode & 0o777 for file in before} == {0o600}
    assert (tmp_path / "stack").stat().st_mode & 0o777 == 0o700

    prepare(tmp_path / "stack", env)
    assert {file: file.read_bytes() for file in before} == before


def test_a_persons_settings_stay_and_new_ones_are_added(
    tmp_path: Path, engine_socket: Path
) -> None:
    env = tmp_path / "env"
    env.write_text("# mine\nSTACK_TEMPORAL_PORT=17233\n")
    prepare(tmp_path / "stack", env)
    text = env.read_text()
    assert text.startswith("# mine\nSTACK_TEMPORAL_PORT=17233\n")
    assert text.count("STACK_TEMPORAL_PORT") == 1
    assert "STACK_UI_PORT=8233" in text
    client = (tmp_path / "stack" / "client.env").read_text()
    assert "TEMPORAL_ADDRESS=127.0.0.1:17233" in client


def test_each_stack_has_passwords_of_its_own(tmp_path: Path, engine_socket: Path) -> None:
    for name in ("a", "b"):
        prepare(tmp_path / name, tmp_path / f"{name}.env")
    for file in (tmp_path / "a" / "secrets").iterdir():
        assert file.read_bytes() != (tmp_path / "b" / "secrets" / file.name).read_bytes()


def test_temporal_finds_a_name_for_whoever_it_runs_as(tmp_path: Path, engine_socket: Path) -> None:
    for user, last in (
        ("0:0", "root:x:0:0::/tmp:/bin/sh"),
        ("501:20", "helix:x:501:20::/tmp:/bin/sh"),
    ):
        env = tmp_path / f"{user}.env"
        prepare(tmp_path / user, env, {"STACK_USER": user})
        assert (tmp_path / user / "passwd").read_text().splitlines()[-1] == last
