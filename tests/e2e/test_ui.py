"""A person opens the link that push printed, in a browser, and can read why it failed."""

from __future__ import annotations

import re

import pytest

from tests.e2e.machine import ROOT, Project
from tests.services.browser import browser, keep

pytestmark = pytest.mark.engine


def test_the_page_of_a_failed_deployment_says_why_and_what_to_do(project: Project) -> None:
    project.behave("1", "exits")
    said = project.push(expect=3).text
    found = re.search(r"http://\S+/namespaces/\S+/history", said)
    assert found is not None
    with browser() as page:
        page.open(found[0])
        page.wait_for(
            "Failed",
            "deploy: the release did not start: exited with code 3",  # the step, and what happened
            "cannot go on: the schema is missing",  # the container's last word
            "read its output: helix logs dev",  # what to do
            "rolled back: release removed",  # what it is like now
            "wait until release 1 runs",  # an activity, by its summary
            "push of",  # the run, by its own
        )
        keep(page, ROOT / "docs" / "images" / "ui-failed-deployment.png")
