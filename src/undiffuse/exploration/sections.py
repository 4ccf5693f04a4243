"""The text and tables of the page, section by section."""

from collections.abc import Iterable, Mapping

from undiffuse.exploration.duplicates import MAX_HAMMING, MAX_THRESHOLD, MIN_THRESHOLD
from undiffuse.exploration.framing import HEAVY_CROP
from undiffuse.exploration.inventory import Range
from undiffuse.exploration.named_duplicates import NamedDuplicates, NamedImage, count_text, similarity_text
from undiffuse.exploration.statistics import Statistics
from undiffuse.report.page import Figure, Fold, Section
from undiffuse.utils.text import CHANNELS, duration, listed, number, plural, size_text

Figures = Mapping[str, Figure]
"""The available figures, by name."""

OPENED_BAD_FILES = 20
"""The table of bad files starts opened if there are at most this many."""

MAX_ROWS = 200
"""In a table of duplicates; statistics.json has all of them."""


def lead(statistics: Statistics) -> str:
    splits = statistics.inventory.splits
    split = (
        ""
        if not splits
        else " All splits together."
        if statistics.split == "all"
        else f" Only the split {statistics.split}."
    )
    reading = f"{size_text(statistics.size)} {CHANNELS[statistics.channels]}, fit {statistics.fit}"
    ending = "" if statistics.suggestion is None else " A suggestion for a first run is at the end."
    return (
        "What the data contain, what is wrong with them, and what noise does to them. Pixels are shown as training "
        f"would read them: {reading}.{split}{ending}"
    )


def headline(statistics: Statistics) -> list[tuple[str, str]]:
    inventory, duplicates = statistics.inventory, statistics.duplicates
    return [
        ("images", f"{inventory.images:,}"),
        *([("classes", f"{len(inventory.classes):,}")] if inventory.classes else []),
        ("files that cannot be decoded", f"{len(inventory.bad_files):,}"),
        ("exact duplicates", f"{duplicates.redundant:,}"),
        ("near-duplicate pairs", count_text(duplicates, len(duplicates.near_pairs))),
    ]


def sections(statistics: Statistics, figures: Figures) -> list[Section]:
    return [
        _contents(statistics),
        *([_classes(statistics, figures)] if statistics.balance else []),
        _sizes(statistics, figures),
        _samples(statistics, figures),
        _colors(statistics, figures),
        _duplicates(statistics, figures),
        _noise(statistics, figures),
        *([_suggestion(statistics)] if statistics.suggestion else []),
    ]


def _contents(statistics: Statistics) -> Section:
    inventory = statistics.inventory
    bad = [[one.name, one.reason] for one in inventory.bad_files]
    text = f"{plural(len(bad), 'file')} cannot be decoded: left out of everything below, and by train."
    fold = Fold("Files that cannot be decoded, and why", ["file", "reason"], bad, opened=len(bad) <= OPENED_BAD_FILES)
    orientation = f"{inventory.landscape:,} landscape, {inventory.portrait:,} portrait, {inventory.square:,} square"
    return Section(
        "Contents",
        text if bad else "Every file can be decoded.",
        rows=[
            ["splits", listed(inventory.splits) or "none"],
            ["classes", f"{len(inventory.classes):,}" if inventory.classes else "none"],
            ["file formats", listed(inventory.formats)],
            ["modes", listed(inventory.modes)],
            ["sizes, height x width", listed(inventory.sizes)],
            ["orientation", orientation],
        ],
        folds=[fold] if bad else [],
    )


def _classes(statistics: Statistics, figures: Figures) -> Section:
    balance, splits = statistics.balance, list(statistics.inventory.splits)
    assert balance is not None, "only called if there are classes"
    ratio = "the smallest class is empty" if balance.imbalance_ratio is None else number(balance.imbalance_ratio)
    ordered = sorted(statistics.inventory.classes, key=lambda one: -one.images)
    return Section(
        "Class balance",
        "A model sees every image equally often, so it learns large classes better. Entropy says in one number how "
        "even the classes are: 100% if all have the same size.",
        _available(figures, "classes"),
        rows=[
            ["largest class", f"{balance.largest.images:,} images ({balance.largest.name})"],
            ["smallest class", f"{balance.smallest.images:,} images ({balance.smallest.name})"],
            ["imbalance ratio, largest to smallest", ratio],
            ["entropy", f"{balance.entropy_bits:.3f} bits, {balance.evenness:.1%} of its maximum"],
        ],
        folds=[
            Fold(
                f"All {len(ordered):,} classes",
                ["class", "images", *splits],
                [[one.name, f"{one.images:,}", *(f"{one.splits[split]:,}" for split in splits)] for one in ordered],
            )
        ],
        side_by_side=True,
    )


