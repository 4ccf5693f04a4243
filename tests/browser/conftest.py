"""Headless Chromium, if there is one on this machine."""

from __future__ import annotations

from collections.abc import Generator
from typing import TYPE_CHECKING

import pytest
from helpers.chromium import found_browser

if TYPE_CHECKING:
    from playwright.sync_api import Browser

QUIET = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
)
"""Nothing but the page is fetched, drawn or asked for."""


@pytest.fixture(scope="session")
def browser() -> Generator[Browser]:
    program = found_browser()
    if program is None:
        pytest.skip("no Chromium on this machine")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, args=list(QUIET))
        yield browser
        browser.close()
