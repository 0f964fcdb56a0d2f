"""Ten redeploys under a steady loop of requests drop none; a database loses nothing."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import httpx
import pytest

from tests.e2e.machine import Project
from tests.services.traffic import traffic

pytestmark = pytest.mark.engine

STATEFUL = Path(__file__).parent.parent.parent / "examples" / "stateful"
SWAPS = 10


@pytest.mark.parametrize("method", ["GET", "POST"])
def test_ten_redeploys_without_a_volume_drop_no_request(project: Project, method: str) -> None:
    project.behave("0", slow=0.05)
    project.push()
    with traffic(project.url, method=method) as seen:
        for version in range(1, SWAPS + 1):
            project.behave(str(version), slow=0.05)
            project.push()
    assert seen.failed == []
    assert seen.requests > 100 and seen.seen('"0"') and seen.seen(f'"{SWAPS}"')


def test_ten_redeploys_of_a_database_lose_no_write_and_drop_no_request(
    projects: Callable[..., Project],
) -> None:
    """Redis, every write on disk before it is answered, its lock telling whether two ever met."""
    project = projects(
        source=STATEFUL, deploy='volumes = ["NAME-data:/data"]\n[deploy.dev.env]\nSWAP = "0"'
    )
    toml = project.folder / "helix.toml"
    toml.write_text(toml.read_text().replace('path = "/"', 'path = "/healthz"'))
    toml.write_text(toml.read_text().replace("NAME-data", f"{project.name}-data"))
    project.push()
    with traffic(f"{project.url}/counters/visits", method="POST") as seen:
        for swap in range(1, SWAPS + 1):
            text = toml.read_text()
            toml.write_text(text.replace(f'SWAP = "{swap - 1}"', f'SWAP = "{swap}"'))
            project.push()
    assert seen.failed == []
    acknowledged = sum(seen.answers.values())
    assert acknowledged > 100
    # Every answer is another number, and the counter stands where the last answer left it.
    assert len(seen.answers) == acknowledged
    kept = int(httpx.get(f"{project.url}/counters/visits").text)
    assert kept == acknowledged == max(int(answer) for answer in seen.answers)
    assert httpx.get(f"{project.url}/opened-twice").text.strip() == "0"

    # The data outlives the instance, until somebody says otherwise.
    project.helix("destroy", "dev", "--yes")
    project.push()
    assert int(httpx.get(f"{project.url}/counters/visits").text) == kept
    project.helix("destroy", "dev", "--data", "--yes")
    project.push()
    assert httpx.get(f"{project.url}/counters/visits").text.strip() in {"0", ""}


def test_another_projects_volume_is_refused(projects: Callable[..., Project]) -> None:
    one, other = projects(), projects()
    for project in (one, other):
        toml = project.folder / "helix.toml"
        toml.write_text(
            toml.read_text().replace(
                "stop_grace = 3", f'stop_grace = 3\nvolumes = ["{one.name}-data:/data"]'
            )
        )
    one.behave("1")
    one.push()
    one.helix("destroy", "dev", "--yes")
    other.behave("1")
    result = other.push(expect=3)
    assert f"{one.name}/dev" in result.text and "volume" in result.text
    assert other.containers() == []
