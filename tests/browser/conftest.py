"""Headless Chromium, if it is installed."""

from collections.abc import Generator

import pytest
from helpers.chromium import find_browser
from playwright.sync_api import Browser, sync_playwright

QUIET = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
)
"""Only the page itself is fetched and drawn."""


@pytest.fixture(scope="session")
def browser() -> Generator[Browser]:
    program = find_browser()
    if program is None:
        pytest.skip("Chromium is not installed")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, args=list(QUIET))
        yield browser
        browser.close()
