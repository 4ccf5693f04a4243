"""Figures show the statistics, in light and dark mode."""

import warnings
from pathlib import Path

import matplotlib
import numpy as np
import pytest
from helpers.exploring import explored, messy, smooth
from helpers.making import save, save_noise
from matplotlib.axes import Axes
from matplotlib.collections import PathCollection
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.text import Text

from undiffuse.exploration import charts, sheets
from undiffuse.exploration.explore import Exploration
from undiffuse.exploration.figures import plots
from undiffuse.exploration.noising import paper_schedules
from undiffuse.report import style


def texts(figure: Figure) -> list[str]:
    return [text.get_text() for text in figure.findobj(Text) if text.get_text()]


def rectangles(axes: Axes) -> list[Rectangle]:
    return [patch for patch in axes.patches if isinstance(patch, Rectangle)]


def pets(folder: Path, classes: int = 3) -> Path:
    names = [f"train/{c:02}/{i}.png" for c in range(classes) for i in range(c + 1)]
    return save_noise(folder, *names, *(f"test/{c:02}/0.png" for c in range(classes)))


@pytest.mark.parametrize("classes", [3, charts.MAX_NAMED + 1])
def test_bars_are_as_long_as_classes_are_large(tmp_path: Path, classes: int) -> None:
    found = explored(pets(tmp_path / "p", classes))
    (axes,) = charts.class_balance(found.inventory).axes
    named = classes <= charts.MAX_NAMED
    bars = np.array([bar.get_width() if named else bar.get_height() for bar in rectangles(axes)]).reshape(2, classes)
    assert bars[0].tolist() == list(range(classes, 0, -1))  # Train, the largest class first.
    assert bars[1].tolist() == [1] * classes
    starts = [bar.get_x() if named else bar.get_y() for bar in rectangles(axes)[classes:]]
    assert starts == bars[0].tolist()  # The test split's bars begin where train's end.
    if named:
        assert [label.get_text() for label in axes.get_yticklabels()] == ["02", "01", "00"]


def test_dots_are_at_the_sizes_of_the_files(tmp_path: Path) -> None:
    for i, (height, width) in enumerate([(40, 30), (40, 30), (30, 60)]):
        save(tmp_path / "p" / f"{i}.png", smooth(i, height, width))
    found = explored(tmp_path / "p")
    (axes,) = charts.image_sizes(found.inventory).axes
    (dots,) = axes.collections
    assert isinstance(dots, PathCollection)
    assert sorted(map(tuple, np.asarray(dots.get_offsets()).tolist())) == [(30, 40), (60, 30)]
    assert dots.get_sizes()[0] > dots.get_sizes()[1]  # Two images, and one.


def test_histograms_are_fractions_without_clipped_levels(tmp_path: Path) -> None:
    found = explored(pets(tmp_path / "p"))
    (axes,) = charts.channel_histograms(found.colors).axes
    for channel, line in zip(found.colors.channels, axes.lines[::2], strict=True):
        assert line.get_ydata() == pytest.approx(np.array(channel.histogram[1:-1]) / sum(channel.histogram))
        assert np.asarray(line.get_xdata())[0] == 1


def test_curves_are_the_schedules_at_every_timestep() -> None:
    schedules = paper_schedules(1000)
    (snr,), (signal,) = (draw(schedules).axes for draw in (charts.signal_to_noise, charts.signal_kept))
    assert snr.get_yscale() == "log"
    for i, schedule in enumerate(schedules):
        assert snr.lines[i].get_ydata() == pytest.approx(schedule.snr.numpy())
        assert signal.lines[i].get_ydata() == pytest.approx(schedule.signal.numpy())
        assert np.asarray(snr.lines[i].get_xdata())[[0, -1]].tolist() == [0.001, 1]
        assert snr.lines[i].get_label() == schedule.name


def test_the_noise_sheet_begins_with_the_image_itself(tmp_path: Path) -> None:
    found = explored(pets(tmp_path / "p"))
    image = found.figure_data.samples.before[0]
    figure = sheets.noise(image, found.figure_data.schedules)
    first, second, *noisy = (np.asarray(image.get_array()) for image in figure.axes[0].images)
    assert np.array_equal(first, image)
    assert np.array_equal(second, image)
    linear = [float(np.abs(other.astype(float) - image).mean()) for other in noisy[::2]]
    assert linear == sorted(linear)
    assert linear[0] > 0
    assert texts(figure)[1] == "t/T = 0: the image itself"


