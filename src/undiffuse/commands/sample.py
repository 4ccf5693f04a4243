"""undiffuse sample"""

from pathlib import Path
from typing import Annotated, Literal

import tyro

from undiffuse.commands import asked
from undiffuse.commands.options import unless_given
from undiffuse.runs.find import find_run
from undiffuse.utils.names import SamplerName
from undiffuse.utils.terminal import Meter, console


def sample(
    run: Annotated[str | None, tyro.conf.Positional, unless_given("the newest", metavar="RUN")] = None,
    count: int = 64,
    label: Annotated[str | None, unless_given("every class in turn")] = None,
    guidance: Annotated[float | None, unless_given("the run's")] = None,
    seed: int = 0,
    batch: int = 64,
    sampler: Annotated[SamplerName | None, unless_given("the run's")] = None,
    steps: Annotated[int | None, unless_given("the run's")] = None,
    settings: Annotated[tuple[str, ...], unless_given("the run's", name="set")] = (),
    film: bool = False,
    weights: Literal["average", "network"] = "average",
    out: Annotated[str | None, unless_given("in the run's samples/")] = None,
) -> None:
    """Make images with a trained model: one PNG each, and a grid of the first hundred.

    The image of a seed depends on nothing but the seed and the settings. The same command again makes only what is
    missing.

    Args:
        run: A run folder, or its name under runs/.
        count: How many images.
        label: Class, by name or index, or none.
        guidance: 1 follows the label as trained; more exaggerates it, at the cost of variety.
        seed: Of the first image; the others count up from it.
        batch: Images at once; changes speed and memory only.
        sampler: DDPM's ancestral and ddim; euler_ancestral; and for few steps euler, heun, dpmpp_2m, lms and ipndm.
        steps: More is slower and, up to a point, better. Below 100, ipndm replaces a run's ancestral or ddim.
        settings: Any other setting, as in eta=0.5, order=3, churn=40, grid=chain, variance=large (docs/sampling.md).
        film: Also save the denoising of the first sixteen as a strip and an animation.
        weights: The moving average of the weights, or the weights themselves.
        out: Folder for the images.
    """
    folder = find_run(run)
    for name, value in (("--count", count), ("--batch", batch)):
        if value < 1:
            raise ValueError(f"{name} {value} is too few: take at least 1.")
    if seed < 0:
        raise ValueError(f"--seed {seed} is negative: seeds count from 0.")

    from undiffuse.diffusion.denoiser import NO_LABEL
    from undiffuse.runs import gallery as galleries
    from undiffuse.runs.run import open_run
    from undiffuse.sampling.model import check_guidance, find_label, load_model
    from undiffuse.utils.device import choose_device

    opened = open_run(folder)
    index = None if label is None else find_label(opened.config.class_names, label)
    if index == NO_LABEL:
        check_guidance(opened.config)
    how = asked.sampling(opened.config, sampler, steps, guidance, settings)
    model, checkpoint = load_model(opened, choose_device(), weights)
    words = [how.sampler, str(how.steps), weights, str(checkpoint.images)]
    words += [setting.replace("=", "-").replace("/", "") for setting in settings]
    words += [f"guidance-{how.guidance:g}"] if model.class_names else []
    words += [] if label is None else [f"label-{index}"]
    target = Path(out).expanduser() if out else opened.folder / "samples" / "-".join(words)
    made_by = galleries.maker(opened, checkpoint, weights)
    gallery = galleries.open_gallery(target, model, how, index, made_by)
    console.print(f"Images go to {target.absolute()}")
    seeds = range(seed, seed + count)
    galleries.fill(gallery, seeds, batch)
    console.print(f"  grid  {galleries.save_grid(gallery, seeds)}")
    if film:
        with Meter("film", how.steps) as meter:
            strip, animation = galleries.save_film(gallery, seeds, lambda i: meter.reach(i, f"{i}/{how.steps} steps"))
        console.print(f"  film  {strip} and {animation.name}")
