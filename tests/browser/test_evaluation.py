"""The page of `undiffuse evaluate` as a browser shows it: on a desk and on a telephone, by day and by night."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np
import pytest
from helpers.making import noise, save

from undiffuse.cli import main

if TYPE_CHECKING:
    from playwright.sync_api import Browser

HOSTILE = "<img src=x onerror=alert(1)>"


@pytest.fixture(scope="module")
def page_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two folders with every section that needs no run, and a class whose name is markup."""
    top = tmp_path_factory.mktemp("page")
    for i in range(16):
        save(top / "real" / (HOSTILE, "plain")[i % 2] / f"{i}.png", noise(i))
    images = np.stack([np.asarray(noise(100 + i % 400)) for i in range(520)])
    np.save(top / "fake.npy", images)
    for i in range(16):
        save(top / "few" / (HOSTILE, "plain")[i % 2] / f"{i}.png", noise(50 + i))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("UNDIFFUSE_CACHE", str(top / "cache"))
        words = ["--features", "pixels", "--real", str(top / "real")]
        main(["evaluate", *words, "--fake", str(top / "fake.npy"), "--out", str(top / "line")])
        main(["evaluate", *words, "--fake", str(top / "few"), "--out", str(top / "classes")])
    return top


@pytest.mark.parametrize("page_name", ["line", "classes"])
@pytest.mark.parametrize(("width", "scheme"), [(1280, "light"), (390, "dark")])
def test_nothing_is_missing_sticks_out_or_runs(
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
