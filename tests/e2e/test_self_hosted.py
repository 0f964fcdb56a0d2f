"""The self-hosted stack: brought up, pushed through, killed, brought up again with nothing lost."""

from __future__ import annotations

import base64
import json
import os
import ssl
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx
import pytest
from playwright.async_api import Locator, expect

from scripts.setup.shell import ROOT
from tests.e2e.machine import HELIX, Machine, Project, clean_up, eventually, make_project
from tests.e2e.runs import is_running, wait_for_activity
from tests.integration.test_codec_ui import browser, visit
from tests.services.need import program
from tests.services.stack import AS_USER, USER, Stack, give, stack
from tests.services.worker_image import built

pytestmark = [pytest.mark.engine, pytest.mark.timeout(600)]

SERVICE = "com.docker.compose.service"
GREETING = "seen-by-whoever-has-the-key"


@pytest.fixture(scope="module")
def running() -> Iterator[Stack]:
    """The stack, up."""
    with tempfile.TemporaryDirectory(prefix="hx") as folder, stack(Path(folder), built()) as made:
        made.up()
        yield made


@pytest.fixture(scope="module")
def machine(running: Stack) -> Iterator[Machine]:
    """Somebody on the stack's machine, who has sourced its file."""
    with tempfile.TemporaryDirectory(prefix="hx") as folder:
        give(Path(folder))
        yield Machine(Path(folder), env=running.env, command=[*AS_USER, *HELIX])


@pytest.fixture(scope="module")
def project(machine: Machine, running: Stack) -> Iterator[Project]:
    """A project whose first release was pushed through the stack."""
    made = make_project(machine, running.registry, deploy=f'env = {{ GREETING = "{GREETING}" }}')
    made.patience(40)
    made.push()
    yield made
    clean_up(made)


@pytest.fixture(scope="module")
def first(project: Project) -> str:
    """The deployment of the first release."""
    return [*ends(project)][-1]


def query(running: Stack, expression: str) -> list[dict[str, Any]]:
    """What Prometheus answers, asked as Grafana asks: by the data source that is provisioned."""
    answer = httpx.get(
        f"{running.url('GRAFANA')}/api/datasources/proxy/uid/prometheus/api/v1/query",
        params={"query": expression},
        auth=("admin", running.secret("grafana-password")),
        timeout=20,
    ).json()
    assert answer["status"] == "success", f"{expression}: {answer}"
    found: list[dict[str, Any]] = answer["data"]["result"]
    return found


def filled(expression: str) -> str:
    """A panel's expression as Grafana sends it."""
    for name, value in {"$__range": "1h", "$__rate_interval": "1m", "$namespace": ".*"}.items():
        expression = expression.replace(name, value)
    return expression


