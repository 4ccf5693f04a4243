"""The page, the files beside it, and that both say the same."""

import html
import json
import math
import re
from dataclasses import replace
from pathlib import Path

import pytest
from helpers.exploring import HOSTILE, found_in, messy, smooth
from helpers.making import save, save_noise
from matplotlib.figure import Figure
from PIL import Image

from undiffuse.exploration import report, sections
from undiffuse.exploration.duplicates import LEAST_LIKENESS, SURE_LIKENESS
from undiffuse.exploration.findings import Findings
from undiffuse.exploration.summary import summary
from undiffuse.utils.text import number


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Findings]:
    """A page about messy images, some of them there twice."""
    top = tmp_path_factory.mktemp("written")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("UNDIFFUSE_CACHE", str(top / "cache"))
        folder = messy(top / "p")
        save(folder / HOSTILE[2] / "copy.png", smooth(0, 30, 40))
        save(folder / HOSTILE[3] / "close.jpg", smooth(20, 30, 30), quality=90)
        found, shown = found_in(folder)
        report.write(top / "out", found, shown)
    return top / "out", found


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


def test_every_figure_is_a_file_too(written) -> None:
    names = {file.stem for file in (written[0] / "figures").iterdir()}
    assert names >= {"classes", "sizes", "framing", "samples", "augmented", "histograms", "mean"}
    assert names >= {"duplicates", "noise", "snr", "signal"}
    for file in (written[0] / "figures").iterdir():
        with Image.open(file) as image:
            image.load()
            assert image.width >= 700


def numbers(value) -> set[float]:
    """All numbers in JSON, and the lengths of its lists, which the page counts."""
    if isinstance(value, dict):
        return set().union(*map(numbers, value.values())) if value else set()
    if isinstance(value, list):
        return set().union({float(len(value))}, *map(numbers, value))
    return {float(value)} if isinstance(value, (int, float)) and not isinstance(value, bool) else set()


def test_the_numbers_of_the_page_are_those_of_the_statistics(written) -> None:
    folder, _ = written
    statistics = json.loads((folder / "statistics.json").read_text(encoding="utf-8"))
    for channel in statistics["colors"]["channels"]:
        del channel["histogram"]  # Which has nearly every number.
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
            assert any(abs(value - number) <= step for number in known), cell
            checked += 1
    assert checked > 140


def test_each_number_stands_beside_its_name(written) -> None:
    folder, found = written
    page = html.unescape((folder / "report.html").read_text(encoding="utf-8"))
    table = [re.findall(r"<td[^>]*>(.*?)</td>", row) for row in re.findall(r"<tr>(.*?)</tr>", page)]
    rows = {cells[0]: cells[1:] for cells in table if cells}
    for channel in found.colors.channels:
        assert [float(cell) for cell in rows[channel.name][:2]] == pytest.approx([channel.mean, channel.std], abs=0.06)
    balance, frame, copies = found.balance, found.framing, found.copies
    assert balance is not None
    assert rows["entropy"][0].startswith(f"{balance.entropy_bits:.3f} bits, {balance.evenness:.1%}")
    assert float(rows["imbalance ratio, largest to smallest"][0]) == pytest.approx(balance.imbalance_ratio, rel=1e-2)
    assert rows["area kept"][0].startswith(f"{frame.kept_mean:.1%} on average, {frame.kept_least:.1%}")
    assert rows["images that are enlarged"] == [str(frame.enlarged)]
    assert rows["exact copies, which could go"] == [str(copies.superfluous)] == ["1"]
    assert rows["pairs nearly the same"] == [str(len(copies.near_pairs))] == ["1"]
    assert rows["500"][1] == number(found.noising.levels[9].schedules["linear"].snr, 2)


