"""The page's words: what each section says of the findings, with their numbers."""

from collections.abc import Mapping

from undiffuse.exploration.duplicates import LEAST_LIKENESS, MOST_BITS, SURE_LIKENESS
from undiffuse.exploration.findings import Findings
from undiffuse.exploration.framing import LOSES_MUCH
from undiffuse.exploration.inventory import Spread
from undiffuse.exploration.named_duplicates import Member, at_least, percent
from undiffuse.report.page import Figure, Fold, Section
from undiffuse.utils.text import duration, listed, number, plural, size_text

Figures = Mapping[str, Figure]
"""The figures that there are, by name."""

SHOWN_BAD = 20
"""Up to so many bad files their table stands open."""

MOST_ROWS = 200
"""Of a table of duplicates; statistics.json has all."""


def lead(found: Findings) -> str:
    kind = {1: "gray", 3: "RGB", 4: "RGBA"}[found.channels]
    splits = found.inventory.splits
    split = "" if not splits else " All splits together." if found.split == "all" else f" Split {found.split} alone."
    return (
        "What there is, what is wrong with it, and what noise does to it. Pixels are as training would read them: "
        f"{size_text(found.size)} {kind}, fit {found.fit}.{split} What to train first stands at the end."
    )


def headline(found: Findings) -> list[tuple[str, str]]:
    inventory, copies = found.inventory, found.copies
    return [
        ("images", f"{inventory.images:,}"),
        *([("classes", f"{len(inventory.classes):,}")] if inventory.classes else []),
        ("files that cannot be decoded", f"{len(inventory.bad_files):,}"),
        ("exact copies", f"{copies.superfluous:,}"),
        ("pairs that are nearly the same", at_least(copies, len(copies.near_pairs))),
    ]


CAPTIONS = {
    "classes": "Images in each class, the largest class first.",
    "sizes": "Width and height of the files, upright. Larger dots: more images. Dotted: common proportions.",
    "framing": "From the image that a crop cuts most to the one that it cuts least. Left the original, what a crop "
    "loses of it dimmed; right what training reads.",
    "samples": "Drawn at random, evenly over the classes.",
    "augmented": "Each in its place, transformed once as listed. Compare place by place.",
    "histograms": "How many pixels have each level. Levels 0 and 255 are in the table. Thin lines: means.",
    "mean": "A clear shape means that the images agree there: centered objects, a common background or border.",
    "duplicates": "One pair of each group of duplicates.",
    "doubtful": "Pairs that only just count: look here to judge how far to trust the number.",
    "noise": "The same image, the same noise, the same t. Below each pair: the share of the image's amplitude that "
    "is left.",
    "snr": "alpha bar / (1 - alpha bar) over t / T, on a logarithmic axis. Below 1 there is more noise than signal.",
    "signal": "The factor before the clean image in DDPM's x_t. Linear leaves little of it in the last quarter of "
    "the chain; cosine goes on to the end.",
}
"""What stands under each figure."""


def sections(found: Findings, figures: Figures) -> list[Section]:
    return [
        _found(found),
        *([_classes(found, figures)] if found.balance else []),
        _sizes(found, figures),
        _samples(found, figures),
        _colors(found, figures),
        _duplicates(found, figures),
        _noise(found, figures),
        *([_suggestion(found)] if found.suggestion else []),
    ]


def _found(found: Findings) -> Section:
    inventory = found.inventory
    bad = [[bad_file.name, bad_file.reason] for bad_file in inventory.bad_files]
    text = f"{plural(len(bad), 'file')} cannot be decoded: left out of everything below, and by train."
    fold = Fold("What cannot be decoded, and why", ["file", "reason"], bad, opened=len(bad) <= SHOWN_BAD)
    return Section(
        "What was found",
        text if bad else "Every file could be decoded.",
        rows=[
            ["splits", listed(inventory.splits) or "none"],
            ["classes", f"{len(inventory.classes):,}" if inventory.classes else "none"],
            ["file formats", listed(inventory.formats)],
            ["modes", listed(inventory.modes)],
            ["sizes, height x width", listed(inventory.sizes)],
            ["proportions", f"{inventory.landscape:,} wide, {inventory.portrait:,} tall, {inventory.square:,} square"],
        ],
        folds=[fold] if bad else [],
    )


