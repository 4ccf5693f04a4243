"""Editing images with a trained model, into a folder."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import PIL.Image
import torch

from undiffuse.api.runs import GuideLike, RunLike, Weights, as_run, checkpoint_part, guide_of, with_guide
from undiffuse.config import Config, SamplingConfig
from undiffuse.data.one_image import ImageLike, MaskLike, open_image, open_mask, prepared, prepared_mask, unscaled_size
from undiffuse.data.paths import folder_name
from undiffuse.data.pixels import to_pixels
from undiffuse.networks.network import NetworkConfig
from undiffuse.networks.unet import UNetConfig
from undiffuse.report.before_after import Panel, Section, before_after
from undiffuse.report.style import LIGHT, png
from undiffuse.runs.gallery import Gallery, open_gallery
from undiffuse.sampling import edits
from undiffuse.sampling.attributes import Attributes, Stated, conditions_of, find_attributes
from undiffuse.sampling.edit_tasks import TASKS, TaskName, check_options
from undiffuse.sampling.editing import check_can_edit
from undiffuse.sampling.generate import source_of
from undiffuse.sampling.labels import Label, find_label
from undiffuse.sampling.loading import load_model
from undiffuse.sampling.model import Model, last, watched
from undiffuse.sampling.options import (
    Settings,
    as_settings,
    asks_guidance,
    check_guidance,
    on_device,
    sampling_config,
    with_acting_guidance,
)
from undiffuse.utils.conditions import NO_LABEL, Conditions, as_conditions
from undiffuse.utils.errors import WorkFailed
from undiffuse.utils.files import read_small, write_atomically
from undiffuse.utils.names import Fit, SamplingPrecision
from undiffuse.utils.parsing import at_least
from undiffuse.utils.terminal import Meter, log, speaking
from undiffuse.utils.text import in_batches, plural, size_text

SHOWN = 24
"""Results on the sheet."""


@dataclass(frozen=True)
class Edited:
    """What `undiffuse.edit` made."""

    gallery: Gallery
    """One image per seed: `.path(seed)`, `.pixels(seeds)`; of an interpolation, one per place from 0."""
    seeds: range
    """Those of the images, or their places."""
    section: Section
    """Before and after, as the sheet shows them."""
    sheet: Path
    """sheet.png."""
    measured: Mapping[str, Any]
    """What measured.json says: NFE per image, and how well the edit worked."""


def edit(
    run: RunLike,
    task: TaskName,
    *,
    image: ImageLike | Sequence[ImageLike] = (),
    mask: MaskLike | None = None,
    strength: float | None = None,
    resamplings: int | None = None,
    to_seed: int | None = None,
    blur: float | None = None,
    noise: float | None = None,
    count: int = 8,
    label: Label | None = None,
    attributes: Attributes = (),
    guidance: float | None = None,
    guidance_interval: str | tuple[float, float] | None = None,
    guide: GuideLike = None,
    seed: int = 0,
    batch: int = 64,
    sampler: str | None = None,
    steps: int | None = None,
    precision: SamplingPrecision | None = None,
    set: Settings = (),
    weights: Weights = "ema",
    out: str | Path | None = None,
    network: type[NetworkConfig] = UNetConfig,
    progress: bool = False,
) -> Edited:
    """Edits an image: one PNG per seed, sheet.png of before and after, samples.json and measured.json.

    The options are those of `undiffuse edit`; those that are None have the defaults of the task. Images are read as
    training reads them, at the model's size. Called again it makes only what is missing.
    `sampling.editing` has the same edits as generators of steps.

    Args:
        task: inpaint, vary, interpolate, colorize, deblur or enlarge.
        image: A file, a PIL image, or uint8 pixels; two of them in a list, or none, to interpolate.
        mask: Where inpainting regenerates pixels: white in an image, given as `image` is, or True in booleans
            (height, width).
        label: A class by name or index for all results; None for none.
        attributes: As in `Model.sample`, one value each, for all results.
        out: The folder; None takes one in the run's edits/ that is named after the options.
        network: As in `load`.
        progress: Shows notices and a progress bar.

    Raises:
        FileNotFoundError: there is no such run or file.
        ValueError: an option is missing, out of range or not for this task, or the model cannot do it; an image cannot
            be read; or `out` holds something else.
        WorkFailed: out of memory.

    Example:
        undiffuse.edit("runs/flowers", "inpaint", image="rose.jpg", mask="mask.png", count=4)
    """
    at_least(2 if task == "interpolate" else 1, count=count)
    at_least(1, batch=batch)
    at_least(0, seed=seed)
    own = {"strength": strength, "resamplings": resamplings, "to_seed": to_seed, "blur": blur, "noise": noise}
    images = list(image) if isinstance(image, list | tuple) else [image]
    check_options(task, len(images), mask=mask, **own)
    with speaking(progress):
        opened, guide = as_run(run, network), guide_of(run, guide)
        check_can_edit(opened.config, task, sampler, opened.name)
        stated = _attributes(opened.config, attributes)
        index = _label(opened.config, label)
        best, settings = TASKS[task], as_settings(set)
        chosen_steps = best.steps if steps is None else steps
        chosen_options = sampler or best.sampler, chosen_steps, guidance, precision, settings, guidance_interval
        sampling = sampling_config(opened.config, *chosen_options, guide=guide is not None)
        told = bool(stated) or index not in (None, NO_LABEL)
        acts = told or guide is not None or not opened.config.is_conditional
        sampling = with_acting_guidance(sampling, acts, asks_guidance(guidance, guidance_interval, settings))
        if best.clip and any(setting.startswith("clip=") for setting in settings):
            raise ValueError(f"--set clip does nothing for {task}, which always clips: leave it out.")
        sampling = replace(sampling, clip=sampling.clip or best.clip)
        files = [open_image(each) for each in images]
        mask_file = None if mask is None else open_mask(mask)
        model = with_guide(load_model(opened, weights=checkpoint_part(weights)), guide, network=network)
        # An edit starts elsewhere or steers each step: levels that were found for sampling are used where asked for.
        sampling = model.tuned(sampling) if sampling.sigmas == "tuned" else sampling
        evaluations = edits.Evaluations()
        given = {name: value for name, value in own.items() if value is not None}
        told = as_conditions(conditions_of(opened.config, None if index is None else [index], stated, [0]))
        chosen = _edit(evaluations.of(model), task, files, mask_file, sampling, told, seed, count, given)
        gallery = _gallery(model, task, images, chosen, sampling, index, stated, out)
        log.info(f"Images go to {gallery.folder.absolute()}")
        seeds = range(count) if task == "interpolate" else range(seed, seed + count)
        made = _fill(gallery, chosen, seeds, batch)
        # The way of two images to their noise is shared by all results: those that are made again have less of it.
        measured = _measure(gallery, chosen, seeds, evaluations.count / made if made == count else None)
        section = _section(gallery, chosen, seeds, f"{task.capitalize()} with {opened.name}", measured)
        sheet = gallery.folder / "sheet.png"
        write_atomically(sheet, png(lambda: before_after([section]), LIGHT))
        log.info(f"  sheet  {sheet}")
    return Edited(gallery, seeds, section, sheet, measured)


def _label(config: Config, label: Label | None) -> int | None:
    """The label of all results: an index, -1 for none, or None for a model without classes."""
    if label is not None:
        index = find_label(config.class_names, label)
        if index != NO_LABEL:
            return index
        check_guidance(config)  # Whether the model ever saw an image without its label.
    if not config.class_names:
        return None
    if config.training.label_dropout == 0:
        raise ValueError("This model always saw the class in training: give the image's with --label.")
    return NO_LABEL


def _attributes(config: Config, attributes: Attributes) -> Stated:
    """One value of each that is stated."""
    stated = find_attributes(config.attributes, attributes)
    for name, values in stated.items():
        if len(values) > 1:
            raise ValueError(f"--attribute {name} has {len(values)} values: an edit takes one, for all results.")
    return stated


def _edit(
    model: Model,
    task: str,
    files: list[PIL.Image.Image],
    mask: PIL.Image.Image | None,
    sampling: SamplingConfig,
    told: Conditions,
    seed: int,
    count: int,
    given: dict[str, Any],
) -> edits.Edit:
    size, fit = model.config.network.size, model.config.data.fit
    if task == "interpolate" and not files:
        return edits.interpolate_seeds(model, (seed, given.get("to_seed", seed + 1)), count, sampling, told)
    if task == "interpolate" and given:
        raise ValueError("--to-seed is for an interpolation of seeds: leave it out, or --image.")
    if task == "interpolate" and seed != 0:
        raise ValueError("--seed does nothing between two images: leave it out.")
    sizes = [_small(file, size, fit) if task == "enlarge" else size for file in files]
    pixels = [prepared(file, own, fit, model.shape[0]) for file, own in zip(files, sizes, strict=True)]
    if task == "interpolate":
        return edits.interpolate_images(model, torch.stack(pixels), count, sampling, told)
    if mask is not None:
        given = given | {"mask": prepared_mask(mask, files[0], size, fit)}
    return getattr(edits, task)(model, pixels[0], sampling=sampling, label=told, **given)


def _small(file: PIL.Image.Image, size: tuple[int, int], fit: Fit) -> tuple[int, int]:
    small = unscaled_size(file, size, fit)
    if max(small[0] / size[0], small[1] / size[1]) >= 1:
        raise ValueError(
            f"--image is {size_text((file.height, file.width))}, not smaller than the {size_text(size)} of the "
            f"model: give a smaller image, such as {size_text((max(1, size[0] // 4), max(1, size[1] // 4)))}."
        )
    return small


def _gallery(
    model: Model,
    task: str,
    images: Sequence[ImageLike],
    chosen: edits.Edit,
    sampling: SamplingConfig,
    label: int | None,
    stated: Stated,
    out: str | Path | None,
) -> Gallery:
    """The folder, with samples.json, which says what made the results; made, or checked if it is there."""
    names = [Path(each).name if isinstance(each, str | Path) else "pixels" for each in images]
    started_from = b"".join(panel.pixels.numpy().tobytes() for panel in chosen.before)
    protocol = source_of(model) | {"task": task, "files": names, **chosen.options}
    protocol["files_sha256"] = hashlib.sha256(started_from).hexdigest()
    sampling = on_device(sampling, model.device)
    if not out:
        text = json.dumps([protocol, asdict(sampling), label, *([stated] if stated else [])])
        stem = folder_name(Path(names[0]).stem) if names else "seeds"
        name = f"{task}-{stem}-{hashlib.sha256(text.encode()).hexdigest()[:8]}"
    folder = Path(out).expanduser() if out else model.origin[0].output_folder / "edits" / name
    labels = None if label is None else (label,)
    return open_gallery(Gallery(folder, model.shape, model.class_names, sampling, labels, stated), protocol)


def _fill(gallery: Gallery, chosen: edits.Edit, seeds: range, batch: int) -> int:
    """Makes the results that are missing; how many there were."""
    missing = [seed for seed in seeds if not gallery.has(seed)]
    if len(missing) < len(seeds):
        log.info(f"{len(seeds) - len(missing):,} of {len(seeds):,} images are there already.")
    with Meter("editing", len(missing) * gallery.sampling.steps) as meter:
        meter.reach(0, f"0/{len(missing):,} images")
        for first in range(0, len(missing), batch):
            chunk = missing[first : first + batch]

            def show(step: int, first: int = first, size: int = len(chunk)) -> None:
                note = in_batches(first, size, len(missing), step, gallery.sampling.steps)
                meter.reach(first * gallery.sampling.steps + step * size, note)

            try:
                results = to_pixels(last(watched(chosen.steps(chunk), show)).x)
            except torch.OutOfMemoryError as error:
                raise WorkFailed(f"Out of memory: --batch {max(1, len(chunk) // 2)} needs less.") from error
            for seed, pixels in zip(chunk, results, strict=True):
                gallery.save(seed, pixels)
    return len(missing)


def _measure(gallery: Gallery, chosen: edits.Edit, seeds: range, nfe: float | None) -> dict[str, Any]:
    """Writes measured.json, about all of these results; where none was made now, their NFE is what it was."""
    file = gallery.folder / "measured.json"
    if nfe is None and file.exists():
        nfe = _nfe_before(file)
    measured = {"images": len(seeds), "nfe": nfe, **chosen.measure(gallery.pixels(seeds))}
    write_atomically(file, json.dumps(measured, indent=2) + "\n")
    for line in _told(measured):
        log.info(f"  {line}")
    return measured


def _nfe_before(file: Path) -> float | None:
    try:
        return json.loads(read_small(file))["nfe"]
    except (ValueError, KeyError, TypeError):  # A crash or a hand damaged it; it is written again.
        return None


def _told(measured: Mapping[str, Any]) -> list[str]:
    known = [(words, measured.get(name)) for name, words in edits.MEASURED.items()]
    return [f"{words}: {edits.written(value)}" for words, value in known if value is not None]


def _section(gallery: Gallery, chosen: edits.Edit, seeds: range, title: str, measured: Mapping[str, Any]) -> Section:
    shown, sampling = seeds[:SHOWN], gallery.sampling
    after = [Panel(pixels, chosen.caption(seed)) for seed, pixels in zip(shown, gallery.pixels(shown), strict=True)]
    options = ", ".join(f"{name.replace('_', ' ')} {edits.written(value)}" for name, value in chosen.options.items())
    about = [f"{options}; {sampling.sampler}, {plural(sampling.steps, 'step')}", *_told(measured)]
    return Section(title, about, chosen.before, after)
