"""The page, the figures as files, and the numbers as JSON."""

from functools import partial
from pathlib import Path

from undiffuse.exploration import charts, sections, sheets
from undiffuse.exploration.findings import Exhibits, Findings, to_json
from undiffuse.report import page, style
from undiffuse.utils.files import atomic_path, write_atomically
from undiffuse.utils.terminal import track
from undiffuse.utils.text import plural


def figures(found: Findings, shown: Exhibits) -> dict[str, style.Draw]:
    """What can be drawn, by the name of its file."""
    drawn: dict[str, style.Draw] = {
        "classes": partial(charts.class_balance, found.inventory),
        "sizes": partial(charts.image_sizes, found.inventory),
        "framing": partial(sheets.framed, shown.beside, found.size, found.fit),
        "samples": partial(sheets.before_augmentation, shown.samples),
        "augmented": partial(sheets.after_augmentation, shown.samples),
        "histograms": partial(charts.channel_histograms, found.colors),
        "mean": partial(sheets.mean_image, shown.mean_image),
        "duplicates": partial(sheets.pairs, shown.sure_pairs, "The surest duplicates"),
        "doubtful": partial(sheets.pairs, shown.doubtful_pairs, "The most doubtful ones"),
        "noise": partial(sheets.noise, shown.samples.before[0], shown.schedules, shown.seed),
        "snr": partial(charts.signal_to_noise, shown.schedules),
        "signal": partial(charts.signal_kept, shown.schedules),
    }
    there_is = {
        "classes": bool(found.inventory.classes),
        "sizes": len(found.inventory.sizes) > 1,
        "framing": bool(shown.beside),
        "duplicates": bool(shown.sure_pairs),
        "doubtful": bool(shown.doubtful_pairs),
    }
    return {name: draw for name, draw in drawn.items() if there_is.get(name, True)}


def write(folder: Path, found: Findings, shown: Exhibits) -> None:
    """Writes report.html, figures/ and statistics.json into `folder`; figures of an earlier report go.

    Raises:
        OSError: `folder` cannot be written to.
    """
    drawn = figures(found, shown)
    drawings: dict[str, tuple[bytes, bytes]] = {}
    for name, draw in track(drawn.items(), "drawing figures", len(drawn)):
        drawings[name] = style.png(draw, style.LIGHT), style.png(draw, style.DARK)
        with atomic_path(folder / "figures" / f"{name}.png", durable=False) as temporary:
            temporary.write_bytes(drawings[name][0])
    for name in sections.CAPTIONS.keys() - drawn.keys():
        (folder / "figures" / f"{name}.png").unlink(missing_ok=True)
    write_atomically(folder / "statistics.json", to_json(found))
    captioned = {name: page.from_png(*of_figure, sections.CAPTIONS[name]) for name, of_figure in drawings.items()}
    page.write_page(
        folder / "report.html",
        title=f"{found.name}: {plural(found.inventory.images, 'image')}",
        lead=sections.lead(found),
        headline=sections.headline(found),
        sections=sections.sections(found, captioned),
    )