def _sizes(statistics: Statistics, figures: Figures) -> Section:
    inventory, framing = statistics.inventory, statistics.framing
    rows = [
        ["width", _range(inventory.width, " px")],
        ["height", _range(inventory.height, " px")],
        ["width / height", _range(inventory.aspect)],
        ["area kept", f"{framing.kept_mean:.1%} on average, {framing.kept_min:.1%} of the most heavily cropped image"],
        [f"images that lose over {HEAVY_CROP:.0%}", f"{framing.heavily_cropped:,}"],
        ["pixels after resizing", f"{number(framing.pixel_ratio_median)} per original pixel kept (median)"],
        ["images that are enlarged", f"{framing.upscaled:,}"],
    ]
    if framing.fit == "pad":
        rows.append(["fraction of the frame that is padding", f"{framing.padding_mean:.1%} on average"])
    if framing.fit == "stretch":
        rows.append(["proportions change by up to", f"a factor of {number(framing.stretch_max)}"])
    return Section(
        "Sizes, and what is lost",
        f"Training reads every image at {size_text(statistics.size)}: it loses what the fit cuts off, and detail.",
        _available(figures, "sizes", "framing"),
        ["", "minimum, median, maximum"] if len(inventory.sizes) > 1 else (),
        rows,
        side_by_side=True,
    )


def _samples(statistics: Statistics, figures: Figures) -> Section:
    return Section(
        "Samples, and the same images augmented",
        "Augmentation shows the model variants of an image instead of the same pixels every time. The model then "
        "generates such variants, too: mirrored letters or cropped heads, if the augmented images contain them. The "
        "presets augment less than this, or not at all; this is --set augmentation.flip=true "
        "augmentation.crop_scale=0.6.",
        _available(figures, "samples", "augmented"),
        rows=[[f"{i}.", transform] for i, transform in enumerate(statistics.augmentation, 1)],
        side_by_side=True,
    )


def _colors(statistics: Statistics, figures: Figures) -> Section:
    rows = []
    for c in statistics.colors.channels:
        unit, clipped = f"{c.unit_mean:+.2f} ± {c.unit_std:.2f}", (f"{c.fraction_at_0:.1%}", f"{c.fraction_at_255:.1%}")
        rows.append([c.name, f"{c.mean:.1f}", f"{c.std:.1f}", unit, *clipped])
    return Section(
        "Colors",
        "Over all pixels of all images, after cropping and resizing. Training sees them in [-1, 1], where their "
        f"standard deviation is {statistics.colors.unit_std:.3f} (EDM's sigma_data, which the paper sets to 0.5).",
        _available(figures, "histograms", "mean"),
        ["channel", "mean", "std", "in [-1, 1]", "at 0", "at 255"],
        rows,
        side_by_side=True,
    )


def _duplicates(statistics: Statistics, figures: Figures) -> Section:
    found = statistics.duplicates
    exact = [[i, _image_text(one)] for i, group in enumerate(found.exact_groups, 1) for one in group]
    near = [
        [*map(_image_text, pair.images), similarity_text(pair.similarity), pair.hamming_distance]
        for pair in found.near_pairs
    ]
    groups = f"{count_text(found, found.groups)}, the largest with {plural(found.largest_group, 'image')}"
    mixed = [["groups with several classes", count_text(found, found.mixed_class_groups)]]
    return Section(
        "Duplicates",
        _how_duplicates(found, statistics.size),
        _available(figures, "duplicates", "doubtful"),
        rows=[
            ["exact duplicates, which could be removed", f"{found.redundant:,}"],
            ["near-duplicate pairs", count_text(found, len(near))],
            ["groups of connected duplicates", groups],
            *(
                [f"images of {s} that are also in train", count_text(found, n)]
                for s, n in found.shared_with_train.items()
            ),
            *(mixed if statistics.inventory.classes else []),
        ],
        folds=[
            *_folded("Images with the same pixels, by group", ["group", "image"], exact),
            *_folded("Near-duplicate pairs", ["image", "its duplicate", "similarity", "bits apart"], near),
        ],
        side_by_side=True,
    )


