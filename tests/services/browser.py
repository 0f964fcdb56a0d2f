"""A real browser for tests: Debian's Chromium, without a screen, driven by Playwright."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from playwright.sync_api import Page, Route, sync_playwright

from tests.services.need import program

FLAGS = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)
SECONDS = 30
"""How long a thing on a page may take to appear."""


@contextmanager
def browser() -> Iterator[Page]:
    """An empty page of a new browser."""
    path = program("chromium", "browser", "on Debian: apt-get install chromium")
    with sync_playwright() as driver:
        running = driver.chromium.launch(executable_path=path, headless=True, args=list(FLAGS))
        page = running.new_page(viewport={"width": 1280, "height": 1000}, locale="en")
        page.set_default_timeout(SECONDS * 1000)
        page.route("**/*", _fetch)
        try:
            yield page
        finally:
            page.unroute_all(behavior="ignoreErrors")
            running.close()


def _fetch(route: Route) -> None:
    """Have the driver make the request.

    Chromium drops every connection it has (net::ERR_NETWORK_CHANGED) when any network interface of
    the machine comes or goes, and each container that starts or ends brings one.
    """
    if "waitNewEvent=true" in route.request.url:
        route.continue_()  # a long poll, which the page repeats by itself
    else:
        route.fulfill(response=route.fetch())


def keep(page: Page, name: str) -> None:
    """Keep a picture of the page, for the docs, if HELIX_SCREENSHOTS names a folder for it."""
    if folder := os.environ.get("HELIX_SCREENSHOTS"):
        page.screenshot(path=Path(folder) / f"{name}.png")
