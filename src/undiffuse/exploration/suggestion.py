"""Size, preset and budget of a first run on these images and this machine, each with its reason."""

import shlex
from collections.abc import Callable
from dataclasses import dataclass, replace

from undiffuse.exploration.framing import MULTIPLE, better_size, framing, halvable
from undiffuse.exploration.inventory import Inventory
from undiffuse.presets import RECIPES
from undiffuse.utils.names import Fit
from undiffuse.utils.text import duration, number, size_text

FIRST_RUN_IMAGES = 100_000
"""Of the preset small: five times what gave colors and rough shapes of 480 photos (docs/training.md)."""

FEWEST_IMAGES = 20_000

LONGEST_HOURS = 2.0
"""A first run on a CPU has smaller images, then fewer images, rather than take longer than this."""

SIDES = (64, 48, 32)
"""Longer sides to choose from without a GPU."""

FEW_IMAGES = 1000
"""With fewer a large network learns them by heart before it learns what they have in common."""

MANY_PASSES = 100
"""An image that is seen more often than this may be learned by heart."""

WORTH_ANOTHER_SHAPE = 0.1
"""Another shape is suggested where it keeps this much more of the images' area than a square."""

MADE_FOR = {"digits": "digits", "cifar10": "cifar10-edm"}
"""Presets that are made for one dataset; but for digits' they need a GPU."""

Size = tuple[int, int]
"""Height and width, in pixels."""

Measure = Callable[[str, Size], float]
"""From a preset and a size to the measured seconds an image takes in training."""


@dataclass(frozen=True)
class Suggestion:
    preset: str
    size: Size
    total_images: int
    """Budget, in images seen."""
    passes: float
    """How often each image is then seen."""
    images_per_second: float
    measured_size: Size
    """The size at which the speed was measured; at others it is taken to fall with the number of pixels."""
    seconds: float
    device: str
    reasons: tuple[str, ...]
    command: str


@dataclass(frozen=True)
class Wanted:
    """What the user has fixed already, as words of the command line."""

    data: str
    size: Size | None = None
    fit: Fit = "crop"
    options: tuple[str, ...] = ()
    """Further options that the suggested command repeats, such as --data-root."""
    images: int | None = None
    """That `train` would take, if not all that were looked at."""


