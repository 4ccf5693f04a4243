"""The page of `undiffuse explore` in a browser: on a desktop and on a phone, in light and dark mode."""

import io
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

import numpy as np
import pytest
from helpers.exploring import HOSTILE, explored, messy, smooth
from helpers.making import save
from PIL import Image
from playwright.sync_api import Browser, Page

DESKTOP, PHONE = 1280, 390

Scheme = Literal["light", "dark"]


@pytest.fixture(scope="module")
def page_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Explores images with everything that could break a page."""
    top = tmp_path_factory.mktemp("page")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("UNDIFFUSE_CACHE", str(top / "cache"))
        folder = messy(top / "p")
        save(folder / HOSTILE[2] / ("copy" * 50 + ".png"), smooth(0, 30, 40))
        explored(folder).write(top / "out")
    return top / "out" / "report.html"


@contextmanager
def opened(browser: Browser, file: Path, width: int, scheme: Scheme = "light") -> Generator[tuple[Page, list[str]]]:
    """The page, opened offline, and everything that goes wrong in it."""
    context = browser.new_context(viewport={"width": width, "height": 844}, color_scheme=scheme, offline=True)
    try:
        page, faults = context.new_page(), []
        page.on("console", lambda message: faults.append(message.text))
        page.on("pageerror", lambda error: faults.append(str(error)))
        page.on("requestfailed", lambda request: faults.append(request.url[:100]))
        page.on("dialog", lambda dialog: faults.append(dialog.message))
        page.goto(file.as_uri())
        page.evaluate("Promise.all([...document.images].map(image => image.decode()))")
        yield page, faults
    finally:
        context.close()


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [DESKTOP, PHONE])
def test_nothing_is_missing_and_nothing_overflows(
    browser: Browser, page_file: Path, width: int, scheme: Scheme
) -> None:
    with opened(browser, page_file, width, scheme) as (page, faults):
        page.evaluate("document.querySelectorAll('details').forEach(fold => fold.open = true)")
        assert page.evaluate("document.images.length") >= 10
        assert page.evaluate("[...document.images].filter(image => !image.naturalWidth).length") == 0
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        beyond = "element => element.getBoundingClientRect().right > innerWidth + 1 && !element.closest('.wide')"
        assert page.evaluate(f"[...document.querySelectorAll('body *')].filter({beyond}).map(e => e.outerHTML)") == []
        assert faults == []


def test_figures_fill_a_phone_and_form_two_columns_on_a_desktop(browser: Browser, page_file: Path) -> None:
    boxes = "[...document.images].map(image => image.getBoundingClientRect()).map(b => [b.left, b.width])"
    with opened(browser, page_file, PHONE) as (page, _):
        assert all(width > 0.85 * PHONE for _, width in page.evaluate(boxes))
    with opened(browser, page_file, DESKTOP) as (page, _):
        lefts = {round(left) for left, _ in page.evaluate(boxes)}
        assert len(lefts) == 2


@pytest.mark.parametrize(("scheme", "dark"), [("light", False), ("dark", True)])
def test_the_page_and_its_figures_follow_dark_mode(
    browser: Browser, page_file: Path, scheme: Scheme, dark: bool
) -> None:
    with opened(browser, page_file, PHONE, scheme) as (page, _):
        assert (brightness(page.screenshot()) < 80) == dark
        chart = page.locator("figure img").first
        assert (brightness(chart.screenshot()) < 110) == dark


def brightness(png: bytes) -> float:
    return float(np.asarray(Image.open(io.BytesIO(png)).convert("L")).mean())


def test_names_are_shown_unchanged(browser: Browser, page_file: Path) -> None:
    with opened(browser, page_file, PHONE) as (page, faults):
        for fold in page.locator("summary").all():
            if not fold.evaluate("summary => summary.parentElement.open"):
                fold.click()
        text = page.inner_text("main")
        for name in (*HOSTILE, "<b>empty<_b>.png", "copy" * 50):
            assert name in text
        assert page.locator("main script, main b").count() == 0
        assert faults == []


def test_every_image_has_a_description(browser: Browser, page_file: Path) -> None:
    with opened(browser, page_file, DESKTOP) as (page, _):
        described = page.evaluate("[...document.images].map(image => image.alt.length)")
        assert min(described) > 20
        assert page.evaluate("document.documentElement.lang") == "en"
        assert page.evaluate("document.querySelectorAll('h1').length") == 1
