"""What one instance runs is deployed to another: the same digest, and nothing is built."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import docker
import httpx
import pytest

from tests.e2e.machine import Project
from tests.services.registry import TestRegistry, free_port, secured_registry

pytestmark = pytest.mark.engine


def add_prod(project: Project, registry: TestRegistry | None, **secrets: str) -> str:
    """Give the project a second instance, `prod`. Returns where it serves."""
    port = free_port()
    lines = [
        "[cloud.prod.docker]",
        f"publish = {port}",
        "[deploy.prod]",
        'env = { GREETING = "from prod" }',
        "stop_grace = 3",
        'health_check = { path = "/", deadline = 6 }',
    ]
    if registry is not None:
        settings = registry.settings | secrets
        lines += ["[deploy.prod.registry]", f'repository = "{registry.host}/other/{project.name}"']
        lines += [f"{key} = {json.dumps(value)}" for key, value in settings.items()]
    toml = project.folder / "helix.toml"
    toml.write_text(toml.read_text() + "\n".join(lines) + "\n")
    return f"http://127.0.0.1:{port}"


def promoted(project: Project) -> dict[str, Any]:
    """Promote, and see that nothing was built. Returns the deployment as the ledger has it."""
    events = project.helix("promote", "dev", "prod", "--json").events
    steps = {(one["step"], one["state"]) for one in events if one["event"] == "step"}
    assert ("build", "skipped") in steps and ("health-check", "done") in steps
    found = project.helix("history", "prod", "--json").document["deployments"][0]
    assert (found["request"]["trigger"], found["progress"]["outcome"]) == ("promote", "succeeded")
    return dict(found)


def image_of(deployment: dict[str, Any]) -> dict[str, str]:
    image: dict[str, str] = deployment["progress"]["artifact"]["image"]
    return image


def test_an_image_goes_from_registry_to_registry(project: Project, tmp_path: Path) -> None:
    project.behave("1")
    project.push()
    (from_dev,) = project.history()
    with secured_registry(tmp_path) as other:
        # Another authority, and a password that only this reference leads to.
        project.machine.env["OTHER_PASSWORD"] = other.password
        url = add_prod(project, other, password="env:OTHER_PASSWORD")
        project.behave("2")  # what lies in the folder by now does not matter
        to_prod = promoted(project)
        assert image_of(to_prod)["digest"] == image_of(from_dev)["digest"]
        assert image_of(to_prod)["repository"] == f"{other.host}/other/{project.name}"
        assert httpx.get(url).json() == {"version": "1", "env": "from prod"}
        (app,) = [
            one
            for one in docker.from_env().containers.list()
            if one.name.startswith(f"helix-{project.name}-prod_app_")
        ]
        assert image_of(from_dev)["digest"] in app.attrs["Config"]["Image"]

        table = project.helix("history", "prod").out
        assert "promote from dev" in table
        # A release that was promoted can be gone back to, as any other can.
        project.push()
        project.helix("promote", "dev", "prod")
        assert httpx.get(url).json()["version"] == "2"
        project.helix("rollback", "--instance", "prod")
        assert httpx.get(url).json()["version"] == "1"


def test_without_a_registry_the_engine_they_share_has_the_image(
    projects: Callable[..., Project],
) -> None:
    project = projects(registry=None)
    project.behave("1")
    project.push()
    url = add_prod(project, None)
    to_prod = promoted(project)
    assert image_of(to_prod)["id"] == image_of(project.history()[0])["id"]
    assert httpx.get(url).json() == {"version": "1", "env": "from prod"}


def test_what_cannot_be_promoted_is_refused_before_anything_starts(
    projects: Callable[..., Project],
) -> None:
    project = projects(registry=None)
    add_prod(project, None)
    assert "helix push dev" in project.helix("promote", "dev", "prod", expect=2).err
    project.behave("1")
    project.push()
    assert "runs it already" in project.helix("promote", "dev", "dev", expect=2).err
    toml = project.folder / "helix.toml"
    toml.write_text(
        toml.read_text().replace(
            "[cloud.prod.docker]", '[cloud.prod.docker]\nhost = "tcp://127.0.0.1:9"'
        )
    )
    refused = project.helix("promote", "dev", "prod", expect=2)
    assert "[deploy.prod.registry]" in refused.err
    assert project.helix("history", "prod", "--json").document["deployments"] == []
