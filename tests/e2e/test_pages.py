"""The API's pages, in a real browser."""

import hashlib
import os
import shutil
from collections.abc import Iterator
from dataclasses import replace

import pytest
from playwright.sync_api import Page, expect, sync_playwright

from app.words import Scope
from local.stack import free_port
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


@pytest.fixture
def guarded(service: Service) -> Iterator[Service]:
    """The same registry, through an API that answers nobody without a token."""
    digest = hashlib.sha256(b"r00t").hexdigest()
    environment = service.environment | {
        "REGISTRY_ACCESS": "tokens",
        "REGISTRY_API_TOKENS": f"root={digest}:{'+'.join(Scope)}",
    }
    port = free_port()
    found = replace(service, url=f"http://127.0.0.1:{port}", environment=environment, workers=[])
    api = found.start("api", "--port", str(port))
    try:
        found.await_ready(api)
        yield found
    finally:
        found.kill(api)


def test_engineers_try_the_api_with_a_token(guarded: Service, page: Page) -> None:
    made = guarded.run(
        "token", "create", "engineer", "--scope", "read", "--scope", "admin", REGISTRY_TOKEN="r00t"
    )
    assert made.returncode == 0, made.stderr
    secret = made.stdout.strip()
    assert secret not in made.stderr

    page.goto(f"{guarded.url}/docs")
    write = page.locator(".opblock").filter(has_text="Compare the bucket with the registry")
    write.get_by_text("Compare the bucket with the registry").click()
    write.get_by_role("button", name="Try it out").click()
    answer = write.locator(".live-responses-table")
    write.get_by_role("button", name="Execute").click()
    expect(answer.get_by_text("/problems/unauthorized").first).to_be_visible()

    page.get_by_role("button", name="Authorize", exact=True).first.click()
    dialog = page.locator(".dialog-ux")
    dialog.get_by_role("textbox").fill(secret)
    dialog.get_by_role("button", name="Apply credentials").click()
    dialog.get_by_role("button", name="Close", exact=True).click()
    write.get_by_role("button", name="Execute").click()
    expect(answer.get_by_text('"requested_by": "engineer"').first).to_be_visible()

    # What only reads gets the token too.
    read = page.locator(".opblock").filter(has_text="Imports, reconciliations and collections, newest first")
    read.get_by_text("Imports, reconciliations and collections, newest first").click()
    read.get_by_role("button", name="Try it out").click()
    read.get_by_role("button", name="Execute").click()
    expect(
        read.locator(".live-responses-table").get_by_text('"requested_by": "engineer"').first
    ).to_be_visible()

    revoked = guarded.run("token", "revoke", "engineer", REGISTRY_TOKEN="r00t")
    assert revoked.returncode == 0, revoked.stderr
    read.get_by_role("button", name="Execute").click()
    expect(read.locator(".live-responses-table").get_by_text("was revoked at").first).to_be_visible()
