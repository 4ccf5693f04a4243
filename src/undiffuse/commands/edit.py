"""undiffuse edit"""

from typing import Annotated, Literal

import tyro

from undiffuse.commands.options import unless_given
from undiffuse.commands.sample import SAMPLERS_HELP, SETTINGS_HELP
from undiffuse.diffusion.sampler_table import SamplerName
from undiffuse.runs.find import check_guide, find_run
from undiffuse.sampling.edit_tasks import TaskName, check_options, tasks_help
from undiffuse.utils.names import SamplingPrecision
from undiffuse.utils.parsing import at_least
from undiffuse.utils.terminal import loading


def edit(
    run: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="RUN")],
    task: Annotated[TaskName, tyro.conf.Positional, tyro.conf.arg(metavar="TASK", help=f"What to do: {tasks_help()}")],
    image: Annotated[tuple[str, ...], unless_given("none, to interpolate seeds", metavar="FILE")] = (),
    mask: Annotated[str | None, unless_given("none; inpaint needs one", metavar="FILE")] = None,
    strength: Annotated[float | None, unless_given("0.5")] = None,
    resamplings: Annotated[int | None, unless_given("10")] = None,
    to_seed: Annotated[int | None, unless_given("the one after --seed")] = None,
    blur: Annotated[float | None, unless_given("none; deblur needs it")] = None,
    noise: Annotated[float | None, unless_given("1")] = None,
    count: int = 8,
    label: Annotated[str | None, unless_given("no class")] = None,
    attributes: Annotated[tuple[str, ...], unless_given("missing", name="attribute", metavar="NAME=VALUE")] = (),
    guidance: Annotated[float | None, unless_given("the run's")] = None,
    guidance_interval: Annotated[str | None, unless_given("everywhere", metavar="LOW-HIGH")] = None,
    guide: Annotated[str | None, unless_given("the model itself", metavar="RUN[@IMAGES]")] = None,
    seed: int = 0,
    batch: int = 64,
    sampler: Annotated[SamplerName | None, unless_given("the best for the task", help=SAMPLERS_HELP)] = None,
    steps: Annotated[int | None, unless_given("the run's; 36 to interpolate")] = None,
    precision: Annotated[SamplingPrecision | None, unless_given("the run's")] = None,
    set: Annotated[tuple[str, ...], unless_given("the run's", help=SETTINGS_HELP)] = (),
    weights: Literal["ema", "network", "average"] = "ema",
    out: Annotated[str | None, unless_given("in the run's edits/")] = None,
) -> None:
    """Edit an image with a trained model: one PNG per seed, and a sheet of before and after.

    Images are read as in training: cropped or padded, and resized to the model's size. The same command again makes
    only what is missing. docs/editing.md shows each task.

    For example: undiffuse edit RUN inpaint --image photo.jpg --mask mask.png --count 4

    Args:
        run: A run folder, its name under runs/, or a model that comes with undiffuse, such as digits.
        image: The image; two of them for interpolate, or none.
        mask: For inpaint, an image of the same shape: what is white (or transparent) in it is regenerated.
        strength: For vary, the fraction of the steps that is made: 0 gives the image back, 1 forgets it.
        resamplings: For inpaint, how often each step is made, so that old and new fit together.
        to_seed: For interpolate without images, the seed that the way from --seed leads to.
        blur: For deblur, the standard deviation of the blur, in pixels at the model's size.
        noise: For colorize, deblur and enlarge, the noise in the image, in levels from 0 to 255; more is closer to what
            the model knows, and less close to the image.
        count: How many images.
        label: Class of the results, by name or index, or none.
        attributes: Of a model trained with a table, as for sample, with one value each.
        guidance: 1 follows the label and attributes as trained; more exaggerates them, at the cost of variety.
        guidance_interval: Guidance acts only at noise levels between these, as in 0.28-1.6.
        guide: A weaker model to guide away from, as for sample.
        seed: Seed of the first image; the others count up from it.
        batch: Images at once; changes speed and memory only.
        sampler: See docs/sampling.md.
        steps: More is slower and, up to a point, better.
        precision: Of the network: fp32; tf32, which is fp32 but on GPUs from Ampere on; bf16, about twice as fast where
            the hardware has it; auto, which is bf16 there.
        set: Any other setting of sampling.
        weights: The EMA of the weights, or the weights in training; average is the old name of ema.
        out: Folder for the images.
    """
    find_run(run)
    check_guide(guide, guidance_interval)
    at_least(2 if task == "interpolate" else 1, count=count)
    at_least(1, batch=batch)
    at_least(0, seed=seed)
    own = {"strength": strength, "resamplings": resamplings, "to_seed": to_seed, "blur": blur, "noise": noise}
    check_options(task, len(image), mask=mask, **own)

    with loading():
        from undiffuse import api

    api.edit(
        run,
        task,
        image=image,
        mask=mask,
        strength=strength,
        resamplings=resamplings,
        to_seed=to_seed,
        blur=blur,
        noise=noise,
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
        weights=weights,
        out=out,
    )
