"""Every Python snippet of the documentation runs, page by page, in order, as the reader would run it."""

import re
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

import undiffuse as ud
from undiffuse.api import train as api

TOP = Path(__file__).parents[1]
PAGES = [TOP / "README.md", *sorted((TOP / "docs").glob("*.md"))]
SMALLER = {
    "minutes=10": "minutes=0.02",
    "images=640": "images=320",
    "images=2560": "images=320",
    "inference_steps=50": "inference_steps=5",
}
"""What runs in place of budgets that are shown; every other word runs as it stands."""

TINY = {"network.channels": 16, "network.groups": 4}
"""Settings of every U-Net that is trained, unless a snippet has others."""


def snippets(page: Path) -> list[str]:
    return re.findall(r"```python\n(.*?)```", page.read_text(encoding="utf-8"), flags=re.DOTALL)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with runs/quickstart, which has seen little, made once."""
    folder = tmp_path_factory.mktemp("python")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("UNDIFFUSE_CACHE", str(folder / "cache"))
        patch.chdir(folder)
        ud.train("digits", images=256, out="runs/quickstart", set=TINY)
    return folder


@pytest.fixture
def readers_folder(trained: Path, tmp_path: Path) -> Path:
    """What a page says that its reader has: a run of the quickstart and some photos."""
    shutil.copytree(trained / "runs", tmp_path / "runs")
    for name, blue in (("roses", 40), ("irises", 30)):
        folder = tmp_path / "photos" / name
        folder.mkdir(parents=True)
        for i in range(6):
            ramp = Image.linear_gradient("L").resize((40 + i, 36))
            Image.merge("RGB", [ramp, ramp, Image.new("L", ramp.size, blue * i)]).save(folder / f"{i}.jpg")
    return tmp_path


@pytest.mark.parametrize("page", [page for page in PAGES if snippets(page)], ids=lambda page: page.name)
def test_the_snippets_of_a_page_run_in_order(page: Path, readers_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usual = ud.train

    def train(*data: Any, set: Mapping[str, Any] = {}, **options: Any) -> Any:
        tiny = {} if {"network", "from_run"} & {*options} else TINY | {"network.blocks": 1, "training.microbatch": 32}
        return usual(*data, set=tiny | dict(set), **options)

    monkeypatch.setattr(api, "train", train)
    names: dict[str, object] = {"__name__": "__main__"}
    for snippet in snippets(page):
        for shown, smaller in SMALLER.items():
            snippet = snippet.replace(shown, smaller)
        exec(compile(snippet, f"{page.name}", "exec"), names)
