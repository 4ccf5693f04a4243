"""Fills galleries: only the samples that are missing are made; grids and films of them."""

import hashlib
import json
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import groupby
from pathlib import Path
from typing import Any

import torch
from jaxtyping import UInt8
from torch import Tensor

from undiffuse.config import SamplingConfig
from undiffuse.data.given_images import GivenImages
from undiffuse.data.low_resolution import enlarged
from undiffuse.data.pixels import to_pixels
from undiffuse.report import grids
from undiffuse.runs.gallery import Gallery, made_by, open_gallery
from undiffuse.sampling.attributes import Stated, conditions_of, of_training_images
from undiffuse.sampling.given import with_given
from undiffuse.sampling.labels import Pattern, labels_for
from undiffuse.sampling.model import Model, last, sample_steps, watched
from undiffuse.sampling.nfe import nfe
from undiffuse.sampling.options import on_device
from undiffuse.utils.conditions import Condition
from undiffuse.utils.errors import WorkFailed
from undiffuse.utils.files import write_atomically
from undiffuse.utils.terminal import Meter, log
from undiffuse.utils.text import duration, in_batches, size_text
from undiffuse.utils.world import World

GRID_IMAGES = 100

SHEET_GIVEN = 8
"""Given images on a sheet, at most."""


def gallery_in(
    folder: Path,
    model: Model,
    sampling: SamplingConfig,
    labels: Pattern | None = None,
    attributes: Stated | None = None,
    like_training: bool = False,
    given: GivenImages | None = None,
) -> Gallery:
    """The gallery in the folder of what a loaded model makes with these options; made, or checked if it is there.

    Raises:
        ValueError: the folder holds samples that were made in another way, or something else.
    """
    sampling = on_device(sampling, model.device)
    told = labels, attributes or {}, like_training, given
    return open_gallery(Gallery(folder, model.shape, model.class_names, sampling, *told), source_of(model))


def source_of(model: Model) -> dict[str, Any]:
    """Which weights make the samples, the guide's too."""
    found = made_by(*model.origin, model.weights)
    return found | ({"guide": made_by(*model.guide.origin, model.guide.weights)} if model.guide else {})


def default_folder(
    model: Model,
    sampling: SamplingConfig,
    settings: Sequence[str],
    labels: Pattern | None,
    attributes: Stated,
    given: GivenImages | None = None,
) -> Path:
    """A folder among the run's samples that is named after the options."""
    run, checkpoint = model.origin
    words = [sampling.sampler, str(sampling.steps), model.weights, str(checkpoint.images)]
    words += [each.replace("=", "-").replace("/", "") for each in settings if not each.startswith("sigmas=[")]
    if not isinstance(sampling.sigmas, str):
        words += [f"sigmas-{hashlib.sha256(json.dumps(sampling.sigmas).encode()).hexdigest()[:8]}"]
    words += [f"guidance-{sampling.guidance:g}"] if model.config.is_conditional or model.guide else []
    words += [] if sampling.guidance_interval is None else ["{:g}-{:g}".format(*sampling.guidance_interval)]
    words += [] if model.guide is None else ["by-{.name}-{.images}".format(*model.guide.origin)]
    precision = on_device(sampling, model.device).precision
    words += [] if precision == "fp32" else [precision]
    words += [] if labels is None else [f"label-{_short(labels)}"]
    words += [hashlib.sha256(json.dumps(attributes).encode()).hexdigest()[:8]] if attributes else []
    words += [] if given is None else [f"given-{given.digest[:8]}"]
    return run.output_folder / "samples" / "-".join(words)


def _short(labels: Pattern) -> str:
    runs = [(label, len(list(same))) for label, same in groupby(labels)]
    text = "-".join(str(label) if times == 1 else f"{label}x{times}" for label, times in runs)
    return text if len(text) <= 40 else hashlib.sha256(text.encode()).hexdigest()[:8]