def test_samples_are_in_the_same_places_before_and_after(tmp_path: Path) -> None:
    found = explored(pets(tmp_path / "p"))
    before, after = (
        draw(found.figure_data.samples) for draw in (sheets.before_augmentation, sheets.after_augmentation)
    )
    assert texts(before)[1:] == texts(after)[1:] == list(found.figure_data.samples.names)
    for figure, images in ((before, found.figure_data.samples.before), (after, found.figure_data.samples.after)):
        for drawn, image in zip(figure.axes[0].images, images, strict=True):
            assert np.array_equal(np.asarray(drawn.get_array()), image.squeeze())
    assert [image.get_extent() for image in before.axes[0].images] == [i.get_extent() for i in after.axes[0].images]


def test_images_keep_their_proportions(tmp_path: Path) -> None:
    for i in range(3):
        save(tmp_path / "p" / f"{i}.png", smooth(i, 30, 60))
    found = explored(tmp_path / "p", size=(16, 32))
    for image in sheets.before_augmentation(found.figure_data.samples).axes[0].images:
        left, right, bottom, top = image.get_extent()
        assert (right - left) / (bottom - top) == pytest.approx(2)


def test_only_what_a_crop_cuts_off_is_dimmed(tmp_path: Path) -> None:
    save(tmp_path / "p" / "wide.png", smooth(0, 30, 60))
    found = explored(tmp_path / "p", size=(16, 16))
    figure = sheets.before_after(found.figure_data.before_after, (16, 16), "crop")
    original = figure.axes[0].images[0].get_extent()
    dimmed = [patch for patch in rectangles(figure.axes[0]) if patch.get_fill()]
    area = sum(patch.get_width() * patch.get_height() for patch in dimmed)
    assert area == pytest.approx((original[1] - original[0]) * (original[2] - original[3]) / 2)
    assert "30x60: 50% kept" in texts(figure)
    assert not sheets.before_after(found.figure_data.before_after, (16, 16), "pad").axes[0].patches


@pytest.fixture
def everything(tmp_path: Path) -> Exploration:
    folder = messy(tmp_path / "p")
    save(folder / "猫と犬" / "copy.png", smooth(0, 30, 40))
    return explored(folder)


def test_hostile_names_are_drawn_unchanged(everything: Exploration) -> None:
    figure = charts.class_balance(everything.inventory)
    assert {"<script>alert(1)", "$\\frac{1$ & 50%_{", "猫と犬"} <= set(texts(figure))
    assert max(map(len, texts(figure))) <= style.LONGEST_NAME + 20


@pytest.mark.parametrize("colors", [style.LIGHT, style.DARK], ids=["light", "dark"])
def test_figures_draw_without_warnings_in_readable_colors(everything: Exploration, colors: dict) -> None:
    drawn = plots(everything.measured, everything.figure_data)
    assert set(drawn) >= {"classes", "sizes", "framing", "samples", "augmented", "histograms", "mean"}
    assert set(drawn) >= {"duplicates", "noise", "snr", "signal"}
    for name, plot in drawn.items():
        with warnings.catch_warnings(), style.drawn_in(colors):
            warnings.simplefilter("error")
            warnings.filterwarnings("ignore", message="Glyph .* missing from")
            figure = plot()
            figure.draw_without_rendering()
            paper = figure.get_facecolor()
            for text in figure.findobj(Text):
                if text.get_text():
                    assert contrast(text.get_color(), paper) >= 4.5, (name, text)


def contrast(ink, paper) -> float:
    """WCAG 2 requires 4.5 of small print."""

    def luminance(color) -> float:
        channels = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in to_rgb(color)]
        return float(np.dot((0.2126, 0.7152, 0.0722), channels))

    darker, lighter = sorted((luminance(ink), luminance(paper)))
    return (lighter + 0.05) / (darker + 0.05)


def test_a_style_ends_with_its_block() -> None:
    before = dict(matplotlib.rcParams)
    with style.drawn_in(style.DARK):
        assert matplotlib.rcParams["figure.facecolor"] == "#15171a"
    assert dict(matplotlib.rcParams) == before
