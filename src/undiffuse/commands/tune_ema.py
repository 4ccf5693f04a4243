"""undiffuse tune-ema"""

from pathlib import Path
from typing import Annotated

import tyro

from undiffuse.commands.options import unless_given
from undiffuse.diffusion.sampler_table import SamplerName
from undiffuse.features.table import FeaturesName, find_weights
from undiffuse.runs.find import find_run
from undiffuse.utils.names import EMA_LENGTHS, SamplingPrecision, Split
from undiffuse.utils.parsing import at_least, parse_count, parse_ema_lengths
from undiffuse.utils.terminal import console, loading


def tune_ema(
    run: Annotated[str | None, tyro.conf.Positional, unless_given("the newest", metavar="RUN")] = None,
    lengths: Annotated[tuple[str, ...], unless_given(" ".join(map(str, EMA_LENGTHS)), metavar="[X [X ...]]")] = (),
    sampler: Annotated[SamplerName | None, unless_given("the run's")] = None,
    steps: Annotated[int | None, unless_given("the run's")] = None,
    guidance: Annotated[float | None, unless_given("the run's")] = None,
    repeats: int = 1,
    count: str = "1000",
    real_count: Annotated[str | None, unless_given("all")] = None,
    features: FeaturesName = "inception",
    weights: Annotated[str | None, unless_given("the published ones, downloaded", metavar="FILE")] = None,
    split: Split = "auto",
    precision: Annotated[SamplingPrecision | None, unless_given("the run's")] = None,
    seed: int = 0,
    batch: int = 64,
    out: Annotated[str | None, unless_given("runs/NAME-ema", metavar="DIR")] = None,
) -> None:
    """Choose the length of the EMA after the training, from the checkpoints that were kept.

    Samples are made with a moving average (EMA) of the weights. Which length is best is known only in the end, and
    sums of the averages that checkpoints hold come close to other lengths. Each length becomes a run, all are compared,
    and a page shows quality against length. Keep checkpoints for it: train with --keep 24 --checkpoint-images 20k, say.

    For example: undiffuse tune-ema RUN --lengths 0.05 0.1 0.15 --count 1000

    Args:
        run: A run folder, or its name under runs/.
        lengths: Each the standard deviation of what the EMA averages over, as a fraction of the training. The length as
            trained is measured too: 0.063 for the first 20 half-lives of images (2 million with the preset small), and
            shorter from then on.
        sampler: How noise becomes an image.
        steps: Of the sampler.
        guidance: 1 follows the label as trained; more exaggerates it.
        repeats: How often, each time with the next seeds: the page draws how much chance matters.
        count: Number of samples of each length, from the same seeds.
        real_count: Number of real images, chosen at random.
        features: As in undiffuse evaluate.
        weights: Weights of the feature network.
        split: Split of the real images. auto: the one that the run was trained on.
        precision: Of the network, as in undiffuse sample.
        seed: Seed of the first sample; the others count up from it.
        batch: Images at once; changes speed and memory only.
        out: Folder for the runs and comparison.html.
    """
    # Mistakes are found before torch is loaded.
    parse_count(count, "--count")
    if real_count is not None:
        parse_count(real_count, "--real-count")
    chosen = parse_ema_lengths(lengths) or EMA_LENGTHS
    at_least(1, batch=batch, repeats=repeats, steps=1 if steps is None else steps)
    at_least(0, seed=seed)
    folder = find_run(run)
    find_weights(features, weights)

    with loading():
        from undiffuse.api import tune_ema as api

    tuned = api.tune_ema(
        folder,
        lengths=chosen,
        sampler=sampler,
        steps=steps,
        guidance=guidance,
        repeats=repeats,
        count=count,
        real_count=real_count,
        features=features,
        weights=weights,
        split=split,
        precision=precision,
        seed=seed,
        batch=batch,
        out=out,
    )
    if tuned.comparison.entries:
        console.print(f"Lowest: {tuned.comparison.best}")
        console.print(f"Sample with it: undiffuse sample {tuned.best.folder}")
        console.print(f"Open {(Path(tuned.best.folder).parent / 'comparison.html').absolute()}")