def history(running: Stack, project: Project, run: str) -> str:
    """A deployment's history as Temporal has it, by Temporal's own command."""
    words = ["workflow", "show", "--workflow-id", f"deploy:{project.name}/dev", "--run-id", run]
    words += ["--output", "json"]
    done = subprocess.run(
        [program("temporal", "temporal"), *words, "--address", running.env["TEMPORAL_ADDRESS"]],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def ends(project: Project) -> dict[str, str]:
    """How each deployment in the ledger has ended, by its id."""
    return {row["deployment"]: row["progress"]["outcome"] for row in project.history()}


def in_registry(running: Stack, project: Project) -> list[str]:
    """The tags of the project's repository in the stack's registry."""
    registry = running.registry
    answer = httpx.get(
        f"https://{registry.host}/v2/{project.name}/tags/list",
        auth=(str(registry.settings["username"]), registry.password),
        verify=ssl.create_default_context(cafile=str(registry.settings["ca"])),
        timeout=20,
    )
    assert answer.status_code == 200, answer.text
    tags: list[str] = answer.json()["tags"]
    return tags


def test_without_its_secrets_it_says_what_to_type(running: Stack, tmp_path: Path) -> None:
    nothing = Stack("", tmp_path, tmp_path / "env", {})
    nothing.env_file.touch()
    refused = nothing.compose("config")
    assert refused.returncode != 0
    assert "make stack-secrets" in refused.stderr


def test_no_worker_is_root_or_has_a_capability(running: Stack) -> None:
    workers = [one for one in running.containers() if one.labels[SERVICE].startswith("worker-")]
    assert len(workers) == 2
    for worker in workers:
        status = worker.exec_run(["cat", "/proc/1/status"]).output.decode()
        fields = dict(line.split(":\t", 1) for line in status.splitlines())
        assert fields["Uid"].split() == [str(USER)] * 4
        assert int(fields["CapEff"], 16) == int(fields["CapBnd"], 16) == 0


def test_a_release_is_pushed_through_it(running: Stack, project: Project) -> None:
    assert project.version() == "1"
    assert [*ends(project).values()] == ["succeeded"]
    assert in_registry(running, project)
    assert project.helix("logs", "dev", "--build").out  # the worker wrote it


def test_an_instance_of_this_machine_is_its_first_workers(machine: Machine, running: Stack) -> None:
    made = make_project(machine, None)
    toml = made.folder / "helix.toml"
    table = f"[local.dev]\nport = {made.port}"
    toml.write_text(toml.read_text().replace("[cloud.dev.docker]", table))
    try:
        made.push()
        assert made.version() == "1"
    finally:
        clean_up(made)


def test_it_is_seen_by_prometheus_grafana_and_the_collector(
    running: Stack, project: Project
) -> None:
    def up() -> dict[str, set[str]]:
        found: dict[str, set[str]] = {"0": set(), "1": set()}
        for one in query(running, "up"):
            found[one["value"][1]].add(one["metric"]["job"])
        return found

    everything = {"helix-worker", "temporal", "otel-collector", "prometheus"}
    eventually(lambda: up() == {"0": set(), "1": everything}, 60, "every target")
    succeeded = 'sum(helix_deployments_total{outcome="succeeded"}) >= 1'
    eventually(lambda: query(running, succeeded), 60, "the deployment's count")

    board = httpx.get(
        f"{running.url('GRAFANA')}/api/dashboards/uid/helix-deploy",
        auth=("admin", running.secret("grafana-password")),
    ).json()["dashboard"]
    expressions = [
        target["expr"] for panel in board["panels"] for target in panel.get("targets", ())
    ]
    assert len(expressions) > 5
    answered = [query(running, filled(one)) for one in expressions]
    assert any(answered), "no panel has data"

    def services() -> set[str]:
        attributes = [one["resource"]["attributes"] for one in running.spans()]
        pairs = {
            (one["key"], one["value"].get("stringValue")) for each in attributes for one in each
        }
        return {str(value) for key, value in pairs if key == "service.name"}

    eventually(lambda: services() == {"helix-cli", "helix-worker"}, 30, "the traces")


def test_what_is_in_the_history_is_read_through_the_codec_server_alone(
    running: Stack, project: Project, first: str
) -> None:
    shown = history(running, project, first)
    assert GREETING not in shown
    payload = json.loads(shown)["events"][0]["workflowExecutionStartedEventAttributes"]["input"]
    decode = f"{running.url('CODEC')}/decode"
    assert httpx.post(decode, json=payload).status_code == 401
    token = {"Authorization": f"Bearer {running.secret('codec-secret')}"}
    answer = httpx.post(decode, json=payload, headers=token)
    assert answer.status_code == 200, answer.text
    assert GREETING in base64.b64decode(answer.json()["payloads"][0]["data"]).decode()


async def test_the_ui_asks_the_codec_server_for_who_has_logged_in_there(
    running: Stack, project: Project, first: str
) -> None:
    workflow = quote(f"deploy:{project.name}/dev", safe="")
    url = f"{running.url('UI')}/namespaces/default/workflows/{workflow}/{first}/history"

    async def hides(body: Locator) -> None:
        await expect(body).to_contain_text("DeployWorkflow", timeout=15_000)
        await expect(body).not_to_contain_text(GREETING)

    async def asks(body: Locator) -> None:
        await expect(body).to_contain_text("Shared secret", timeout=15_000)

    async def shows(body: Locator) -> None:
        await expect(body).to_contain_text(GREETING, timeout=15_000)

    async with browser() as page:
        await visit(page, url, hides)
        await visit(page, running.url("CODEC"), asks)
        await page.get_by_label("Shared secret").fill(running.secret("codec-secret"))
        await page.get_by_role("button", name="Log in").click()
        await expect(page.locator("body")).to_contain_text("This browser may decode")
        await visit(page, url, shows)


def test_no_secret_is_where_others_can_look(running: Stack, project: Project) -> None:
    places = {
        "docker inspect": json.dumps([one.attrs for one in running.containers()]),
        "docker compose config": running.compose("config").stdout,
        "the logs": running.compose("logs").stdout,
        "the process list": subprocess.check_output(["ps", "-eo", "args"], text=True),
        "the traces": json.dumps(running.spans()),
        "the settings": running.env_file.read_text() + json.dumps(running.env),
        "the repository": subprocess.check_output(
            ["git", "-C", ROOT, "status", "--short"], text=True
        ),
    }
    found = [
        f"{name} is in {place}"
        for name, secret in running.secrets().items()
        for place, text in places.items()
        if secret in text
    ]
    assert not found
    if os.getuid() == 0:  # else nobody may look there
        assert in_environments(running) == {("temporal", "temporal-password")}
    assert all(len(secret) >= 24 for secret in running.secrets().values())
    loose = [
        file
        for file in (running.folder / "secrets").iterdir()
        if file.stat().st_mode & 0o077 or running.env_file.stat().st_mode & 0o077
    ]
    assert not loose


def in_environments(running: Stack) -> set[tuple[str, str]]:
    """Which service has which secret in its process's environment."""
    texts = {
        one.labels[SERVICE]: Path(f"/proc/{one.attrs['State']['Pid']}/environ").read_text()
        for one in running.containers(running=True)
    }
    return {
        (service, name)
        for name, secret in running.secrets().items()
        for service, text in texts.items()
        if secret in text
    }


def test_all_of_it_is_killed_in_mid_deployment_and_nothing_is_lost(
    running: Stack, machine: Machine, project: Project
) -> None:
    before, tags = ends(project), in_registry(running, project)
    histories = {run: history(running, project, run) for run in before}
    project.behave("2", slow_start=8)
    pushing = project.begin_push()
    wait_for_activity(machine, project, "check_health")

    running.kill()
    pushing.kill()
    pushing.communicate()
    assert not running.containers(running=True)
    assert project.version() == "1", "what ran before does not need the stack"

    running.up()
    eventually(lambda: not is_running(machine, project), 120, "the end of the deployment")
    assert project.version() == "2"
    after = ends(project)
    assert [*after.values()] == ["succeeded"] * (len(before) + 1)
    assert before.items() <= after.items()
    assert {run: history(running, project, run) for run in before} == histories
    assert set(tags) <= set(in_registry(running, project))

    project.behave("3")
    project.push()
    assert project.version() == "3"


def test_it_is_removed_with_all_its_data(running: Stack, project: Project) -> None:
    assert running.remains()
    running.down()
    assert running.remains() == []
    assert project.version(), "a release does not need the stack"
