"""The real Temporal UI, in a real browser, shows what is encrypted to those who may see it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from urllib.parse import quote

from playwright.async_api import Error, Locator, Page, async_playwright, expect
from temporalio.client import Client

from tests.integration.test_codec_server import (
    CANARY,
    SECRET,
    Server,
    codec_server,
    deploy,
    line,
    lines,
    write,
)
from tests.services.browser import FLAGS
from tests.services.need import program
from tests.services.registry import free_port
from tests.services.temporal import dev_server
from tests.workflow.world import World

SECONDS = 60
VISITS = 5
"""Chromium drops its connections whenever a network interface of the machine comes or goes, as it
does with each container that another test starts: then the page is loaded again."""


@asynccontextmanager
async def browser() -> AsyncIterator[Page]:
    """One that makes its requests itself: whether it may is what is tested."""
    path = program("chromium", "browser", "on Debian: apt-get install chromium")
    async with async_playwright() as driver:
        running = await driver.chromium.launch(executable_path=path, args=list(FLAGS))
        page = await running.new_page(viewport={"width": 1400, "height": 1100})
        page.set_default_timeout(SECONDS * 1000)
        try:
            yield page
        finally:
            await running.close()


async def visit(page: Page, url: str, see: Callable[[Locator], Awaitable[None]]) -> None:
    """Open a page, again if need be, until it shows what it is to show."""
    for left in reversed(range(VISITS)):
        try:
            await page.goto(url)
            await see(page.locator("body"))
            return
        except (Error, AssertionError):
            if not left:
                raise


async def page_of(client: Client, ui: str, id: str) -> str:
    description = await client.get_workflow_handle(id).describe()
    return f"{ui}/namespaces/default/workflows/{quote(id, safe='')}/{description.run_id}/history"


async def configure(page: Page, server: Server) -> None:
    """As a person does it, in the UI's own form."""
    await page.get_by_role("button", name="Configure Codec Server").click()
    form = page.locator("aside").filter(has_text="Codec Server browser endpoint")
    # The browser's own control lies below the one that is drawn.
    await form.locator("#use-local-endpoint-radio").evaluate("control => control.click()")
    await form.get_by_placeholder("Paste your endpoint here").fill(server.url)
    await form.locator("#pass-access-credentials").evaluate("control => control.click()")
    await form.get_by_role("button", name="Apply").click()
    await expect(form).to_be_hidden()


async def test_histories_are_read_in_the_ui_after_a_login_and_after_a_rotation(
    tmp_path: Path,
) -> None:
    keys = tmp_path / "keys"
    keys.touch(0o600)
    write(keys, line("2025"))
    port = free_port()
    ui = f"http://127.0.0.1:{port}"

    async def shows(body: Locator) -> None:
        await expect(body).to_contain_text(CANARY, timeout=15_000)

    async def shows_only_the_run(body: Locator) -> None:
        await expect(body).to_contain_text("DeployWorkflow", timeout=15_000)
        await expect(body).not_to_contain_text(CANARY)

    words = ("--origin", ui, "--secret", "env:CODEC_SECRET")
    with codec_server(keys, *words, CODEC_SECRET=SECRET) as server:
        async with dev_server(ui_port=port) as client, browser() as page:
            old = await page_of(client, ui, await deploy(client, keys, World()))
            await visit(page, old, shows_only_the_run)
            await configure(page, server)
            await visit(page, old, shows_only_the_run)  # not logged in

            async def asks(body: Locator) -> None:
                await expect(body).to_contain_text("Shared secret", timeout=15_000)

            await visit(page, server.url, asks)
            await page.get_by_label("Shared secret").fill(SECRET)
            await page.get_by_role("button", name="Log in").click()
            await expect(page.locator("body")).to_contain_text("This browser may decode")
            await visit(page, old, shows)

            write(keys, line("2026"), *lines(keys))
            new = await page_of(client, ui, await deploy(client, keys, World()))
            for url in (new, old):
                await visit(page, url, shows)
