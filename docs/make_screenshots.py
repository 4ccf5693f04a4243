"""Makes the images of docs/studio.md, with the digits that come with undiffuse, always from the same seeds.

.venv/bin/python docs/make_screenshots.py
"""

import shutil
from pathlib import Path

import tyro
from PIL import Image
from playwright.sync_api import Browser, Page, sync_playwright

from undiffuse.studio.app import Server

HERE = Path(__file__).parent
WIDTH, HEIGHT = 1280, 740
COLORS = 128
"""Of a PNG with a palette, which is a third of the size."""


def main(out: Path = HERE, browser: str | None = shutil.which("chromium")) -> None:
    """studio.png, the tab Generate in light mode, and studio-dark.png, the tab Compare in dark mode.

    Args:
        out: Folder of the images.
        browser: Program of the browser.
    """
    with Server() as server, sync_playwright() as playwright:
        opened = playwright.chromium.launch(
            executable_path=browser, args=["--headless", "--no-sandbox", "--disable-gpu"]
        )
        page = visit(opened, server, "light")
        page.click("#generate-start")
        page.wait_for_selector("#generate-stage a.download", timeout=120_000)
        save(page, out / "studio.png")
        page = visit(opened, server, "dark")
        page.get_by_role("tab", name="Compare", exact=True).click()
        page.click("#compare-start")
        page.wait_for_function("document.querySelectorAll('#compare-stage .column').length == 3", timeout=120_000)
        page.wait_for_function("!document.querySelector('#compare-stage .running')", timeout=120_000)
        save(page, out / "studio-dark.png")
        opened.close()


def visit(browser: Browser, server: Server, scheme: str) -> Page:
    """The page in light or dark mode, with the model chosen."""
    context = browser.new_context(viewport={"width": WIDTH, "height": HEIGHT}, color_scheme=scheme)  # ty: ignore
    page = context.new_page()
    page.goto(server.address)
    page.wait_for_selector("#generate-start")
    page.wait_for_function("document.querySelector('#generate-run input').value == 'digits'")
    page.wait_for_timeout(1000)
    return page


def save(page: Page, path: Path) -> None:
    """The whole page, with few colors."""
    page.wait_for_timeout(500)
    page.screenshot(path=path, full_page=True)
    Image.open(path).convert("RGB").quantize(COLORS, dither=Image.Dither.NONE).save(path, optimize=True)


if __name__ == "__main__":
    tyro.cli(main)
