"""What was found in the few lines that a terminal shows."""

from undiffuse.exploration.findings import Findings
from undiffuse.exploration.named_duplicates import at_least
from undiffuse.utils.text import duration, listed, plural, size_text


def summary(found: Findings) -> list[tuple[str, str]]:
    """Names and values, a line each."""
    inventory, balance, copies, frame = found.inventory, found.balance, found.copies, found.framing
    channels = ", ".join(f"{channel.name} {channel.mean:.0f} ± {channel.std:.0f}" for channel in found.colors.channels)
    shared = [f"{at_least(copies, n)} of {split} are in train too" for split, n in copies.across_splits.items() if n]
    lines = [
        ("images", ", ".join([f"{inventory.images:,}", *(f"{s} {n:,}" for s, n in inventory.splits.items())])),
        ("files", f"{listed(inventory.formats)}; {listed(inventory.modes)}"),
        ("sizes", listed(inventory.sizes, most=3)),
    ]
    if inventory.bad_files:
        lines.append(("bad files", f"{len(inventory.bad_files):,}, left out"))
    if balance is not None:
        least, most = balance.smallest.images, balance.largest.images
        counts = f"{plural(most, 'image')} each" if least == most else f"{least:,} to {most:,} images"
        lines.append(("classes", f"{len(inventory.classes):,}, {counts}, entropy {balance.evenness:.1%} of the most"))
    lines += [
        ("read as", f"{size_text(found.size)}, {found.fit} keeps {frame.kept_mean:.1%} of the area"),
        ("colors", f"{channels} (0 to 255)"),
        (
            "duplicates",
            "; ".join(
                [f"{copies.superfluous:,} exact, {at_least(copies, len(copies.near_pairs))} near pairs", *shared]
            ),
        ),
    ]
    if found.suggestion is not None:
        took = f"about {duration(found.suggestion.seconds)} on this machine ({found.suggestion.device})"
        lines += [("train first", found.suggestion.command), ("", took)]
    return lines
