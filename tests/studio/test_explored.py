"""What is said of images before training on them."""

from pathlib import Path

import pytest
from helpers.making import noise, save

from undiffuse.studio.explored import as_markup, explored
from undiffuse.studio.line import Line
from undiffuse.studio.reports import KEPT, Reports


@pytest.fixture
def photos() -> Path:
    """Two classes, uneven, with a file that is no image and one image twice."""
    for i in range(12):
        save(Path("photos/<b>roses") / f"{i}.png", noise(i, 24, 24))
    save(Path("photos/irises/0.png"), noise(100, 24, 24))
    save(Path("photos/irises/1.png"), noise(0, 24, 24))
    Path("photos/irises/bad.jpg").write_bytes(b"no image")
    return Path("photos")


def test_progress_comes_first_then_counts_warnings_and_images(photos: Path) -> None:
    looks, told = explored(str(photos), False, Line()), []
    while True:
        try:
            told.append(next(looks))
        except StopIteration as end:
            found, suggestion = end.value
            break
    assert all("Looking at the images" in each for each in told)
    assert suggestion is None
    shown = as_markup(found, "/report/<key>")
    assert 'href="/report/&lt;key&gt;"' in shown
    assert "1 file left out" in shown
    assert "bad.jpg" in shown
    assert "The classes are uneven" in shown
    assert "repeat another one exactly" in shown
    assert "<b>roses" not in shown
    assert shown.count("<img") == 14


def test_only_the_newest_pages_are_kept(tmp_path: Path) -> None:
    def write(folder: Path) -> Path:
        folder.mkdir(parents=True)
        (folder / "report.html").write_text("page")
        return folder / "report.html"

    reports = Reports(tmp_path)
    addresses = {reports.add(write) for _ in range(KEPT + 3)}
    assert len(addresses) == KEPT + 3
    assert len(list(tmp_path.iterdir())) == KEPT


def test_what_cannot_be_read_is_the_packages_own_sentence() -> None:
    with pytest.raises(FileNotFoundError, match="There is no data at"):
        list(explored("nowhere", False, Line()))
