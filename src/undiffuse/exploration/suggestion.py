"""The size, preset and budget of a first run on these images and this machine, each with its reason."""

import shlex
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import NamedTuple

from undiffuse.data.patches import mean_pixels
from undiffuse.exploration.framing import MULTIPLE, measure_framing, size_of_median_shape, usable_side
from undiffuse.exploration.inventory import Inventory
from undiffuse.presets import RECIPES
from undiffuse.utils.names import Fit
from undiffuse.utils.text import duration, number, size_text

FIRST_RUN_IMAGES = 100_000
"""With the preset small: five times what gave colors and rough shapes of 480 photos (docs/training.md)."""

MIN_IMAGES = 20_000

MAX_HOURS = 2.0
"""Without a GPU a first run gets smaller images, then fewer images, rather than take longer than this."""

SIDES = (64, 48, 32)
"""Longer sides to choose from without a GPU."""

FEW_IMAGES = 1000
"""A large network memorizes fewer images than this before it learns what they have in common."""

PATCHES = 0.5
"""Of the steps with fewer images than that and the preset small: see docs/small-sets.md."""

WHY_PATCHES = (
    " Half of the steps train on patches, because there are few images: in about as much time (5 to 26% "
    "more), 100 photos of flowers were memorized less (docs/small-sets.md)."
)

MANY_EPOCHS = 100
"""An image that is seen more often than this may be memorized."""

BETTER_SHAPE = 0.1
"""Another shape is suggested if it keeps this much more of the images' area than a square does."""

PRESET_FOR = {"digits": "digits", "cifar10": "cifar10-edm"}
"""Presets made for one dataset. All but that for digits need a GPU."""

Size = tuple[int, int]
"""Height and width, in pixels."""

BUSY = 1.25
"""If measurements differ by more than this factor, the machine has other work, and the page says so."""


class SecondsPerImage(NamedTuple):
    """Of training, measured several times."""

    fastest: float
    slowest: float


MeasureSpeed = Callable[[str, Size], SecondsPerImage]
"""Measures a preset at a size."""


@dataclass(frozen=True)
class Suggestion:
    """What to train first."""

    preset: str
    size: Size
    total_images: int
    """Budget, in images seen."""
    epochs: float
    """How often each image is then seen."""
    images_per_second: float
    """The fastest that was measured: other work on the machine can only slow it down."""
    slowest_images_per_second: float
    measured_size: Size
    """The size at which the speed was measured; it is assumed to fall with the number of pixels that are seen."""
    seconds: float
    device: str
    reasons: tuple[str, ...]
    command: str
    patches: float = 0.0
    """Fraction of the steps that train on patches."""

    def settings_at(self, size: Size) -> dict[str, float]:
        """What the command sets besides the preset; at another size, as far as the preset's network can take it."""
        return _settings(self.patches if _takes_patches(self.preset, size) else 0.0)


@dataclass(frozen=True)
class Request:
    """What the user has already decided."""

    data: str | None
    """As the command line takes it; None for images that are Python objects."""
    size: Size | None = None
    fit: Fit = "crop"
    options: Mapping[str, str] = field(default_factory=dict)
    """More options that the suggested command repeats, such as data_root."""
    images: int | None = None
    """How many images `train` would use, if not all that were explored."""


@dataclass(frozen=True)
class SizeChoice:
    """A size to train at, and a sentence that says why."""

    size: Size
    reason: str


