"""The pages that people look at, in a real browser: those of the API, and the report of a training."""

import hashlib
import io
import os
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect, sync_playwright

from app.words import Scope
from local.stack import free_port
from tests.conftest import skip_or_fail
from tests.e2e.service import Service
from tests.unit.training.measurements import CONFIG, EPOCHS, HOSTILE, coded, vague
from training.evaluation.report.write import write_training_report
from training.progress import Progress


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


def test_the_training_report_needs_no_network_in_its_light_and_its_dark_form(
    page: Page, tmp_path: Path
) -> None:
    [report], warnings = write_training_report(
        tmp_path, [coded(), vague()], CONFIG, EPOCHS, (), Progress(log=io.StringIO())
    )
    assert warnings == []
    requests: list[str] = []
    problems: list[str] = []
    page.on("request", lambda request: requests.append(request.url))
    page.on("pageerror", lambda error: problems.append(str(error)))
    page.on("console", lambda message: problems.append(message.text))
    page.goto(report.as_uri())
    assert (requests, problems) == ([report.as_uri()], [])
    expect(page.get_by_role("heading", name="Training report of m 0.1.0")).to_be_visible()
    expect(page.get_by_text(HOSTILE).first).to_be_visible()
    for image in page.get_by_role("img").all():
        expect(image.locator("svg")).to_be_visible()

    # By keyboard: the numbers behind a drawing.
    table = page.get_by_role("table", name="Calibration as a table")
    expect(table).to_be_hidden()
    page.get_by_text("Calibration as a table").first.focus()
    page.keyboard.press("Enter")
    expect(table).to_be_visible()

    body = page.locator("body")
    expect(body).to_have_css("background-color", "rgb(255, 255, 255)")
    page.emulate_media(color_scheme="dark")
    expect(body).to_have_css("background-color", "rgb(13, 17, 23)")
    # A drawing follows: its axis is as light as the text.
    expect(page.locator("svg text").first).to_have_css("fill", "rgb(230, 237, 243)")
