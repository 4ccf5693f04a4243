"""Sections of a page: in which columns images stand, and which of many values are told."""

import base64
import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers.features import image_set, random_pixels
from PIL import Image

from undiffuse.evaluation.pages import sections
from undiffuse.metrics.frechet import fit_line
from undiffuse.report import page


@pytest.fixture
def undrawn(monkeypatch: pytest.MonkeyPatch) -> None:
    """Plots are not drawn, which takes most of the time."""
    monkeypatch.setattr(page, "from_plot", lambda plot, caption: page.Figure("", caption))


def size(figure: page.Figure) -> tuple[int, int]:
    return Image.open(io.BytesIO(base64.b64decode(figure.source.partition(",")[2]))).size


@pytest.mark.parametrize(("classes", "columns"), [(0, 10), (1, 10), (2, 2), (4, 4), (16, 16), (17, 10)])
def test_each_class_has_a_column_unless_there_are_too_many(classes: int, columns: int) -> None:
    """Samples are of each class in turn, so a column shows one class."""
    samples = image_set(random_pixels(34, seed=0), class_names=[f"class {i}" for i in range(classes)])
    width, height = size(sections.images_section(samples, []).figures[0])
    # Images of 6x6 pixels with a gap of one between them and around.
    assert width / height == (1 + 7 * columns) / (1 + 7 * -(-34 // columns))


def measured(images: int, **told: Any) -> dict[str, Any]:
    losses = {"held_out_losses": [0.2, 0.3], "training_losses": [0.2, 0.3], "sigmas": [0.1, 1.0]}
    return {"images": images, "loss": 0.25, "held_out_loss": 0.25, **losses, **told}


@pytest.mark.usefixtures("undrawn")
def test_the_last_measurement_in_training_is_told() -> None:
    falling = {"held_out_change": [-0.03, 0.001], "memorization_gap": [0.0, 0.01]}
    rising = {"held_out_change": [0.05, 0.001], "memorization_gap": [0.0, 0.01]}
    lines = [measured(0), {"images": 50, "loss": 0.3}, measured(100, **falling), measured(200, **rising)]
    (section,) = sections.training_sections(lines)
    assert "it rose by 5.0%" in section.text
    assert len(section.figures) == 1
    assert sections.training_sections([{"images": 50, "loss": 0.3}]) == []


@pytest.mark.usefixtures("undrawn")
def test_the_line_to_infinity_stands_beside_its_table() -> None:
    counts = np.array([500, 750, 1000])
    section = sections.extrapolation_section(fit_line(counts, 10 + 2000 / counts), "FD", 60)
    assert section.rows == [["500", "14.00"], ["750", "12.67"], ["1,000", "12.00"]]
    page.write_page(Path("page.html"), "title", "", [], [section])
    assert 'class="side-by-side"' in Path("page.html").read_text()
