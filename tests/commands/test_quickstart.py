"""undiffuse quickstart, and the classifier whose accuracy is in its report."""

import re
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from undiffuse.api import quickstart as api
from undiffuse.api.quickstart import Quickstart
from undiffuse.cli import main
from undiffuse.data.store import DataConfig, open_store
from undiffuse.evaluation.reader import read_samples


def headline(report: str) -> dict[str, str]:
    return dict(re.findall(r"<dt>(.*?)</dt><dd>(.*?)</dd>", report))


def test_a_short_quickstart_writes_a_page_that_stands_alone(
    capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The command says what its page says."""
    pages: list[Quickstart] = []
    whole = partial(api.quickstart, samples=100)

    def kept(*arguments: Any, **options: Any) -> Quickstart:
        pages.append(whole(*arguments, **options))
        return pages[0]

    monkeypatch.setattr(api, "quickstart", kept)
    main(["quickstart", "--images", "256"])
    said = capsys.readouterr().out
    assert "of 100 samples are read as the digit that was asked for" in said
    assert str(Path("runs/quickstart/report.html").absolute()) in said

    (done,) = pages
    report = done.report.read_text()
    assert done.report == Path("runs/quickstart/report.html")
    shown = headline(report)
    assert shown["samples read as the digit they should be"] == f"{done.reading.correct:.1%}"
    assert shown["images seen in training"] == "256"
    # A model that has seen next to nothing must not pass for a good one.
    assert done.reading.correct < 0.6
    assert float(shown["held-out real digits read correctly"].rstrip("%")) >= 98
    addresses = re.findall(r'(?:src|href)="(.*?)"', report)
    assert len(addresses) == 7  # The icon, samples, real digits, film, curves, nearest images, their distances.
    assert all(address.startswith("data:") for address in addresses)
    assert len(list(Path("runs/quickstart/samples").rglob("000*.png"))) == 100


@pytest.mark.slow
def test_the_quickstart_makes_digits_that_can_be_read() -> None:
    main(["quickstart"])
    shown = headline(Path("runs/quickstart/report.html").read_text())
    assert float(shown["samples read as the digit they should be"].rstrip("%")) >= 95


def test_the_reader_reads_real_digits_and_cannot_be_fooled() -> None:
    store = open_store(DataConfig(size=(16, 16)))
    real, labels = store.read(range(len(store))), store.labels
    reading = read_samples(real, labels, real, labels)
    assert reading.held_out_accuracy >= 0.98
    assert reading.correct >= 0.98
    assert reading.confusion.sum() == reading.samples == len(store)
    wrong = read_samples(real, labels, real, np.random.default_rng(0).permutation(labels))
    # Of 1,797 random labels a tenth is right, to four standard deviations of sqrt(0.1 * 0.9 / 1797).
    assert wrong.correct == pytest.approx(0.1, abs=4 * 0.0071)
    assert wrong.confusion.sum(axis=1).tolist() == np.bincount(labels).tolist()
