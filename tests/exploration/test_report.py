"""The page, the files next to it, and that both agree."""

import html
import io
import json
import math
import re
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import pytest
from helpers.exploring import HOSTILE, explored, messy, smooth
from helpers.making import save, save_noise
from matplotlib.figure import Figure
from PIL import Image

from undiffuse.exploration import sections
from undiffuse.exploration.duplicates import MAX_THRESHOLD, MIN_THRESHOLD
from undiffuse.exploration.statistics import Statistics
from undiffuse.exploration.suggestion import Suggestion
from undiffuse.exploration.summary import summary
from undiffuse.utils.text import number


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Statistics]:
    """The page of messy images, some of them duplicates."""
    top = tmp_path_factory.mktemp("written")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("UNDIFFUSE_CACHE", str(top / "cache"))
        folder = messy(top / "p")
        save(folder / HOSTILE[2] / "copy.png", smooth(0, 30, 40))
        save(folder / HOSTILE[3] / "close.jpg", smooth(20, 30, 30), quality=90)
        found = explored(folder)
        assert found.write(top / "out") == top / "out" / "report.html"
    return top / "out", found.measured


def test_the_page_needs_no_other_file(written) -> None:
    page = (written[0] / "report.html").read_text(encoding="utf-8")
    addresses = re.findall(r'(?:src|srcset|href)="(.*?)"', page)
    assert len(addresses) > 20
    assert all(address.startswith("data:") for address in addresses)


def test_names_of_files_and_classes_cannot_become_markup(written) -> None:
    page = (written[0] / "report.html").read_text(encoding="utf-8")
    assert "<script" not in page
    assert "<b>" not in page
    for name in HOSTILE:
        assert html.escape(name, quote=False) in page
    assert "&lt;b&gt;empty&lt;_b&gt;.png" in page


def test_every_bad_file_is_on_the_page_with_its_reason(written) -> None:
    folder, found = written
    page = html.unescape((folder / "report.html").read_text(encoding="utf-8"))
    assert len(found.inventory.bad_files) == 3
    for bad in found.inventory.bad_files:
        assert f">{bad.name}</td>" in page
        assert f">{bad.reason}</td>" in page


def test_every_figure_is_also_a_file(written) -> None:
    names = {file.stem for file in (written[0] / "figures").iterdir()}
    assert names >= {"classes", "sizes", "framing", "samples", "augmented", "histograms", "mean"}
    assert names >= {"duplicates", "noise", "snr", "signal"}
    for file in (written[0] / "figures").iterdir():
        with Image.open(file) as image:
            image.load()
            assert image.width >= 700


def numbers(value) -> set[float]:
    """All numbers in JSON, and the lengths of its lists, which the page has as counts."""
    if isinstance(value, dict):
        return set().union(*map(numbers, value.values())) if value else set()
    if isinstance(value, list):
        return set().union({float(len(value))}, *map(numbers, value))
    return {float(value)} if isinstance(value, (int, float)) and not isinstance(value, bool) else set()


def test_every_number_on_the_page_is_in_the_statistics(written) -> None:
    folder, _ = written
    statistics = json.loads((folder / "statistics.json").read_text(encoding="utf-8"))
    for channel in statistics["colors"]["channels"]:
        del channel["histogram"]  # It has nearly every number.
    known = numbers(statistics)
    page = html.unescape((folder / "report.html").read_text(encoding="utf-8"))
    cells = re.findall(r"<td class=\"short\">([^<]*)</td>|<dd>([^<]*)</dd>", page)
    checked = 0
    for cell in filter(None, (first or second for first, second in cells)):
        for text, percent in re.findall(r"(?<![\w.])([+-]?\d[\d,]*\.?\d*(?:e[+-]?\d+)?)(%?)(?![\w.]*[a-z])", cell):
            value = float(text.replace(",", "")) / (100 if percent else 1)
            shown = text.replace(",", "").partition("e")[0].partition(".")[2]
            exponent = float(text.partition("e")[2] or 0)
            step = 10 ** (exponent - len(shown)) / (100 if percent else 1)  # Of its last digit; one is rounded down.
            assert any(abs(value - number) <= step for number in (*known, 127.5, 1.0)), cell  # x / 127.5 - 1
            checked += 1
    assert checked > 140


