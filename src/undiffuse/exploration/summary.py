"""The statistics in the few lines that a terminal shows."""

from undiffuse.exploration.statistics import Statistics
from undiffuse.exploration.suggestion import MANY_EPOCHS
from undiffuse.utils.text import duration, listed, number, plural, size_text


def summary(statistics: Statistics) -> list[tuple[str, str]]:
    """Names and values, one pair per line."""
    inventory, balance, framing = statistics.inventory, statistics.balance, statistics.framing
    channels = ", ".join(f"{one.name} {one.mean:.0f} ± {one.std:.0f}" for one in statistics.colors.channels)
    lines = [
        ("images", ", ".join([f"{inventory.images:,}", *(f"{s} {n:,}" for s, n in inventory.splits.items())])),
        ("files", f"{listed(inventory.formats)}; {listed(inventory.modes)}"),
        ("sizes", listed(inventory.sizes, most=3)),
    ]
    if inventory.bad_files:
        lines.append(("bad files", f"{len(inventory.bad_files):,}, left out"))
    if balance is not None:
        least, most = balance.smallest.images, balance.largest.images
        counts = f"{plural(most, 'image')} each" if least == most else f"{least:,} to {most:,} images each"
        evenness = f"entropy {balance.evenness:.1%} of its maximum"
        lines.append(("classes", f"{len(inventory.classes):,}, {counts}, {evenness}"))
    lines += [
        ("read as", f"{size_text(statistics.size)}, {statistics.fit} keeps {framing.kept_mean:.1%} of the area"),
        ("colors", f"{channels} (0 to 255)"),
        ("duplicates", str(statistics.duplicates)),
    ]
    if statistics.suggestion is not None:
        took = f"about {duration(statistics.suggestion.seconds)} on this machine ({statistics.suggestion.device})"
        lines += [("train first", statistics.suggestion.command), ("", took)]
        if statistics.suggestion.epochs > MANY_EPOCHS:
            times = number(statistics.suggestion.epochs)
            lines.append(("", f"each image is then seen {times} times: often enough to memorize some of them"))
    return lines