def fill(gallery: Gallery, model: Model, seeds: Sequence[int], batch: int, world: World | None = None) -> float:
    """Makes the samples that are missing, after a notice of how long it will take.

    The processes of `world` share the work, `batch` at a time each; the main one alone writes files. Samples are the
    same to the bit for any number of processes that all have a whole batch, and up to rounding for more.

    Returns:
        The seconds that sampling took, once the network was warm and without writing files; 0 if none were missing.
    """
    world = world or World.alone(model.device)
    missing = world.on_main(lambda: [seed for seed in seeds if not gallery.has(seed)])
    if len(missing) < len(seeds):
        log.info(f"{len(seeds) - len(missing):,} of {len(seeds):,} images are there already.")
    if not missing:
        return 0.0
    batches, seconds = world.deal(missing, batch), 0.0
    _announce(gallery, model, missing, len(batches[0]), -(-len(batches) // world.size))
    with Meter("sampling", len(missing)) as meter, ThreadPoolExecutor() as writers:
        written: list[Future[None]] = []
        meter.reach(0, f"0/{len(missing):,} images")
        for first in range(0, len(batches), world.size):
            together = batches[first : first + world.size]
            done, size = first * len(batches[0]), sum(map(len, together))

            def show(step: int, done: int = done, size: int = size) -> None:
                note = in_batches(done, size, len(missing), step, gallery.sampling.steps)
                meter.reach(done + step * size / gallery.sampling.steps, note)

            mine = together[world.rank] if world.rank < len(together) else []
            began = time.monotonic()
            made = world.collect(_made(gallery, model, mine, show))
            seconds += time.monotonic() - began
            for each in written:  # The batches before are on disk; these are written while the next are made.
                each.result()
            written = [
                writers.submit(gallery.save, seed, pixels)
                for seeds, images in zip(together, made, strict=False)  # No rows in the other processes.
                for seed, pixels in zip(seeds, images, strict=True)
            ]
        for each in written:
            each.result()
    return seconds


def _made(
    gallery: Gallery, model: Model, seeds: Sequence[int], show: Callable[[int], object]
) -> UInt8[Tensor, "b c h w"]:
    if not seeds:  # There are more processes than samples.
        return torch.empty(0, *gallery.shape, dtype=torch.uint8)
    try:
        steps = sample_steps(model, seeds, told(gallery, model, seeds), gallery.sampling)
        return to_pixels(last(watched(steps, show)).x)
    except torch.OutOfMemoryError as error:
        raise WorkFailed(f"Out of memory: --batch {max(1, len(seeds) // 2)} needs less.") from error


def _announce(gallery: Gallery, model: Model, missing: Sequence[int], batch: int, rounds: int) -> None:
    sampling = gallery.sampling
    # Conditions that are images are always told; the others are small.
    counted = missing[:1] if gallery.given is not None else missing
    evaluations = nfe(model, sampling, told(gallery, model, counted))
    seconds = seconds_per_evaluation(gallery, model, missing[:batch]) * evaluations * rounds
    what = f"{len(missing):,} images, {sampling.steps} {sampling.sampler} steps"
    log.info(f"{what} (NFE {evaluations}): about {duration(seconds)}.")


def save_grid(gallery: Gallery, seeds: Sequence[int]) -> Path:
    """grid.png of the first hundred; one column a label where several come in turn."""
    path = gallery.folder / "grid.png"
    classes = len(gallery.class_names)
    stated = [len(values) for values in gallery.attributes.values()]
    in_turn = max([classes if gallery.labels is None else len(gallery.labels), *stated])
    columns = in_turn if 1 < in_turn <= 16 else None
    grids.save_png(grids.grid(gallery.pixels(seeds[:GRID_IMAGES]), columns), path)
    return path


def save_sheet(gallery: Gallery, given: GivenImages, seeds: Sequence[int]) -> Path:
    """sheet.png of the first given images, each beside what was made from it."""
    from undiffuse.report.before_after import COLUMNS, Panel, Section, before_after  # With matplotlib: a second.
    from undiffuse.report.style import LIGHT, png

    sections, count = [], len(given.names)
    for i in dict.fromkeys(seed % count for seed in seeds[:count]):
        shown = [seed for seed in seeds if seed % count == i][:COLUMNS]
        before, size = given.pixels[i], (given.pixels.shape[2], given.pixels.shape[3])
        panels = [Panel(before, f"given, {size_text(size)}")]
        if size != gallery.shape[1:]:
            panels.append(Panel(to_pixels(enlarged(before[None], gallery.shape[1:]))[0], "bicubic"))
        after = [Panel(pixels, f"seed {seed}") for seed, pixels in zip(shown, gallery.pixels(shown), strict=True)]
        sections.append(Section(given.names[i], [], panels, after))
    path = gallery.folder / "sheet.png"
    write_atomically(path, png(lambda: before_after(sections[:SHEET_GIVEN]), LIGHT))
    return path


def save_film(
    gallery: Gallery, model: Model, seeds: Sequence[int], show: Callable[[int], object] = lambda step: None
) -> tuple[Path, Path]:
    """film.png and film.gif of the first sixteen; `show` gets the number of each finished step."""
    chunk = seeds[: grids.FILM_IMAGES]
    steps = watched(sample_steps(model, chunk, told(gallery, model, chunk), gallery.sampling), show)
    film = grids.frames(steps, gallery.sampling.steps)
    strip, animation = gallery.folder / "film.png", gallery.folder / "film.gif"
    grids.save_png(grids.film_strip(film), strip)
    grids.save_animation(film, animation)
    return strip, animation


def told(gallery: Gallery, model: Model, seeds: Sequence[int]) -> Condition:
    """What the model is told for each seed.

    Raises:
        ValueError: it is to be as in training, and the run does not say how that was.
    """
    if gallery.like_training:
        return of_training_images(model.config, model.origin[0], seeds)
    labels = labels_for(gallery.class_names, seeds, gallery.labels)
    condition = conditions_of(model.config, labels, dict(gallery.attributes), seeds)
    return with_given(condition, gallery.given, gallery.shape, seeds)


def seconds_per_evaluation(gallery: Gallery, model: Model, seeds: Sequence[int]) -> float:
    """How long one batch takes with these options, measured on the second evaluation: the first warms up."""
    one_step = SamplingConfig(sampler="euler", steps=1)
    seconds = 0.0
    for _ in range(2):
        began = time.monotonic()
        last(sample_steps(model, seeds, told(gallery, model, seeds), one_step)).x.cpu()  # Waits for the device.
        seconds = time.monotonic() - began
    return seconds
