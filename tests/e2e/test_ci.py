"""The CI integrations, run step by step as their runners would, against a real stack."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import tempfile
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
import yaml

from tests.e2e.machine import ROOT, Machine, Project, clean_up, make_project
from tests.services.registry import TestRegistry

TOKEN, COMMENT_TOKEN = "canary-request-token-1f7a", "canary-comment-token-88c2"
LEFT_OUT = shutil.ignore_patterns(".*", "build", "*.egg-info", "__pycache__", "tests")


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What a runner has of us: installing from it leaves things behind."""
    folder = tmp_path_factory.mktemp("checkout") / "helix-deploy"
    shutil.copytree(ROOT, folder, ignore=LEFT_OUT)
    return folder


@dataclass
class Hub:
    """What GitHub offers a job over HTTP: tokens, and comments."""

    url: str = ""
    audiences: list[str] = field(default_factory=list)
    comments: list[str] = field(default_factory=list)


@pytest.fixture
def hub() -> Iterator[Hub]:
    told = Hub()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            assert self.headers["Authorization"] == f"Bearer {TOKEN}"
            (audience,) = parse_qs(urlsplit(self.path).query)["audience"]
            told.audiences.append(audience)
            self._answer({"value": f"canary-jwt-for-{audience}"})

        def do_POST(self) -> None:
            assert self.headers["Authorization"] == f"Bearer {COMMENT_TOKEN}"
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            told.comments.append(body["body"])
            self._answer({})

        def _answer(self, document: dict[str, Any]) -> None:
            self.send_response(200)
            self.end_headers()
            self.wfile.write(json.dumps(document).encode())

        def log_message(self, *_: Any) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        told.url = f"http://127.0.0.1:{server.server_port}"
        yield told
        server.shutdown()


@dataclass
class Runner:
    """As much of GitHub's runner as our composite action uses."""

    checkout: Path
    folder: Path
    project: Project
    hub: Hub
    inputs: dict[str, str]
    log: str = ""
    failed: bool = False
    outputs: dict[str, dict[str, str]] = field(default_factory=dict)
    env: dict[str, str] = field(default_factory=dict)
    path: list[str] = field(default_factory=list)

    @property
    def action(self) -> Path:
        return self.checkout / "integrations" / "github"

    def run(self) -> None:
        action = yaml.safe_load((self.action / "action.yml").read_text())
        defaults = {name: str(one.get("default", "")) for name, one in action["inputs"].items()}
        assert set(self.inputs) <= set(defaults)
        self.inputs = defaults | self.inputs
        for step in action["runs"]["steps"]:
            always = "always()" in step.get("if", "")
            if "comment" in step.get("if", "") and not self.inputs["comment"]:
                continue
            if not self.failed or always:
                self._step(step)

    def _step(self, step: dict[str, Any]) -> None:
        files = {name: self.folder / name.lower() for name in ("GITHUB_ENV", "GITHUB_PATH")}
        files |= {
            "GITHUB_OUTPUT": self.folder / f"output-{step.get('id', 'none')}",
            "GITHUB_STEP_SUMMARY": self.folder / "summary.md",
        }
        for file in files.values():
            file.touch()
        env = {
            **self.project.machine.environ(),
            "PATH": os.pathsep.join([*reversed(self.path), os.environ["PATH"]]),
            "RUNNER_TEMP": str(self.folder),
            "GITHUB_ACTIONS": "true",
            "GITHUB_ACTOR": "ada",
            "GITHUB_REPOSITORY": "acme/shop",
            "GITHUB_RUN_ID": "7",
            "GITHUB_SERVER_URL": "https://github.com",
            "ACTIONS_ID_TOKEN_REQUEST_URL": f"{self.hub.url}/token",
            "ACTIONS_ID_TOKEN_REQUEST_TOKEN": TOKEN,
            **{name: str(file) for name, file in files.items()},
            **self.env,
            **{name: self._filled(text) for name, text in step.get("env", {}).items()},
        }
        env.pop("PYTHONPATH")  # the installed package is to be used
        done = subprocess.run(
            ["bash", "--noprofile", "--norc", "-eo", "pipefail", "-c", self._filled(step["run"])],
            cwd=self._filled(step.get("working-directory", ".")),
            env=env,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=280,
        )
        self.log += done.stdout
        self.failed |= done.returncode != 0
        self.env |= _pairs(files["GITHUB_ENV"])
        self.path = files["GITHUB_PATH"].read_text().split()
        if "id" in step:
            self.outputs[step["id"]] = _pairs(files["GITHUB_OUTPUT"])

    def _filled(self, text: str) -> str:
        def value(found: re.Match[str]) -> str:
            match found[1].strip().split("."):
                case ["inputs", name]:
                    return self.inputs[name]
                case ["github", "action_path"]:
                    return str(self.action)
                case ["github", "event", "pull_request", "comments_url"]:
                    return f"{self.hub.url}/comments"
                case ["steps", step, "outputs", name]:
                    return self.outputs.get(step, {}).get(name, "")
                case other:
                    raise AssertionError(f"the runner does not know {other}")

        return re.sub(r"\$\{\{(.*?)\}\}", value, text)