@pytest.mark.parametrize(
    ("usual", "asked", "words"),
    [
        (0.8, 0.95, "at most half as far away. These images set the threshold themselves."),
        (0.2, LEAST_LIKENESS, "but less is never asked."),
        (1.0, SURE_LIKENESS, "but more is never asked."),
    ],
)
def test_who_set_the_threshold_of_duplicates_is_said(written, usual: float, asked: float, words: str) -> None:
    copies = replace(written[1].copies, usual_similarity=usual, asked_similarity=asked)
    (said,) = (s.text for s in sections.sections(replace(written[1], copies=copies), {}) if s.title == "Duplicates")
    assert words in said
    assert f"correlate at least {asked:.3f}" in said


def test_thousands_of_pairs_make_no_endless_page_and_count_as_at_least(written) -> None:
    pair = written[1].copies.near_pairs[0]
    copies = replace(written[1].copies, near_pairs=(pair,) * 5000, complete=False)
    found = replace(written[1], copies=copies)
    (section,) = (s for s in sections.sections(found, {}) if s.title == "Duplicates")
    assert [len(fold.rows) for fold in section.folds] == [2, sections.MOST_ROWS]
    assert "the first 200 of 5,000" in section.folds[1].summary
    assert ["pairs nearly the same", "at least 5,000"] in section.rows
    assert ("pairs that are nearly the same", "at least 5,000") in sections.headline(found)
    assert "at least 5,000 near pairs" in dict(summary(found))["duplicates"]


def test_statistics_are_json_that_anything_reads(written) -> None:
    folder, found = written

    def refuse(word: str) -> None:
        pytest.fail(f"{word} is no JSON")

    statistics = json.loads((folder / "statistics.json").read_text(encoding="utf-8"), parse_constant=refuse)
    assert statistics["version"] == 1
    assert statistics["inventory"]["images"] == found.inventory.images
    assert [c["name"] for c in statistics["inventory"]["classes"]] == sorted(HOSTILE)
    assert {bad["name"] for bad in statistics["inventory"]["bad_files"]} == {b.name for b in found.inventory.bad_files}
    assert math.isfinite(sum(numbers(statistics)))


def test_the_copies_are_named(written) -> None:
    _, found = written
    (group,) = found.copies.exact_groups
    assert [member.name for member in group] == [f"{HOSTILE[0]}/0.png", f"{HOSTILE[2]}/copy.png"]
    assert [member.class_name for member in group] == [HOSTILE[0], HOSTILE[2]]
    assert {frozenset(member.name for member in pair.members) for pair in found.copies.near_pairs} == {
        frozenset((f"{HOSTILE[3]}/close.jpg", f"{HOSTILE[2]}/0.png"))
    }


def test_written_again_it_is_replaced_and_what_no_longer_holds_goes(tmp_path: Path, monkeypatch) -> None:
    save_noise(tmp_path / "p", "1.png", "2.png")
    drawn = dict.fromkeys(("duplicates", "mean"), Figure)
    monkeypatch.setattr(report, "figures", lambda found, shown: drawn)
    report.write(tmp_path / "out", *found_in(tmp_path / "p"))
    figures = tmp_path / "out" / "figures"
    (figures / "mine.png").touch()
    assert {file.name for file in figures.iterdir()} == {"duplicates.png", "mean.png", "mine.png"}
    (tmp_path / "p" / "2.png").unlink()
    del drawn["duplicates"]
    report.write(tmp_path / "out", *found_in(tmp_path / "p"))
    assert {file.name for file in figures.iterdir()} == {"mean.png", "mine.png"}
    assert ": 1 image<" in (tmp_path / "out" / "report.html").read_text()
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        "figures",
        "report.html",
        "statistics.json",
    ]


def test_one_image_alone_makes_a_page(tmp_path: Path) -> None:
    save(tmp_path / "p" / "1.png", smooth(0))
    found, shown = found_in(tmp_path / "p")
    report.write(tmp_path / "out", found, shown)
    assert ": 1 image<" in (tmp_path / "out" / "report.html").read_text()
    assert "classes" not in {file.stem for file in (tmp_path / "out" / "figures").iterdir()}
