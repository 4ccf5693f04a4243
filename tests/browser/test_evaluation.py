"""The page of an evaluation in a browser: on a desktop and on a phone, in light and dark mode."""

from pathlib import Path
from typing import Literal

import numpy as np
import pytest
from helpers.making import noise, save
from playwright.sync_api import Browser

import undiffuse as ud

HOSTILE = "<img src=x onerror=alert(1)>"


@pytest.fixture(scope="module")
def page_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Pages with every section that needs no run, and a class whose name is markup."""
    top = tmp_path_factory.mktemp("page")
    for i in range(16):
        save(top / "real" / (HOSTILE, "plain")[i % 2] / f"{i}.png", noise(i))
    images = np.stack([np.asarray(noise(100 + i % 400)) for i in range(520)])
    for i in range(16):
        save(top / "few" / (HOSTILE, "plain")[i % 2] / f"{i}.png", noise(50 + i))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("UNDIFFUSE_CACHE", str(top / "cache"))
        ud.measure(top / "real", images, features="pixels", out=top / "line")
        ud.measure(top / "real", top / "few", features="pixels", out=top / "classes")
    return top


@pytest.mark.parametrize("page_name", ["line", "classes"])
@pytest.mark.parametrize(("width", "scheme"), [(1280, "light"), (390, "dark")])
def test_nothing_is_missing_overflows_or_runs(
    browser: Browser, page_file: Path, page_name: str, width: int, scheme: Literal["light", "dark"]
) -> None:
    context = browser.new_context(viewport={"width": width, "height": 844}, color_scheme=scheme, offline=True)
    try:
        page, faults = context.new_page(), []
        page.on("console", lambda message: faults.append(message.text))
        page.on("requestfailed", lambda request: faults.append(request.url[:100]))
        page.on("dialog", lambda dialog: faults.append(dialog.message))
        page.goto((page_file / page_name / "report.html").as_uri())
        page.evaluate("Promise.all([...document.images].map(image => image.decode()))")
        assert page.evaluate("document.images.length") >= 4  # Two grids, the sheet, the distances.
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        assert ("With infinitely many samples" in page.inner_text("main")) == (page_name == "line")
        assert (HOSTILE in page.inner_text("main")) == (page_name == "classes")
        paper = page.evaluate("getComputedStyle(document.body).backgroundColor")
        assert (paper == "rgb(255, 255, 255)") == (scheme == "light")
        assert faults == []
    finally:
        context.close()
