"""The API's pages, in a real browser."""

import os
import shutil
from collections.abc import Iterator

import pytest
from playwright.sync_api import Page, expect, sync_playwright

from tests.conftest import skip_or_fail
from tests.e2e.service import Service


@pytest.fixture
def page() -> Iterator[Page]:
    chromium = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if chromium is None:
        skip_or_fail("no Chromium is installed (apt-get install chromium)")
    quiet = [
        "--disable-gpu",
        "--disable-quic",
        "--no-first-run",
        "--disable-background-networking",
        "--disable-component-update",
        "--disable-sync",
    ]
    if os.geteuid() == 0:
        quiet.append("--no-sandbox")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=quiet)
        try:
            yield browser.new_page()
        finally:
            browser.close()


def test_engineers_browse_and_try_the_api_without_any_other_host(service: Service, page: Page) -> None:
    strangers: list[str] = []
    page.on("request", lambda request: None if service.url in request.url else strangers.append(request.url))
    problems: list[str] = []
    page.on("pageerror", lambda error: problems.append(str(error)))
    page.goto(service.url)
    expect(page).to_have_url(f"{service.url}/docs")
    expect(page.get_by_role("heading", name="Tariff model registry")).to_be_visible()
    expect(page.get_by_text("Ask for the model of a commit")).to_be_visible()

    page.get_by_text("Whether the service is ready").click()
    page.get_by_role("button", name="Try it out").click()
    page.get_by_role("button", name="Execute").click()
    expect(page.locator(".live-responses-table").get_by_text('"ready": true').first).to_be_visible()
    assert [url for url in strangers if not url.startswith("data:")] == []
    assert problems == []
