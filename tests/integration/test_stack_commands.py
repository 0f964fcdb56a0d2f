"""up, down, worker and doctor, as a person types them."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from temporalio.client import Client

from tests.services.need import program
from tests.services.registry import secured_registry

HELIX = [sys.executable, "-m", "cli"]


class Shell:
    """A person's shell with a state folder of its own."""

    def __init__(self, home: Path) -> None:
        kept = {k: v for k, v in os.environ.items() if not k.startswith(("TEMPORAL_", "HELIX_"))}
        self.home = home
        self.env = kept | {
            "HELIX_STATE_DIR": str(home / "state"),
            "XDG_CONFIG_HOME": str(home / "config"),
            "NO_COLOR": "1",
        }

    def helix(self, *words: str, expect: int = 0, **env: str) -> subprocess.CompletedProcess[str]:
        """Run it to its end."""
        done = subprocess.run(
            [*HELIX, *words],
            cwd=self.home,
            env=self.env | env,
            capture_output=True,
            text=True,
            timeout=120,
            stdin=subprocess.DEVNULL,
        )
        assert done.returncode == expect, done.stdout + done.stderr
        return done

    def findings(self, *words: str, expect: int = 0, **env: str) -> dict[str, dict[str, str]]:
        """What the doctor finds, by what it is about."""
        answer = json.loads(self.helix("doctor", *words, "--json", expect=expect, **env).stdout)
        assert answer["well"] is (expect == 0)
        return {one["what"]: one for one in answer["findings"]}


@pytest.fixture
def shell(tmp_path: Path) -> Iterator[Shell]:
    program("temporal", "temporal")
    person = Shell(tmp_path)
    yield person
    person.helix("down")


def address(client: Client) -> str:
    return str(client.service_client.config.target_host)


def test_up_is_mended_by_up_and_ended_by_down(shell: Shell) -> None:
    first = shell.helix("up")
    assert first.stderr.count("starting the embedded stack") == 1
    assert len(first.stderr.splitlines()) == 1
    known = json.loads(shell.helix("up", "--json").stdout)
    assert known["embedded"] and not known["started"]
    well = shell.findings()
    assert well["Temporal"]["state"] == well["worker"]["state"] == "ok"

    os.kill(known["worker"]["pid"], signal.SIGKILL)
    time.sleep(0.2)
    ill = shell.findings(expect=1)
    assert (ill["worker"]["state"], ill["worker"]["hint"]) == ("problem", "mend it: helix up")
    mended = json.loads(shell.helix("up", "--json").stdout)
    assert mended["worker"]["pid"] != known["worker"]["pid"]
    assert mended["server"]["pid"] == known["server"]["pid"]

    assert json.loads(shell.helix("down", "--json").stdout) == {"stopped": True}
    assert "did not run" in shell.helix("down").stdout


def test_the_doctor_finds_nothing_wrong_with_a_stack_that_does_not_run(shell: Shell) -> None:
    found = shell.findings()
    assert found["Temporal"]["state"] == "note"
    assert "helix up" in found["Temporal"]["hint"]
    assert {"Python", "settings", "engine", "builder", "edge image", "ledger", "disk"} <= set(found)


def test_the_doctor_names_what_is_wrong_and_what_to_type(shell: Shell) -> None:
    found = shell.findings(
        expect=1,
        TEMPORAL_ADDRESS="127.0.0.1:1",
        HELIX_LEDGER_URL="postgresql://u:hunter2@127.0.0.1:1/x",
        DOCKER_HOST="unix:///nowhere.sock",
        HELIX_TASK_QUEU="typo",
    )
    problems = {what for what, one in found.items() if one["state"] == "problem"}
    assert problems == {"Temporal", "ledger", "engine"}
    assert all(one["hint"] for one in found.values() if one["state"] == "problem")
    assert "hunter2" not in json.dumps(found)
    assert found["settings"]["hint"] == "did you mean HELIX_TASK_QUEUE?"
    text = shell.helix("doctor", expect=1, TEMPORAL_ADDRESS="127.0.0.1:1").stdout
    assert "PROBLEM" in text and "nothing listens there" in text


def test_the_doctor_asks_an_instances_platform_and_registry(shell: Shell, tmp_path: Path) -> None:
    with secured_registry(tmp_path / "registry") as registry:
        settings: dict[str, Any] = registry.settings | {"password": "env:REGISTRY_PASSWORD"}
        lines = [f"{key} = {json.dumps(value)}" for key, value in settings.items()]
        (tmp_path / "Dockerfile").write_text("FROM scratch\n")
        (tmp_path / "helix.toml").write_text(
            '[project]\nname = "shop"\n[cloud.dev.docker]\npublish = 18999\n[deploy.dev.registry]\n'
            f'repository = "{registry.host}/shop"\n' + "\n".join(lines)
        )
        well = shell.findings("dev", REGISTRY_PASSWORD=registry.password)
        assert {well[f"dev: {one}"]["state"] for one in ("secrets", "platform", "registry")} == {
            "ok"
        }
        ill = shell.findings("dev", expect=1, REGISTRY_PASSWORD="canary-wrong")
        assert ill["dev: registry"]["state"] == "problem"
        assert registry.host in ill["dev: registry"]["text"]
        assert "canary" not in json.dumps(ill)
        missing = shell.findings("dev", expect=1)
        assert "REGISTRY_PASSWORD" in missing["dev: registry"]["text"]
    assert shell.findings("dve", expect=1)["dve"]["state"] == "problem"


def test_a_worker_needs_a_temporal_that_is_configured(shell: Shell) -> None:
    assert "TEMPORAL_ADDRESS" in shell.helix("worker", expect=2).stderr
    assert (
        "nothing listens" in shell.helix("worker", expect=6, TEMPORAL_ADDRESS="127.0.0.1:1").stderr
    )


def well(shell: Shell, env: dict[str, str]) -> bool:
    """Whether the doctor finds nothing wrong."""
    asked = [*HELIX, "doctor", "--json"]
    return (
        subprocess.run(asked, cwd=shell.home, env=shell.env | env, capture_output=True).returncode
        == 0
    )


def test_a_worker_takes_work_until_it_is_told_to_stop(shell: Shell, temporal: Client) -> None:
    env = {"TEMPORAL_ADDRESS": address(temporal), "HELIX_TASK_QUEUE": "long-lived"}
    assert shell.findings(expect=1, **env)["worker"]["state"] == "problem"
    worker = subprocess.Popen(
        [*HELIX, "worker"],
        cwd=shell.home,
        env=shell.env | env | {"HELIX_LOG_FORMAT": "json"},
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        deadline = time.monotonic() + 60
        while not (found := list((shell.home / "state").glob("health-*.json"))):
            assert worker.poll() is None and time.monotonic() < deadline
            time.sleep(0.1)
        port = json.loads(found[0].read_text())["port"]
        assert httpx.get(f"http://127.0.0.1:{port}/readyz").json()["task_queue"] == "long-lived"
        # It says that it is ready a moment before its first poll reaches the server.
        while not well(shell, env):
            assert worker.poll() is None and time.monotonic() < deadline
        assert shell.findings(**env)["worker"]["state"] == "ok"
        worker.send_signal(signal.SIGTERM)
        _, said = worker.communicate(timeout=60)
    finally:
        worker.kill()
        worker.wait()
    assert worker.returncode == 0
    assert all(json.loads(line)["message"] for line in said.splitlines())
    assert not list((shell.home / "state").glob("health-*.json"))
