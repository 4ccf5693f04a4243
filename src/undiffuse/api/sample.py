"""Opening a trained model, and sampling it into a folder."""

from pathlib import Path

import torch

from undiffuse.api.runs import GuideLike, RunLike, Weights, as_run, checkpoint_part, guide_of, with_guide
from undiffuse.data.given_images import GivenLike
from undiffuse.networks.network import NetworkConfig
from undiffuse.networks.unet import UNetConfig
from undiffuse.runs.gallery import Gallery
from undiffuse.sampling.attributes import Attributes, find_attributes
from undiffuse.sampling.generate import default_folder, fill, gallery_in, save_film, save_grid, save_sheet
from undiffuse.sampling.given import check_told_with_images, find_given
from undiffuse.sampling.labels import Label
from undiffuse.sampling.loading import load_model
from undiffuse.sampling.model import Model
from undiffuse.sampling.options import Settings, as_settings, asks_guidance, sampling_config, with_acting_guidance
from undiffuse.utils.conditions import NO_LABEL
from undiffuse.utils.names import SamplingPrecision
from undiffuse.utils.parsing import at_least
from undiffuse.utils.terminal import Meter, log, speaking
from undiffuse.utils.world import init_distributed


def load(
    run: RunLike = None,
    *,
    guide: GuideLike = None,
    weights: Weights = "ema",
    device: torch.device | str | None = None,
    network: type[NetworkConfig] = UNetConfig,
) -> Model:
    """Opens the model of a run.

    Args:
        run: A run, its folder, or its name under runs/; None takes the newest there.
        guide: A weaker model that guides it where guidance is not 1 (autoguidance): an earlier checkpoint,
            "RUN@IMAGES", or a smaller run.
        weights: "ema", the exponential moving average, or "network", the weights that are being trained.
        device: Such as "cpu" or "cuda:1"; None takes the best there is.
        network: The config class of a network of your own, where the run was trained with one.

    Raises:
        FileNotFoundError: there is no such run, or it has no whole checkpoint yet.
        ValueError: its config cannot be read.

    Example:
        model = undiffuse.load("runs/quickstart")
        model.sample(8, label=3)
    """
    chosen = None if device is None else torch.device(device)
    return with_guide(load_model(as_run(run, network), chosen, checkpoint_part(weights)), guide, network=network)


def sample(
    run: RunLike = None,
    *,
    count: int = 64,
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
    film: bool = False,
    weights: Weights = "ema",
    condition: GivenLike | None = None,
    out: str | Path | None = None,
    network: type[NetworkConfig] = UNetConfig,
    progress: bool = False,
) -> Gallery:
    """Samples a run into a folder: one PNG per seed, grid.png, and samples.json, which says what made them.

    With a `condition`, sheet.png shows each given image beside what was made from it.

    The options are those of `undiffuse sample`; `Model.sample` makes images without writing any. Called again it makes
    only what is missing. Under torchrun all processes share the work, and the main one alone writes.

    Args:
        attributes: As in `Model.sample`; seeds take the values of a list in turn.
        out: The folder; None takes one in the run's samples/ that is named after the options.
        condition: The images that the model makes others from: a file, a folder, an array or a list, which seeds take
            in turn; "none" samples without.
        film: Also save the denoising of the first sixteen images as film.png and film.gif.
        network: As in `load`.
        progress: Shows notices and a progress bar.

    Returns:
        The gallery: `.folder`, `.path(seed)`, `.pixels(seeds)` as uint8 `(n, channels, height, width)`.

    Raises:
        FileNotFoundError: there is no such run.
        ValueError: an option is out of range, the model cannot do it, or `out` holds something else.
        WorkFailed: out of memory.

    Example:
        undiffuse.sample("runs/flowers", count=16, label="rose", out="roses")
    """
    at_least(1, count=count, batch=batch)
    at_least(0, seed=seed)
    with init_distributed() as world, speaking(progress and world.is_main):
        opened = world.on_main(lambda: as_run(run, network))
        guide, settings = guide_of(run, guide), as_settings(set)
        chosen = sampler, steps, guidance, precision, settings, guidance_interval
        sampling = sampling_config(opened.config, *chosen, guide=guide is not None)
        model = with_guide(load_model(opened, weights=checkpoint_part(weights), world=world), guide, world, network)
        labels, stated = model.find_labels(label), find_attributes(opened.config.attributes, attributes)
        given = find_given(opened.config, condition)
        of_class = bool(model.class_names) and any(each != NO_LABEL for each in labels or [0])
        check_told_with_images(opened.config, given, of_class)
        acts = of_class or bool(stated) or given is not None or guide is not None or not opened.config.is_conditional
        sampling = with_acting_guidance(sampling, acts, asks_guidance(guidance, guidance_interval, settings))
        folder = Path(out).expanduser() if out else default_folder(model, sampling, settings, labels, stated, given)
        gallery = world.on_main(lambda: gallery_in(folder, model, sampling, labels, stated, given=given))
        log.info(f"Images go to {folder.absolute()}")
        seeds = range(seed, seed + count)
        fill(gallery, model, seeds, batch, world)
        if world.is_main:
            _save_sheets(gallery, model, seeds, film)
    return gallery


def _save_sheets(gallery: Gallery, model: Model, seeds: range, film: bool) -> None:
    log.info(f"  grid  {save_grid(gallery, seeds)}")
    if gallery.given is not None:
        log.info(f"  sheet  {save_sheet(gallery, gallery.given, seeds)}")
    if not film:
        return
    sampling = gallery.sampling
    with Meter("film", sampling.steps) as meter:
        show = lambda step: meter.reach(step, f"{step}/{sampling.steps} steps")  # noqa: E731
        strip, animation = save_film(gallery, model, seeds, show)
    log.info(f"  film  {strip} and {animation.name}")