def _classes(found: Findings, figures: Figures) -> Section:
    balance, splits = found.balance, list(found.inventory.splits)
    assert balance is not None, "asked for with classes only"
    ratio = "the smallest class is empty" if balance.imbalance_ratio is None else number(balance.imbalance_ratio)
    ordered = sorted(found.inventory.classes, key=lambda c: -c.images)
    return Section(
        "Balance of the classes",
        "A model sees each image equally often, so it learns large classes better. Entropy says in one number how "
        "even the classes are: 100% if each is equally likely.",
        _only(figures, "classes"),
        rows=[
            ["images of the largest", f"{balance.largest.images:,} ({balance.largest.name})"],
            ["images of the smallest", f"{balance.smallest.images:,} ({balance.smallest.name})"],
            ["imbalance ratio, largest to smallest", ratio],
            ["entropy", f"{balance.entropy_bits:.3f} bits, {balance.evenness:.1%} of the most possible"],
        ],
        folds=[
            Fold(
                f"All {len(ordered):,} classes",
                ["class", "images", *splits],
                [[c.name, f"{c.images:,}", *(f"{c.splits[split]:,}" for split in splits)] for c in ordered],
            )
        ],
        side_by_side=True,
    )


def _sizes(found: Findings, figures: Figures) -> Section:
    inventory, frame = found.inventory, found.framing
    rows = [
        ["width", _spread(inventory.width, " px")],
        ["height", _spread(inventory.height, " px")],
        ["width / height", _spread(inventory.aspect)],
        ["area kept", f"{frame.kept_mean:.1%} on average, {frame.kept_least:.1%} of the image that loses most"],
        [f"images that lose over {LOSES_MUCH:.0%}", f"{frame.losing_much:,}"],
        ["pixels left after resizing", f"{number(frame.pixels_median)} for each that was not cut off (median)"],
        ["images that are enlarged", f"{frame.enlarged:,}"],
    ]
    if frame.fit == "pad":
        rows.append(["share of the frame that is padding", f"{frame.padding_mean:.1%} on average"])
    if frame.fit == "stretch":
        rows.append(["proportions change by up to", f"{number(frame.stretched_most)} times"])
    return Section(
        "Sizes, and what is lost",
        f"Training reads every image at {size_text(found.size)}. That costs what the fit cuts off, and detail.",
        _only(figures, "sizes", "framing"),
        ["", "least, median, most"] if len(inventory.sizes) > 1 else (),
        rows,
        side_by_side=True,
    )


def _samples(found: Findings, figures: Figures) -> Section:
    return Section(
        "Samples, and the same augmented",
        "Augmentation shows the model variants instead of the same image again and again. A model draws what it is "
        "shown: mirrored digits or letters, or cut-off heads, if those are among the augmented. Presets use less than "
        "this, or none; --set augmentation.flip=true augmentation.crop_scale=0.6 is what you see here.",
        _only(figures, "samples", "augmented"),
        rows=[[f"{i}.", transform] for i, transform in enumerate(found.augmentation, 1)],
        side_by_side=True,
    )


def _colors(found: Findings, figures: Figures) -> Section:
    rows = []
    for c in found.colors.channels:
        unit, clipped = f"{c.unit_mean:+.2f} ± {c.unit_std:.2f}", (f"{c.darkest:.1%}", f"{c.brightest:.1%}")
        rows.append([c.name, f"{c.mean:.1f}", f"{c.std:.1f}", unit, *clipped])
    return Section(
        "Colors",
        "Over all pixels of all images, as they are in the frame. Training sees them in [-1, 1]; their standard "
        f"deviation there is {found.colors.unit_std:.3f} (EDM's sigma_data, which its paper takes as 0.5).",
        _only(figures, "histograms", "mean"),
        ["channel", "mean", "sd", "in [-1, 1]", "at 0", "at 255"],
        rows,
        side_by_side=True,
    )


