"""undiffuse compare"""

from pathlib import Path
from typing import Annotated

import tyro

from undiffuse.commands.options import unless_given
from undiffuse.diffusion.sampler_table import SamplerName
from undiffuse.features.table import FeaturesName, find_weights
from undiffuse.runs.find import check_guide, find_run
from undiffuse.utils.names import SamplingPrecision, Split
from undiffuse.utils.parsing import at_least, parse_count, parse_steps
from undiffuse.utils.terminal import console, loading


def compare(
    runs: Annotated[tuple[str, ...], tyro.conf.Positional, unless_given("the newest", metavar="RUN")] = (),
    samplers: Annotated[tuple[SamplerName, ...], unless_given("each run's")] = (),
    steps: Annotated[tuple[str, ...], unless_given("each run's", metavar="[INT [INT ...]]")] = (),
    repeats: int = 1,
    count: str = "1000",
    real_count: Annotated[str | None, unless_given("all")] = None,
    features: FeaturesName = "inception",
    weights: Annotated[str | None, unless_given("the published ones, downloaded", metavar="FILE")] = None,
    split: Split = "auto",
    guidance: Annotated[float | None, unless_given("each run's")] = None,
    guidance_interval: Annotated[str | None, unless_given("everywhere", metavar="LOW-HIGH")] = None,
    guide: Annotated[str | None, unless_given("the same without the label", metavar="RUN[@IMAGES]")] = None,
    precision: Annotated[SamplingPrecision | None, unless_given("each run's")] = None,
    seed: int = 0,
    batch: int = 64,
    out: str = "runs/comparison",
) -> None:
    """Measure several runs, or several samplers and step counts: one table, one page, at equal N.

    The page shows quality against the number of function evaluations (NFE), and against seconds per image. The same
    command goes on after an interruption: what was sampled or measured before is not made again.

    For example: undiffuse compare RUN --samplers ddim heun ipndm --steps 5,10,20 --repeats 3

    Args:
        runs: Run folders, or their names under runs/.
        samplers: Each run is sampled with each of these that fits it.
        steps: Each sampler takes each of these numbers of steps, with spaces or commas between them.
        repeats: How often, each time with the next seeds: the page draws how much chance matters.
        count: Number of samples of each, from the same seeds.
        real_count: Number of real images, chosen at random.
        features: As in undiffuse evaluate.
        weights: Weights of the feature network.
        split: Split of the real images. auto: the one that the runs were trained on.
        guidance: 1 follows the label as trained; more exaggerates it.
        guidance_interval: Guidance acts only at noise levels between these, as in 0.28-1.6: less work, more variety.
        guide: A weaker model to guide away from, in place of the same one without labels: an earlier checkpoint or a
            smaller run. It needs no classes.
        precision: Of the network: fp32; tf32, which is fp32 but on GPUs from Ampere on; bf16, about twice as fast where
            the hardware has it; auto, which is bf16 there.
        seed: Seed of the first sample; the others count up from it.
        batch: Images at once; changes speed and memory only.
        out: Folder for comparison.html, comparison.png and comparison.json.
    """
    # Mistakes are found before torch is loaded.
    parse_count(count, "--count")
    if real_count is not None:
        parse_count(real_count, "--real-count")
    numbers = parse_steps(steps)
    at_least(1, batch=batch, repeats=repeats)
    at_least(0, seed=seed)
    folders = [find_run(name) for name in runs or (None,)]
    check_guide(guide, guidance_interval)
    find_weights(features, weights)

    with loading():
        from undiffuse import api

    comparison = api.compare(
        folders,
        samplers=samplers,
        steps=numbers,
        repeats=repeats,
        count=count,
        real_count=real_count,
        features=features,
        weights=weights,
        split=split,
        guidance=guidance,
        guidance_interval=guidance_interval,
        guide=guide,
        precision=precision,
        seed=seed,
        batch=batch,
        out=out,
    )
    if comparison.entries:
        console.print(f"Lowest: {comparison.best}")
        console.print(f"Open {(Path(out).expanduser() / 'comparison.html').absolute()}")
