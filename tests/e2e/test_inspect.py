"""What happened can be replayed, and taken along without a secret."""

from __future__ import annotations

import base64
import json
import shutil
import subprocess
import zipfile
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.machine import HELIX, ROOT, Machine, Project

pytestmark = pytest.mark.engine

CANARIES = ("canary-by-reference-71", "canary-in-plain-value-72", "ghp_" + "canary73" * 4)
"""A referenced secret's value, one written into helix.toml, and a token in the build's output."""


@pytest.fixture
def failed(projects: Callable[..., Project]) -> Project:
    """A project whose first deployment has failed, with secrets in every place they come from."""
    made = projects(
        deploy=f'env = {{ SHOP_PASSWORD = "{CANARIES[1]}" }}\n'
        'secrets = { SHOP_KEY = "env:SHOP_KEY" }\n'
    )
    made.machine.env["SHOP_KEY"] = CANARIES[0]
    dockerfile = made.folder / "Dockerfile"
    dockerfile.write_text(dockerfile.read_text() + f"RUN echo {CANARIES[2]} {CANARIES[0]}\n")
    made.behave("1", "exits")
    made.push(expect=3)
    return made


def with_another_activity(history: dict[str, Any]) -> dict[str, Any]:
    """The same history, as a version would have written it that builds in another way."""
    for event in history["events"]:
        scheduled = event.get("activityTaskScheduledEventAttributes")
        if scheduled and scheduled["activityType"]["name"] == "build":
            scheduled["activityType"]["name"] = "other_build"
    return history


def everything_in(bundle: zipfile.ZipFile) -> str:
    """All the text of a bundle, what is encoded in the history too."""
    parts = [bundle.read(name).decode() for name in bundle.namelist()]

    def payloads(value: Any) -> None:
        if isinstance(value, dict):
            if "data" in value and "metadata" in value:
                parts.append(base64.b64decode(value["data"]).decode(errors="replace"))
            for each in value.values():
                payloads(each)
        elif isinstance(value, list):
            for each in value:
                payloads(each)

    payloads(json.loads(bundle.read("history.json")))
    return "\n".join(parts)


def test_a_failed_deployment_replays_and_is_exported_without_secrets(
    failed: Project, tmp_path: Path
) -> None:
    assert "can carry it on" in failed.helix("replay", "dev").out

    path = tmp_path / "case.zip"
    failed.helix("export", "dev", "-o", str(path))
    assert path.stat().st_mode & 0o777 == 0o600
    with zipfile.ZipFile(path) as bundle:
        manifest = json.loads(bundle.read("manifest.json"))
        listed = manifest["files"]
        for name in set(bundle.namelist()) - {"manifest.json"}:
            assert listed.pop(name)["sha256"] == sha256(bundle.read(name)).hexdigest()
        assert listed == {}
        text = everything_in(bundle)
        events = json.loads(bundle.read("audit.json"))
        history = json.loads(bundle.read("history.json"))
        record = json.loads(bundle.read("deployment.json"))
        assert "app.py" in bundle.read("build.log").decode()
    assert [one for one in CANARIES if one in text] == []
    assert "env:SHOP_KEY" in text and "the schema is missing" in text
    assert {one["outcome"] for one in events} >= {"started", "rolled-back"}
    assert {one["deployment"] for one in events} == {record["deployment"]}

    # Anybody who has the file can replay it, at once and without a server.
    assert "can carry it on" in failed.helix("replay", str(path)).out
    other = tmp_path / "other.json"
    other.write_text(json.dumps(with_another_activity(history)))
    refused = failed.helix("replay", str(other), expect=1)
    assert "does not replay at event" in refused.err and "other_build" in refused.err

    history["events"][0]["workflowExecutionStartedEventAttributes"]["workflowType"]["name"] = (
        "Alien"
    )
    other.write_text(json.dumps(history))
    assert "Alien is not registered" in failed.helix("replay", str(other), expect=1).err


def test_a_file_that_is_no_history_is_named(failed: Project, tmp_path: Path) -> None:
    path = tmp_path / "none.json"
    path.write_text("{}")
    assert str(path) in failed.helix("replay", str(path), expect=2).err
    assert "helix export" in failed.helix("replay", "absent.zip", expect=2).err


def test_a_debugger_stops_in_the_middle_of_a_replay(
    machine: Machine, projects: Callable[..., Project], tmp_path: Path
) -> None:
    project = projects(registry=None)
    project.behave("1")
    project.push()
    # Somebody puts a breakpoint() into the code.
    copy = tmp_path / "workflows"
    shutil.copytree(ROOT / "workflows", copy)
    deploy = copy / "deploy.py"
    line = "        self._journal.ended(Outcome.SUCCEEDED)\n"
    assert deploy.read_text().count(line) == 1
    deploy.write_text(deploy.read_text().replace(line, f"        breakpoint()\n{line}"))
    done = subprocess.run(
        [*HELIX, "replay", "dev", "--debug"],
        cwd=project.folder,
        env=machine.environ() | {"PYTHONPATH": f"{tmp_path}:{ROOT}"},
        input="p 'it is', self._instance.key\nc\n",
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    assert f"('it is', '{project.name}/dev')" in done.stdout
    assert "can carry it on" in done.stdout