def suggest(found: Inventory, wanted: Wanted, auto_size: Size, device: str, measure: Measure) -> Suggestion:
    """`auto_size` is what images are brought to unless asked for otherwise; `device` is cpu, cuda or mps.

    The speed is measured once: where the device is no GPU, on images of at most 32 pixels a side, which takes
    seconds, and taken to fall with the number of pixels.
    """
    images = wanted.images or found.images
    preset, why_preset = _preset(images, wanted.data, device)
    sizes, why_size = _sizes(found, wanted, preset, auto_size, device)
    probe = sizes[0] if device == "cuda" else _scaled(sizes[-1], min(max(sizes[-1]), SIDES[-1]))
    seconds_a_pixel = measure(preset, probe) / (probe[0] * probe[1])
    total_images = RECIPES[preset]().training.total_images or FIRST_RUN_IMAGES

    def hours(size: Size) -> float:
        return total_images * seconds_a_pixel * size[0] * size[1] / 3600

    size = next((size for size in sizes if hours(size) <= LONGEST_HOURS), sizes[-1])
    why = why_size(size)
    if size != sizes[0]:
        took = duration(3600 * hours(sizes[0]))
        why += f" At {size_text(sizes[0])} {total_images:,} images would take {took}: {size_text(size)} is quicker."
    if device != "cuda" and hours(size) > LONGEST_HOURS:
        total_images = max(FEWEST_IMAGES, int(total_images * LONGEST_HOURS / hours(size)) // 10_000 * 10_000)
    seconds = 3600 * hours(size)
    first = Suggestion(
        preset=preset,
        size=size,
        total_images=total_images,
        passes=total_images / images,
        images_per_second=total_images / seconds,
        measured_size=probe,
        seconds=seconds,
        device=device,
        reasons=(),
        command=_command(wanted, preset, size, total_images),
    )
    return replace(first, reasons=(why_preset, why, _why_budget(first)))


def _why_budget(first: Suggestion) -> str:
    reckoned = "" if first.size == first.measured_size else f", reckoned from {size_text(first.measured_size)},"
    speed = f"{number(first.images_per_second)} images/s{reckoned}"
    sentences = [f"{first.total_images:,} images at the measured {speed} take {duration(first.seconds)}."]
    sentences.append(f"Each image is then seen {number(first.passes)} times.")
    if first.passes > MANY_PASSES:
        sentences.append("That is often enough to learn some by heart: more images help more than more training.")
    if first.preset == "small":
        sentences.append(f"{FEWEST_IMAGES:,} gave colors and rough shapes of 480 photos: a first look, no good model.")
    return " ".join(sentences)


def _preset(images: int, data: str, device: str) -> tuple[str, str]:
    if data in MADE_FOR and (data == "digits" or device == "cuda"):
        return MADE_FOR[data], f"The preset {MADE_FOR[data]} is made for these images."
    if device != "cuda":
        return "small", f"The preset small is for machines without a GPU; this one computes on its {device.upper()}."
    if images < FEW_IMAGES:
        return "small", f"The preset small: a large network would soon know {images:,} images by heart."
    return "flowers64", "The preset flowers64 is made for one GPU and some thousand photos."


def _sizes(
    found: Inventory, wanted: Wanted, preset: str, auto_size: Size, device: str
) -> tuple[list[Size], Callable[[Size], str]]:
    """Sizes to choose from, the largest first, and why one of them."""
    if wanted.size is not None:
        fitting, asked = (halvable(wanted.size[0]), halvable(wanted.size[1])), size_text(wanted.size)
        if fitting == wanted.size:
            return [fitting], lambda size: f"{size_text(size)} is the size you asked for."
        return [
            fitting
        ], lambda size: f"{size_text(size)}: networks need multiples of {MULTIPLE}, which {asked} is not."
    recipe = RECIPES[preset]().size
    if preset == MADE_FOR.get(wanted.data) and recipe is not None:
        return [recipe], lambda size: f"{size_text(size)} is the preset's size."
    smaller = SIDES if device != "cuda" else ()
    if len(found.sizes) == 1:
        only = size_text(next(iter(found.shapes())))
        scaled = [_scaled(auto_size, side) for side in smaller if side < max(auto_size)]
        return _falling([auto_size, *scaled]), lambda size: f"All images are {only}."
    longest = min(SIDES[0], max(SIDES[-1], halvable(min(found.height.median, found.width.median))))
    sides = [longest, *(side for side in smaller if side < longest)]
    squares, own = [(side, side) for side in sides], [better_size(found.shapes(), side) for side in sides]

    def kept(size: Size) -> float:
        return framing(found.shapes(), size, "crop").kept_mean

    if wanted.fit == "crop" and kept(own[0]) - kept(squares[0]) >= WORTH_ANOTHER_SHAPE:
        square = f"{kept(squares[0]):.0%}"
        return _falling(own), lambda size: f"This shape keeps {kept(size):.0%} of the images' area, a square {square}."
    share = f"{kept(squares[0]):.0%}"
    return squares, lambda size: f"Images of many shapes meet best in a square; a crop keeps {share} of their area."


def _falling(sizes: list[Size]) -> list[Size]:
    """Only those that are smaller than the one before."""
    kept = sizes[:1]
    for size in sizes[1:]:
        if size[0] * size[1] < kept[-1][0] * kept[-1][1]:
            kept.append(size)
    return kept


def _command(wanted: Wanted, preset: str, size: Size, total_images: int) -> str:
    words = ["undiffuse", "train", "--data", wanted.data, *wanted.options]
    words += ["--size", _words(size)] if preset != MADE_FOR.get(wanted.data) or wanted.size else []
    words += ["--fit", wanted.fit] if wanted.fit != "crop" else []
    words += ["--preset", preset] if preset not in ("digits", "small") else []
    return shlex.join(
        [
            *words,
            "--images",
            f"{total_images // 1000}k" if total_images % 1_000_000 else f"{total_images // 1_000_000}M",
        ]
    )


def _scaled(size: Size, side: int) -> Size:
    """The size with its longer side brought to `side`, in sides that networks can halve."""
    factor = side / max(size)
    return halvable(size[0] * factor), halvable(size[1] * factor)


def _words(size: Size) -> str:
    return str(size[0]) if size[0] == size[1] else size_text(size)
