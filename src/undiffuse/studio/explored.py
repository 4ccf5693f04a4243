"""What `explore` says of images, in short, with a link to its whole page."""

import threading
from collections.abc import Generator
from html import escape
from typing import TypeVar

from undiffuse.api.explore import explore
from undiffuse.data.pixels import to_nchw
from undiffuse.exploration.explore import Exploration
from undiffuse.exploration.suggestion import Suggestion
from undiffuse.studio import markup
from undiffuse.studio.line import Line, in_line
from undiffuse.studio.work import Progress
from undiffuse.utils.text import duration, listed, number, plural, size_text

T = TypeVar("T")

NAMED = 5
"""Bad files that are named; the others are counted."""

UNEVEN = 0.9
"""Entropy of the classes, of its maximum, below which they are called uneven."""


def explored(data: str, suggest: bool, line: Line) -> Generator[str, None, tuple[Exploration, Suggestion | None]]:
    """Looks at the images when it is their turn in line, yields progress as markup, and returns what was found and, if
    asked for, a first run.

    Raises:
        ValueError: there are no images in `data`, it cannot be read, or the line is full.
    """
    with line.place() as place:
        for before in place.waiting(threading.Event()):
            yield markup.empty(in_line(before), running=True)
        return (yield from _explored(data, suggest))


def _explored(data: str, suggest: bool) -> Generator[str, None, tuple[Exploration, Suggestion | None]]:
    looks = Progress(lambda: explore(data, suggest=suggest))
    found = yield from _told(looks, "Looking at the images")
    if not suggest:
        return found, None
    measuring = Progress(lambda: found.suggestion)
    suggestion = yield from _told(measuring, "Measuring how fast this machine trains")
    return found, suggestion


def _told(work: Progress[T], what: str) -> Generator[str, None, T]:
    looks = work.looks()
    while True:
        try:
            now = next(looks)
        except StopIteration as end:
            return end.value
        words = f"{what} · {now.what} · {now.seconds:.0f} s" if now.what else f"{what} · {now.seconds:.0f} s"
        yield markup.stage(markup.meter(now.fraction, words), running=True)


def as_markup(found: Exploration, page: str) -> str:
    """Counts, sizes, warnings, some of the images, and a link to the whole report, whose address is `page`."""
    inventory = found.inventory
    cards = [
        ("Images", f"{inventory.images:,}"),
        ("Classes", f"{len(inventory.classes):,}" if inventory.classes else "none"),
        ("Read as", f"{size_text(found.measured.size)}"),
        ("Duplicates", f"{found.duplicates.redundant + len(found.duplicates.near_pairs):,}"),
    ]
    samples = found.figure_data.samples
    sheet = markup.tiles(to_nchw(samples.before), samples.names, columns=8)
    more = (
        f'<p class="downloads"><a class="download" href="{escape(page)}" target="_blank">Open the full report</a></p>'
    )
    told = "".join(markup.note(each, "warning") for each in warnings(found))
    return markup.facts(cards) + told + sheet + markup.rows(found_rows(found)) + more


def found_rows(found: Exploration) -> list[tuple[str, str]]:
    """Names and values of the headers of the files."""
    inventory = found.inventory
    lines = [
        ("files", f"{listed(inventory.formats)}; {listed(inventory.modes)}"),
        ("sizes", listed(inventory.sizes, most=3)),
    ]
    if inventory.classes:
        lines.append(("classes", listed({each.name: each.images for each in inventory.classes}, most=10)))
    return [*lines, ("framing", f"{found.measured.fit} keeps {found.framing.kept_mean:.1%} of the area")]


def warnings(found: Exploration) -> list[str]:
    """What to look at before training, one sentence each."""
    inventory, told = found.inventory, []
    if inventory.bad_files:
        names = ", ".join(f"{bad.name} ({bad.reason})" for bad in inventory.bad_files[:NAMED])
        more = f" and {len(inventory.bad_files) - NAMED:,} more" if len(inventory.bad_files) > NAMED else ""
        told.append(
            f"{plural(len(inventory.bad_files), 'file')} left out, because they cannot be decoded: {names}{more}."
        )
    if found.duplicates.redundant:
        told.append(f"{plural(found.duplicates.redundant, 'image')} repeat another one exactly: remove them.")
    shared = sum(found.duplicates.shared_with_train.values())
    if shared:
        told.append(f"{plural(shared, 'image')} of val or test have a duplicate in train: an evaluation would mislead.")
    if found.balance is not None and found.balance.evenness < UNEVEN:
        least, most = found.balance.smallest, found.balance.largest
        told.append(
            f"The classes are uneven: {least.name} has {plural(least.images, 'image')}, {most.name} {most.images:,}."
        )
    if found.framing.upscaled:
        told.append(f"{plural(found.framing.upscaled, 'image')} are smaller than what they are read as: enlarged.")
    return told


def suggestion_markup(suggestion: Suggestion | None) -> str:
    """The first run that is suggested, with its reasons."""
    if suggestion is None:
        return ""
    cards = [
        ("Size", size_text(suggestion.size)),
        ("Budget", f"{suggestion.total_images:,} images"),
        ("Takes about", duration(suggestion.seconds)),
        ("Speed", f"{number(suggestion.images_per_second)} images/s"),
    ]
    reasons = "".join(f"<li>{escape(reason)}</li>" for reason in suggestion.reasons)
    return f"<h3>Suggested first run</h3>{markup.facts(cards)}<ul class='reasons'>{reasons}</ul>"