def _pairs(file: Path) -> dict[str, str]:
    return dict(line.split("=", 1) for line in file.read_text().splitlines() if line)


@pytest.fixture
def project(registry: TestRegistry) -> Iterator[Project]:
    """On a machine of its own: the job's installation is another than that of these tests."""
    with tempfile.TemporaryDirectory(prefix="hx") as home:
        machine = Machine(Path(home), env={"REGISTRY_PASSWORD": registry.password})
        project = make_project(machine, registry)
        yield project
        clean_up(project)
        machine.helix("down", expect=None)


def test_the_github_action_deploys_and_posts_the_result(
    checkout: Path, tmp_path: Path, project: Project, hub: Hub
) -> None:
    project.behave("from-ci")
    asked = {
        "folder": str(project.folder),
        "reason": "a commit's «message»; $(touch never)",
        "aws-role": "arn:aws:iam::123456789012:role/deploy",
        "google-audience": "//iam.googleapis.com/projects/1/locations/global/x",
        "azure-client": "c1",
        "azure-tenant": "t1",
        "comment": COMMENT_TOKEN,
    }
    runner = Runner(checkout, tmp_path, project, hub, asked)
    runner.run()
    assert not runner.failed, runner.log
    outputs = runner.outputs["push"]
    assert (outputs["outcome"], outputs["release"]) == ("succeeded", "1")
    assert outputs["url"] == project.url
    assert project.version() == "from-ci"
    record = project.history()[0]
    assert record["deployment"] == outputs["deployment"]
    assert not (project.folder / "never").exists(), "what people write is no shell code"

    summary = (tmp_path / "summary.md").read_text()
    assert f"## {project.name}/dev" in summary and "| ✓ | health-check |" in summary
    (comment,) = hub.comments
    assert f"Release 1 is running at {project.url}." in comment

    # The identities are there, in files of the job alone, and nowhere else.
    assert len(hub.audiences) == 3
    for cloud in ("aws", "google", "azure"):
        file = tmp_path / f"{cloud}.jwt"
        assert file.read_text().startswith("canary-jwt-for-")
        assert file.stat().st_mode & 0o077 == 0
    assert runner.env["AWS_WEB_IDENTITY_TOKEN_FILE"] == str(tmp_path / "aws.jwt")
    config = json.loads(Path(runner.env["GOOGLE_APPLICATION_CREDENTIALS"]).read_text())
    assert config["credential_source"]["file"] == str(tmp_path / "google.jwt")
    assert "canary" not in runner.log + summary + comment + json.dumps(runner.env)

    # A release that turns out bad fails the job, and says so everywhere.
    project.behave("bad", "broken")
    again = Runner(checkout, tmp_path, project, hub, asked)
    again.path = runner.path
    again.run()
    assert again.failed
    assert again.outputs["push"]["outcome"] == "rolled-back"
    assert project.version() == "from-ci"
    assert "rolled-back" in hub.comments[-1]
    assert "**failed** at health-check" in (tmp_path / "summary.md").read_text()


def test_the_gitlab_template_deploys_and_tells_the_environments_address(
    checkout: Path, tmp_path: Path, project: Project
) -> None:
    project.behave("from-gitlab")
    (job,) = yaml.safe_load(
        (checkout / "integrations" / "gitlab" / "helix-push.yml").read_text()
    ).values()
    root = tmp_path / "builds"
    root.mkdir()
    variables = job["variables"] | {
        "CI_PROJECT_DIR": str(root),
        "CI_COMMIT_TITLE": "a commit's «message»; $(touch never)",
        "HELIX_INSTANCE": "dev",
        "HELIX_FOLDER": str(project.folder),
        "HELIX_DEPLOY": str(checkout),
        "GITLAB_CI": "true",
        "CI_PROJECT_PATH": "acme/shop",
        "CI_JOB_ID": "9",
        "GITLAB_USER_LOGIN": "ada",
        "AWS_ROLE_ARN": "arn:aws:iam::123456789012:role/deploy",
        **{name: f"canary-{name}" for name in job["id_tokens"]},
    }
    env = project.machine.environ() | variables
    env.pop("PYTHONPATH")
    script = "\n".join([*job["before_script"], *job["script"]])
    done = subprocess.run(
        ["bash", "--noprofile", "--norc", "-eo", "pipefail", "-c", script],
        cwd=root, env=env, capture_output=True, text=True, stdin=subprocess.DEVNULL, timeout=280,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    values = _pairs(root / job["artifacts"]["reports"]["dotenv"])
    assert (values["outcome"], values["url"]) == ("succeeded", project.url)
    assert job["environment"]["url"] == "$url"
    (report,) = job["artifacts"]["paths"]
    assert "| ✓ | health-check |" in (root / report).read_text()
    assert project.version() == "from-gitlab"
    assert "canary" not in done.stdout + done.stderr