def test_numbers_on_the_page_have_the_right_names(written) -> None:
    folder, found = written
    page = html.unescape((folder / "report.html").read_text(encoding="utf-8"))
    table = [re.findall(r"<td[^>]*>(.*?)</td>", row) for row in re.findall(r"<tr>(.*?)</tr>", page)]
    rows = {cells[0]: cells[1:] for cells in table if cells}
    for channel in found.colors.channels:
        assert [float(cell) for cell in rows[channel.name][:2]] == pytest.approx([channel.mean, channel.std], abs=0.06)
    balance, framing, duplicates = found.balance, found.framing, found.duplicates
    assert balance is not None
    assert rows["entropy"][0].startswith(f"{balance.entropy_bits:.3f} bits, {balance.evenness:.1%}")
    assert float(rows["imbalance ratio, largest to smallest"][0]) == pytest.approx(balance.imbalance_ratio, rel=1e-2)
    assert rows["area kept"][0].startswith(f"{framing.kept_mean:.1%} on average, {framing.kept_min:.1%}")
    assert rows["images that are enlarged"] == [str(framing.upscaled)]
    assert rows["exact duplicates, which could be removed"] == [str(duplicates.redundant)] == ["1"]
    assert rows["near-duplicate pairs"] == [str(len(duplicates.near_pairs))] == ["1"]
    assert rows["500"][1] == number(found.noising.timesteps[9].schedules["linear"].snr, 2)


@pytest.mark.parametrize(
    ("median", "threshold", "expected"),
    [
        (0.8, 0.95, "at most half as far away. The threshold thus follows from these images."),
        (0.2, MIN_THRESHOLD, "but the threshold is never lower than this."),
        (1.0, MAX_THRESHOLD, "but the threshold is never higher than this."),
    ],
)
def test_the_page_explains_the_threshold_of_duplicates(written, median: float, threshold: float, expected: str) -> None:
    changed = replace(written[1].duplicates, median_similarity=median, threshold=threshold)
    (text,) = (
        s.text for s in sections.sections(replace(written[1], duplicates=changed), {}) if s.title == "Duplicates"
    )
    assert expected in text
    assert f"correlation of at least {threshold:.3f}" in text


def test_long_tables_are_cut_and_incomplete_counts_marked(written) -> None:
    pair = written[1].duplicates.near_pairs[0]
    changed = replace(written[1].duplicates, near_pairs=(pair,) * 5000, complete=False)
    found = replace(written[1], duplicates=changed)
    (section,) = (s for s in sections.sections(found, {}) if s.title == "Duplicates")
    assert [len(fold.rows) for fold in section.folds] == [2, sections.MAX_ROWS]
    assert "the first 200 of 5,000" in section.folds[1].summary
    assert ["near-duplicate pairs", "at least 5,000"] in section.rows
    assert ("near-duplicate pairs", "at least 5,000") in sections.headline(found)
    assert "at least 5,000 near pairs" in dict(summary(found))["duplicates"]


@pytest.mark.parametrize(("epochs", "warned"), [(100.0, False), (200.0, True)])
def test_the_terminal_warns_of_a_first_run_that_may_memorize(written, epochs: float, warned: bool) -> None:
    run = Suggestion("small", (32, 32), 60_000, epochs, 9.0, 8.0, (32, 32), 6600.0, "cpu", (), "undiffuse train")
    found = replace(written[1], suggestion=run)
    said = "each image is then seen 200 times: often enough to memorize some of them"
    assert (("", said) in summary(found)) == warned


def test_statistics_are_valid_json(written) -> None:
    folder, found = written

    def refuse(word: str) -> None:
        pytest.fail(f"{word} is not valid JSON")

    statistics = json.loads((folder / "statistics.json").read_text(encoding="utf-8"), parse_constant=refuse)
    assert statistics["version"] == 2
    assert statistics["inventory"]["images"] == found.inventory.images
    assert [c["name"] for c in statistics["inventory"]["classes"]] == sorted(HOSTILE)
    assert {bad["name"] for bad in statistics["inventory"]["bad_files"]} == {b.name for b in found.inventory.bad_files}
    assert math.isfinite(sum(numbers(statistics)))