def suggest(inventory: Inventory, request: Request, auto_size: Size, device: str, measure: MeasureSpeed) -> Suggestion:
    """Suggests a first run that takes at most two hours, if possible.

    The speed is measured once. Without a GPU this is done on images of at most 32 pixels a side, which takes seconds,
    and the speed is assumed to fall with the number of pixels.

    Args:
        auto_size: The size to which images are brought unless the user asks for another.
        device: cpu, cuda or mps.
    """
    images = request.images or inventory.images
    preset, why_preset = _choose_preset(images, request.data, device)
    choices = _size_choices(inventory, request, preset, auto_size, device)
    largest, smallest = choices[0].size, choices[-1].size
    probe = largest if device == "cuda" else _scaled(smallest, min(max(smallest), SIDES[-1]))
    measured = measure(preset, probe)
    seconds_per_pixel = measured.fastest / (probe[0] * probe[1])
    total_images = RECIPES[preset]().training.total_images or FIRST_RUN_IMAGES

    def hours(size: Size) -> float:
        pixels = mean_pixels(_patches(images, preset, size)) * size[0] * size[1]
        return total_images * seconds_per_pixel * pixels / 3600

    chosen = next((choice for choice in choices if hours(choice.size) <= MAX_HOURS), choices[-1])
    size, why_size = chosen.size, chosen.reason
    if size != largest:
        slow = duration(3600 * hours(largest))
        why_size += f" {total_images:,} images would take {slow} at {size_text(largest)}; {size_text(size)} is faster."
    if device != "cuda" and hours(size) > MAX_HOURS:
        total_images = max(MIN_IMAGES, int(total_images * MAX_HOURS / hours(size)) // 10_000 * 10_000)
    seconds, patches = 3600 * hours(size), _patches(images, preset, size)
    if patches:
        why_preset += WHY_PATCHES
    suggestion = Suggestion(
        preset=preset,
        size=size,
        total_images=total_images,
        epochs=total_images / images,
        images_per_second=total_images / seconds,
        slowest_images_per_second=total_images / seconds * measured.fastest / measured.slowest,
        measured_size=probe,
        seconds=seconds,
        device=device,
        reasons=(why_preset, why_size),
        command=_command(request, preset, size, total_images, _settings(patches)),
        patches=patches,
    )
    return replace(suggestion, reasons=(*suggestion.reasons, _why_budget(suggestion)))


def _why_budget(run: Suggestion) -> str:
    measured = "measured" if run.size == run.measured_size else f"estimated from {size_text(run.measured_size)}"
    measured += ", patches counted in" if WHY_PATCHES in run.reasons[0] else ""
    speed = f"{number(run.images_per_second)} images/s ({measured})"
    sentences = [f"At {speed}, {run.total_images:,} images take {duration(run.seconds)}."]
    if run.images_per_second > BUSY * run.slowest_images_per_second:
        slowest = number(run.slowest_images_per_second)
        sentences.append(f"That is the fastest measured; other work on this machine slowed it down to {slowest}.")
    sentences.append(f"Each image is then seen {number(run.epochs)} times.")
    if run.epochs > MANY_EPOCHS:
        sentences.append("That is often enough to memorize some of them: more images help more than more training.")
    if run.preset == "small":
        sentences.append(f"{MIN_IMAGES:,} gave colors and rough shapes of 480 photos: a first look, not a good model.")
    return " ".join(sentences)


def _choose_preset(images: int, data: str | None, device: str) -> tuple[str, str]:
    """The preset, and why."""
    if data in PRESET_FOR and (data == "digits" or device == "cuda"):
        return PRESET_FOR[data], f"The preset {PRESET_FOR[data]} is made for these images."
    if device != "cuda":
        return "small", f"The preset small is made for machines without a CUDA GPU; this one uses its {device.upper()}."
    if images < FEW_IMAGES:
        return "small", f"The preset small, because a large network would soon memorize {images:,} images."
    return "flowers64", "The preset flowers64 is made for one GPU and a few thousand photos."


def _patches(images: int, preset: str, size: Size) -> float:
    """The fraction of the steps that train on patches: of a small set, where the preset's network can take them."""
    few = preset == "small" and images < FEW_IMAGES
    return PATCHES if few and _takes_patches(preset, size) else 0.0


def _takes_patches(preset: str, size: Size) -> bool:
    recipe = RECIPES[preset]()
    augmentation, network = replace(recipe.augmentation, patches=PATCHES), replace(recipe.network, size=size)
    try:
        replace(recipe, augmentation=augmentation, network=network)
    except ValueError:
        return False
    return True


def _settings(patches: float) -> dict[str, float]:
    return {"augmentation.patches": patches} if patches else {}


def _size_choices(
    inventory: Inventory, request: Request, preset: str, auto_size: Size, device: str
) -> list[SizeChoice]:
    """Sizes to choose from, the largest first."""
    if request.size is not None:
        return [_requested_size(request.size)]
    recipe_size = RECIPES[preset]().size
    if request.data in PRESET_FOR and preset == PRESET_FOR[request.data] and recipe_size is not None:
        return [SizeChoice(recipe_size, f"{size_text(recipe_size)} is the preset's size.")]
    smaller = SIDES if device != "cuda" else ()
    if len(inventory.sizes) == 1:
        reason = f"All images are {next(iter(inventory.sizes))}."
        scaled = [_scaled(auto_size, side) for side in smaller if side < max(auto_size)]
        return [SizeChoice(size, reason) for size in _falling([auto_size, *scaled])]
    shapes, shortest = inventory.shapes(), min(inventory.height.median, inventory.width.median)
    longest = min(SIDES[0], max(SIDES[-1], usable_side(shortest)))
    sides = [longest, *(side for side in smaller if side < longest)]

    def kept(size: Size) -> float:
        return measure_framing(shapes, size, "crop").kept_mean

    square = kept((longest, longest))
    best = [size_of_median_shape(shapes, side) for side in sides]
    if request.fit == "crop" and kept(best[0]) - square >= BETTER_SHAPE:
        return [
            SizeChoice(size, f"This shape keeps {kept(size):.0%} of the images' area; a square keeps {square:.0%}.")
            for size in _falling(best)
        ]
    reason = f"A square is the best compromise between the images' shapes: a crop keeps {square:.0%} of their area."
    return [SizeChoice((side, side), reason) for side in sides]


def _requested_size(size: Size) -> SizeChoice:
    usable = usable_side(size[0]), usable_side(size[1])
    if usable == size:
        return SizeChoice(size, f"{size_text(size)} is the size you asked for.")
    return SizeChoice(
        usable, f"{size_text(usable)} instead of {size_text(size)}, because networks need multiples of {MULTIPLE}."
    )


def _falling(sizes: list[Size]) -> list[Size]:
    """Only sizes with fewer pixels than the one before."""
    kept = sizes[:1]
    for size in sizes[1:]:
        if size[0] * size[1] < kept[-1][0] * kept[-1][1]:
            kept.append(size)
    return kept


def _command(request: Request, preset: str, size: Size, total_images: int, settings: Mapping[str, float]) -> str:
    """The command; for images that are Python objects, the call."""
    options = dict(request.options)
    if request.size is not None or request.data not in PRESET_FOR or preset != PRESET_FOR[request.data]:
        options["size"] = str(size[0]) if size[0] == size[1] else size_text(size)
    if request.fit != "crop":
        options["fit"] = request.fit
    if preset not in ("digits", "small"):
        options["preset"] = preset
    options["images"] = f"{total_images // 1000}k" if total_images % 1_000_000 else f"{total_images // 1_000_000}M"
    if request.data is None:
        arguments = [f"{name}={value!r}" for name, value in options.items()]
        arguments += [f"set={dict(settings)}"] if settings else []
        return f"undiffuse.train({', '.join(['data', *arguments])})"
    words = [word for name, value in options.items() for word in (f"--{name.replace('_', '-')}", value)]
    words += ["--set", *(f"{name}={value:g}" for name, value in settings.items())] if settings else []
    return shlex.join(["undiffuse", "train", "--data", request.data, *words])


def _scaled(size: Size, side: int) -> Size:
    """The size with its longer side brought to `side`, in sides that networks accept."""
    factor = side / max(size)
    return usable_side(size[0] * factor), usable_side(size[1] * factor)
