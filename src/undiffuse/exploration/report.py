"""Writes the page, the figures and the statistics."""

from collections.abc import Mapping
from pathlib import Path

from undiffuse.exploration import sections
from undiffuse.exploration.figures import CAPTIONS
from undiffuse.exploration.statistics import Statistics, to_json
from undiffuse.report import page, style
from undiffuse.utils.files import atomic_path, write_atomically
from undiffuse.utils.terminal import track
from undiffuse.utils.text import plural


def write_report(folder: Path, statistics: Statistics, plots: Mapping[str, style.Plot]) -> None:
    """Writes report.html, figures/ and statistics.json into `folder`, and removes figures of an earlier report.

    Raises:
        OSError: `folder` cannot be written to.
    """
    figures: dict[str, page.Figure] = {}
    for name, plot in track(plots.items(), "drawing figures", len(plots)):
        light, dark = style.png(plot, style.LIGHT), style.png(plot, style.DARK)
        with atomic_path(folder / "figures" / f"{name}.png", durable=False) as temporary:
            temporary.write_bytes(light)
        figures[name] = page.from_png(light, dark, CAPTIONS[name])
    for name in CAPTIONS.keys() - plots.keys():
        (folder / "figures" / f"{name}.png").unlink(missing_ok=True)
    write_atomically(folder / "statistics.json", to_json(statistics))
    page.write_page(
        folder / "report.html",
        title=f"{statistics.name}: {plural(statistics.inventory.images, 'image')}",
        lead=sections.lead(statistics),
        headline=sections.headline(statistics),
        sections=sections.sections(statistics, figures),
    )