def test_duplicates_are_listed_by_name(written) -> None:
    _, found = written
    (group,) = found.duplicates.exact_groups
    assert [image.name for image in group] == [f"{HOSTILE[0]}/0.png", f"{HOSTILE[2]}/copy.png"]
    assert [image.class_name for image in group] == [HOSTILE[0], HOSTILE[2]]
    assert {frozenset(image.name for image in pair.images) for pair in found.duplicates.near_pairs} == {
        frozenset((f"{HOSTILE[3]}/close.jpg", f"{HOSTILE[2]}/0.png"))
    }


def test_a_new_report_replaces_the_old_one(tmp_path: Path, monkeypatch) -> None:
    save_noise(tmp_path / "p", "1.png", "2.png")
    drawn = dict.fromkeys(("duplicates", "mean"), Figure)
    monkeypatch.setattr("undiffuse.exploration.explore.plots", lambda statistics, data: drawn)
    explored(tmp_path / "p").write(tmp_path / "out")
    figures = tmp_path / "out" / "figures"
    (figures / "mine.png").touch()
    assert {file.name for file in figures.iterdir()} == {"duplicates.png", "mean.png", "mine.png"}
    (tmp_path / "p" / "2.png").unlink()
    del drawn["duplicates"]
    explored(tmp_path / "p").write(tmp_path / "out")
    assert {file.name for file in figures.iterdir()} == {"mean.png", "mine.png"}
    assert ": 1 image<" in (tmp_path / "out" / "report.html").read_text()
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        "figures",
        "report.html",
        "statistics.json",
    ]


def test_a_single_image_makes_a_page(tmp_path: Path) -> None:
    save(tmp_path / "p" / "1.png", smooth(0))
    explored(tmp_path / "p").write(tmp_path / "out")
    assert ": 1 image<" in (tmp_path / "out" / "report.html").read_text()
    assert "classes" not in {file.stem for file in (tmp_path / "out" / "figures").iterdir()}


def test_an_exploration_is_a_summary_where_it_is_printed(tmp_path: Path) -> None:
    found = explored(messy(tmp_path / "p"))
    lines = str(found).splitlines()
    assert lines[0] == "Exploration of p"
    assert [line.split()[0] for line in lines[1:4]] == ["images", "files", "sizes"]
    assert f"{len(found.bad_files)}, left out" in str(found)
    assert "<td" in found._repr_html_()


def test_figures_are_drawn_on_demand_and_shown_by_notebooks(tmp_path: Path) -> None:
    found = explored(save_noise(tmp_path / "p", "a/1.png", "b/2.png"))
    assert list(found.figures) == [
        "classes",
        "framing",
        "samples",
        "augmented",
        "histograms",
        "mean",
        "noise",
        "snr",
        "signal",
    ]
    drawn: Any = found.figures["classes"]
    png = drawn._repr_png_()
    assert Image.open(io.BytesIO(png)).format == "PNG"
    with pytest.raises(KeyError, match="There is no figure colours: choose classes, framing"):
        found.figures["colours"]


def test_every_key_of_the_statistics_is_documented(written) -> None:
    folder, _ = written
    page = (Path(__file__).parents[2] / "docs" / "explore.md").read_text(encoding="utf-8")
    table = page.partition("## statistics.json")[2].partition("\n## ")[0]
    documented = set(re.findall(r"`\.?([\w.\[\]]+)`", table))
    names = {part for name in documented for part in name.replace("[]", "").split(".")}
    statistics = json.loads((folder / "statistics.json").read_text(encoding="utf-8"))
    suggested = {field.name for field in fields(Suggestion)}
    assert keys(statistics) | suggested <= names


def keys(value) -> set[str]:
    """All keys in JSON that are not names of classes, splits, formats, sizes or schedules."""
    if isinstance(value, list):
        return set().union(*map(keys, value)) if value else set()
    if not isinstance(value, dict):
        return set()
    counts = all(isinstance(one, int) for one in value.values()) and not value.keys() & {"images", "min"}
    found = set() if counts or value.keys() <= {"linear", "cosine"} else set(value)
    return found.union(*map(keys, value.values()))