def _duplicates(found: Findings, figures: Figures) -> Section:
    copies = found.copies
    exact = [[i, _member(member)] for i, group in enumerate(copies.exact_groups, 1) for member in group]
    near = [[*map(_member, pair.members), percent(pair.similarity), pair.bits] for pair in copies.near_pairs]
    return Section(
        "Duplicates",
        _how_duplicates(found),
        _only(figures, "duplicates", "doubtful"),
        rows=[
            ["exact copies, which could go", f"{copies.superfluous:,}"],
            ["pairs nearly the same", at_least(copies, len(near))],
            [
                "groups that hang together",
                f"{at_least(copies, copies.groups)}, the largest of {plural(copies.largest_group, 'image')}",
            ],
            *([f"images of {s} that train has too", at_least(copies, n)] for s, n in copies.across_splits.items()),
            *(
                [["groups of several classes", at_least(copies, copies.across_classes)]]
                if found.inventory.classes
                else []
            ),
        ],
        folds=[
            *_folded("Images with the same pixels, by group", ["group", "image"], exact),
            *_folded("Pairs nearly the same", ["one", "the other", "alike", "bits"], near),
        ],
        side_by_side=True,
    )


def _how_duplicates(found: Findings) -> str:
    copies = found.copies
    asked, usual = f"{copies.asked_similarity:.3f}", f"{copies.usual_similarity:.3f}"
    bounds = {LEAST_LIKENESS: "but less is never asked", SURE_LIKENESS: "but more is never asked"}
    own = "and a duplicate must be at most half as far away. These images set the threshold themselves"
    return (
        f"Exact: the same pixels at {size_text(found.size)}. Near: difference hashes (64 bits: is each of 8x8 areas brighter "
        f"than its left neighbor?) differ in at most {MOST_BITS} bits, and 8x8 gray thumbnails correlate at least "
        f"{asked}. The median image correlates {usual} with the one most like it, "
        f"{bounds.get(copies.asked_similarity, own)}. Mirrored or turned copies are not looked for."
        + ("" if copies.complete else " The search ended early: there are more pairs than it keeps.")
    )


def _member(member: Member) -> str:
    where = ", ".join(filter(None, (member.split, member.class_name)))
    return f"{member.name} ({where})" if where else member.name


def _folded(what: str, head: list[str], rows: list[list]) -> list[Fold]:
    """The first rows behind a line that says how many there are; nothing for none."""
    cut = f": the first {MOST_ROWS} of {len(rows):,}, all are in statistics.json" if len(rows) > MOST_ROWS else ""
    return [Fold(what + cut, head, rows[:MOST_ROWS])] if rows else []


def _noise(found: Findings, figures: Figures) -> Section:
    noise = found.noising
    crossing = " and ".join(f"{share:.0%} of the {name} one" for name, share in noise.as_much_noise.items())
    levels = [
        [
            f"{at.t:,}",
            *(words for level in at.schedules.values() for words in (f"{level.signal:.1%}", number(level.snr, 2))),
        ]
        for at in noise.levels
    ]
    return Section(
        "What noise does to them",
        f"Diffusion trains on images at every level of a chain of {noise.num_timesteps:,}. Noise is as strong as "
        f"signal after {crossing}. Where nothing can be seen any more, little can be learned: Nichol & Dhariwal (2021, "
        "section 3.2) made cosine because linear spends its last quarter there.",
        _only(figures, "noise", "snr", "signal"),
        folds=[
            Fold(
                f"{len(levels)} levels of the chain in numbers",
                ["t", *(f"{name}: {what}" for name in noise.as_much_noise for what in ("signal kept", "SNR"))],
                levels,
            )
        ],
        side_by_side=True,
    )


def _suggestion(found: Findings) -> Section:
    first = found.suggestion
    assert first is not None, "asked for with a suggestion only"
    return Section(
        "What to train first",
        " ".join(first.reasons),
        command=first.command,
        rows=[
            ["preset", first.preset],
            ["size", size_text(first.size)],
            ["budget", f"{first.total_images:,} images, each image {number(first.passes)} times"],
            ["time", f"about {duration(first.seconds)} on this machine ({first.device})"],
            ["speed", f"{number(first.images_per_second)} images/s, measured at {size_text(first.measured_size)}"],
        ],
    )


def _only(figures: Figures, *names: str) -> list[Figure]:
    return [figures[name] for name in names if name in figures]


def _spread(found: Spread, unit: str = "") -> str:
    if found.least == found.most:
        return f"{number(found.least, 4)}{unit}"
    return f"{number(found.least, 4)}, {number(found.median, 4)}, {number(found.most, 4)}{unit}"
