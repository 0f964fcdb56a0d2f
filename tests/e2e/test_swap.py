"""Ten redeploys under a steady loop of requests drop none; a database loses nothing."""

from __future__ import annotations

from pathlib import Path

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
