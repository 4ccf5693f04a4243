"""undiffuse sample"""

from typing import Annotated, Literal

import tyro

from undiffuse.commands.options import unless_given
from undiffuse.data.paths import check_other_images
from undiffuse.diffusion.sampler_table import SAMPLERS, SamplerName, options_help
from undiffuse.runs.find import check_guide, find_run
from undiffuse.utils.names import SamplingPrecision
from undiffuse.utils.parsing import at_least
from undiffuse.utils.terminal import loading

SAMPLERS_HELP = f"{'; '.join(f'{name}: {row.about}' for name, row in SAMPLERS.items())}.".replace("`", "")
SETTINGS_HELP = f"{options_help()} Also sigmas=auto, tuned, discrete, karras or log_snr, and clip=true."


def sample(
    run: Annotated[str | None, tyro.conf.Positional, unless_given("the newest", metavar="RUN")] = None,
    count: int = 64,
    label: Annotated[str | None, unless_given("every class in turn")] = None,
    attributes: Annotated[tuple[str, ...], unless_given("missing", name="attribute", metavar="NAME=VALUE")] = (),
    guidance: Annotated[float | None, unless_given("the run's")] = None,
    guidance_interval: Annotated[str | None, unless_given("everywhere", metavar="LOW-HIGH")] = None,
    guide: Annotated[str | None, unless_given("the same without the label", metavar="RUN[@IMAGES]")] = None,
    seed: int = 0,
    batch: int = 64,
    sampler: Annotated[SamplerName | None, unless_given("the run's", help=SAMPLERS_HELP)] = None,
    steps: Annotated[int | None, unless_given("the run's")] = None,
    precision: Annotated[SamplingPrecision | None, unless_given("the run's")] = None,
    set: Annotated[tuple[str, ...], unless_given("the run's", help=SETTINGS_HELP)] = (),
    condition: Annotated[str | None, unless_given("none", metavar="FILE|FOLDER")] = None,
    film: bool = False,
    weights: Literal["ema", "network", "average"] = "ema",
    out: Annotated[str | None, unless_given("in the run's samples/")] = None,
) -> None:
    """Make images with a trained model: one PNG each, and a grid of the first hundred.

    The image of a seed depends on nothing but the seed and the settings. The same command again makes only what is
    missing.

    For example: undiffuse sample RUN --count 16 --label 3 --sampler heun --steps 18

    Args:
        run: A run folder, its name under runs/, or a model that comes with undiffuse, such as digits.
        count: How many images.
        label: Class, by name or index, or none; several that seeds take in turn, as in "rose*4,sunflower*2"; or all.
        attributes: Of a model trained with a table (train --condition), as in age=30 smile=yes; or several values that
            seeds take in turn, as in "age=20*4,30". What is not stated is missing.
        guidance: 1 follows the label and attributes as trained; more exaggerates them, at the cost of variety.
        guidance_interval: Guidance acts only at noise levels between these, as in 0.28-1.6: less work, more variety.
        guide: A weaker model to guide away from, in place of the same one without labels: an earlier checkpoint or a
            smaller run. It needs no classes.
        seed: Seed of the first image; the others count up from it.
        batch: Images at once; changes speed and memory only.
        sampler: See docs/sampling.md.
        steps: More is slower and, up to a point, better. Below 100, ipndm replaces a run's ancestral or ddim.
        precision: Of the network: fp32; tf32, which is fp32 but on GPUs from Ampere on; bf16, about twice as fast where
            the hardware has it; auto, which is bf16 there.
        set: Any other setting of sampling.
        condition: For a model that makes images from others: an image, or a folder or archive of them, which seeds take
            in turn; small ones for a model that enlarges. none: samples without.
        film: Also save the denoising of the first sixteen as a strip and an animation.
        weights: The EMA of the weights, or the weights in training; average is the old name of ema.
        out: Folder for the images.
    """
    find_run(run)
    check_guide(guide, guidance_interval)
    if condition not in (None, "none"):
        check_other_images(condition)
    at_least(1, count=count, batch=batch)
    at_least(0, seed=seed)

    with loading():
        from undiffuse import api

    api.sample(
        run,
        count=count,
        label=label,
        attributes=attributes,
        guidance=guidance,
        guidance_interval=guidance_interval,
        guide=guide,
        seed=seed,
        batch=batch,
        sampler=sampler,
        steps=steps,
        precision=precision,
        set=set,
        condition=condition,
        film=film,
        weights=weights,
        out=out,
    )