def _how_duplicates(found: NamedDuplicates, size: tuple[int, int]) -> str:
    bounds = {
        MIN_THRESHOLD: "but the threshold is never lower than this",
        MAX_THRESHOLD: "but the threshold is never higher than this",
    }
    relative = "and a duplicate must be at most half as far away. The threshold thus follows from these images"
    return (
        f"Exact: the same pixels at {size_text(size)}. Near: the difference hashes (64 bits: is each of 8x8 areas "
        f"brighter than its left neighbor?) differ in at most {MAX_HAMMING} bits, and the 8x8 gray thumbnails have a "
        f"correlation of at least {found.threshold:.3f}. The median image has a correlation of "
        f"{found.median_similarity:.3f} with its nearest neighbor, {bounds.get(found.threshold, relative)}. Mirrored "
        "and rotated copies are not detected."
        + ("" if found.complete else " The search stopped early, so there are more pairs than are listed.")
    )


def _image_text(image: NamedImage) -> str:
    where = ", ".join(filter(None, (image.split, image.class_name)))
    return f"{image.name} ({where})" if where else image.name


def _folded(title: str, head: list[str], rows: list[list]) -> list[Fold]:
    """The first rows, with a note if there are more; nothing if there are none."""
    cut = f": the first {MAX_ROWS} of {len(rows):,} (statistics.json has all)" if len(rows) > MAX_ROWS else ""
    return [Fold(title + cut, head, rows[:MAX_ROWS])] if rows else []


def _noise(statistics: Statistics, figures: Figures) -> Section:
    noising = statistics.noising
    crossovers = " and ".join(f"{time:.0%} of the {name} schedule" for name, time in noising.crossover.items())
    rows = [
        [f"{step.t:,}", *_flat((f"{at.signal:.1%}", number(at.snr, 2)) for at in step.schedules.values())]
        for step in noising.timesteps
    ]
    return Section(
        "What noise does to them",
        f"Diffusion models train on images at every noise level of a schedule, here in {noising.num_timesteps:,} "
        f"timesteps. Noise becomes as strong as the signal after {crossovers}. Where nothing of the image is visible, "
        "little can be learned: Nichol & Dhariwal (2021, section 3.2) introduced the cosine schedule because the "
        "linear one spends its last quarter there.",
        _available(figures, "noise", "snr", "signal"),
        folds=[
            Fold(
                f"{len(rows)} timesteps in numbers",
                ["t", *_flat((f"{name}: signal", f"{name}: SNR") for name in noising.crossover)],
                rows,
            )
        ],
        side_by_side=True,
    )


def _suggestion(statistics: Statistics) -> Section:
    run = statistics.suggestion
    assert run is not None, "only called if there is a suggestion"
    return Section(
        "What to train first",
        " ".join(run.reasons),
        command=run.command,
        rows=[
            ["preset", run.preset],
            ["size", size_text(run.size)],
            ["budget", f"{run.total_images:,} images seen, each image {number(run.epochs)} times"],
            ["time", f"about {duration(run.seconds)} on this machine ({run.device})"],
            ["speed", f"{number(run.images_per_second)} images/s, measured at {size_text(run.measured_size)}"],
        ],
    )


def _available(figures: Figures, *names: str) -> list[Figure]:
    return [figures[name] for name in names if name in figures]


def _flat(pairs: Iterable[tuple[str, str]]) -> list[str]:
    return [text for pair in pairs for text in pair]


def _range(values: Range, unit: str = "") -> str:
    if values.min == values.max:
        return f"{number(values.min, 4)}{unit}"
    return f"{number(values.min, 4)}, {number(values.median, 4)}, {number(values.max, 4)}{unit}"
