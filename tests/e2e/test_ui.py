"""The Temporal UI in a real browser tells what became of a deployment, and takes answers."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from urllib.parse import quote

import pytest
from playwright.sync_api import FrameLocator, Page, expect

from tests.e2e.machine import Project, eventually
from tests.e2e.test_people import asks
from tests.services.browser import SECONDS, browser, keep

pytestmark = pytest.mark.engine

expect.set_options(timeout=SECONDS * 1000)


@pytest.fixture(scope="module")
def page() -> Iterator[Page]:
    """The page of one browser, for all tests."""
    with browser() as opened:
        yield opened


def told(page: Page, link: str) -> FrameLocator:
    """Open what the deployment says of itself: the Markdown of its «current details»."""
    page.goto(link.replace("/history", "/user-metadata"))
    frame = page.frame_locator("iframe").last
    expect(frame.locator("table")).to_be_visible()
    return frame


def test_a_failed_deployment_is_understood_from_the_ui_alone(
    projects: Callable[..., Project], page: Page
) -> None:
    project = projects()
    project.behave("1")
    project.push()
    project.behave("2", "exits")
    start, *_, end = project.push("--json", "--reason", "the new schema", expect=3).events
    link, step, message = start["link"], end["failure"]["step"], end["failure"]["message"]
    assert "exited with code 3" in message

    # The run's first page: it failed, at which step, and why, in the container's own last words.
    page.goto(link)
    status = page.get_by_text("Failed", exact=True).filter(visible=True).first
    expect(status).to_be_visible()
    body = page.locator("body")
    expect(body).to_contain_text(f"{step}: {message}")
    expect(body).to_contain_text("cannot go on: the schema is missing")
    expect(body).to_contain_text("rolled back: previous release restored")
    expect(body).to_contain_text("wait until release 2 runs")
    keep(page, "ui-failed")

    # What it says of itself: every step, how long it took, the image, and links.
    frame = told(page, link)
    rows = frame.locator("table tr").all_inner_texts()
    assert [row.split("\t")[1].strip() for row in rows[1:]] == [
        "validate", "build", "authenticate", "push", "deploy", "health-check",
    ]  # fmt: skip
    (wrong,) = [row for row in rows if row.startswith("✗")]
    assert re.fullmatch(rf"✗\s+{step}\s+\d+\.\d\s+{message}", wrong)
    expect(frame.locator("body")).to_contain_text("cannot go on: the schema is missing")
    expect(frame.locator("body")).to_contain_text(f"artifact: {project.repository}@")
    summary = page.frame_locator("iframe").first.locator("body")
    expect(summary).to_contain_text(f"push of {project.name}/dev")
    expect(summary).to_contain_text("the new schema")
    keep(page, "ui-details")

    # From there to the list of what failed, which the browser then keeps as a saved view.
    about = page.frame_locator("iframe").nth(1)
    target = about.get_by_role("link", name="failed").get_attribute("href")
    views = project.helix("views", "dev", "--json").document["views"]
    assert target == next(one["link"] for one in views if one["name"] == "failed")
    page.goto(target)
    row = page.locator("tbody tr").filter(has_text=f"deploy:{project.name}/dev")
    expect(row).to_have_count(1)
    expect(row).to_contain_text("Failed")
    expect(page.get_by_role("button", name=f"{project.name}/dev: failed")).to_be_visible()
    keep(page, "ui-list")

    # A filter by the step that failed finds it too.
    query = f'DeployInstance = "{project.name}/dev" AND DeployStep = "{step}"'
    page.goto(f"{target.split('?')[0]}?query={quote(query)}")
    expect(row).to_have_count(1)


def test_a_person_answers_in_the_ui(projects: Callable[..., Project], page: Page) -> None:
    project = projects(deploy="approval = true")
    project.behave("1")
    (start,) = project.push("--json", "--detach").events
    asks(project, "approval")
    frame = told(page, start["link"])
    expect(frame.locator("body")).to_contain_text("waits for an answer (approve, reject)")
    keep(page, "ui-asking")
    page.get_by_role("button", name="More Actions").click()
    page.get_by_role("menuitem", name="Send a Signal").click()
    dialog = page.locator("dialog[open]")
    dialog.get_by_test_id("signal-select").locator("..").click()
    dialog.get_by_role("option", name="answer").click()
    dialog.locator(".cm-content").click()
    said = {"choice": "approve", "by": "ada", "why": "in the UI"}
    # As the editor will lay it out: what grew under the mouse would not be clicked.
    page.keyboard.insert_text(json.dumps(said, indent=2))
    keep(page, "ui-answer")
    with page.expect_response(lambda answer: "/signal" in answer.url) as answer:
        dialog.get_by_role("button", name="Submit").click()
    assert answer.value.ok
    eventually(lambda: project.version() == "1", 60, "the approved release")
    project.helix("follow", "dev")
    (decision,) = project.history()[0]["progress"]["decisions"]
    assert {key: decision[key] for key in said} == said
