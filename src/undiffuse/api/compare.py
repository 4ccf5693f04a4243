"""Comparing: several runs, samplers, numbers of steps and noise schedules in one table."""

from collections.abc import Sequence
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any

from undiffuse.api.data import make_output
from undiffuse.api.evaluate import FeaturesLike, evaluation_context, optional_count
from undiffuse.api.runs import GuideLike, RunLike, as_run, guide_of, with_guide
from undiffuse.config import SamplingConfig
from undiffuse.evaluation.compare import check_same_data, compare_candidates
from undiffuse.evaluation.comparison import Comparison
from undiffuse.evaluation.entry import Candidate, LeftOut
from undiffuse.evaluation.metrics import MetricLike
from undiffuse.evaluation.references import run_references
from undiffuse.runs.run import Run
from undiffuse.sampling.loading import load_model
from undiffuse.sampling.model import Model
from undiffuse.sampling.options import sampling_config
from undiffuse.utils.names import SamplingPrecision, Split
from undiffuse.utils.parsing import at_least, parse_count
from undiffuse.utils.terminal import speaking
from undiffuse.utils.text import plural
from undiffuse.utils.world import World, init_distributed


def compare(
    runs: RunLike | Sequence[RunLike] = (),
    *,
    samplers: Sequence[str] = (),
    steps: Sequence[int] = (),
    sigmas: Sequence[str] = (),
    repeats: int = 1,
    count: int | str = 1000,
    real_count: int | str | None = None,
    features: FeaturesLike = "inception",
    weights: str | Path | None = None,
    split: Split = "auto",
    guidance: float | None = None,
    guidance_interval: str | tuple[float, float] | None = None,
    guide: GuideLike = None,
    precision: SamplingPrecision | None = None,
    seed: int = 0,
    batch: int = 64,
    out: str | Path | None = None,
    metrics: Sequence[MetricLike] = (),
    progress: bool = False,
) -> Comparison:
    """Measures several runs, or several samplers and numbers of steps: the same number of samples, of the same seeds.

    Samples and metrics are kept. Called again it makes and measures only what is missing.

    Args:
        runs: Runs that were trained on the same images, as in `evaluate`; empty takes the newest.
        samplers: Each run is sampled with each of these; empty takes the run's. A distilled run takes
            `consistency` in their place. What does not fit together is left out, with the reason in `left_out`.
        steps: And with each of these numbers of steps; empty takes the run's.
        sigmas: And with each of these noise schedules, such as "karras" and "tuned"; empty takes the run's, or the
            noise levels that `tune_sampler` found for so many steps.
        repeats: How often, each time with the next seeds; the mean is reported, and the standard deviation.
        count: Number of samples of each, each time, such as 1000 or "10k".
        real_count: Number of real images, chosen at random; None takes all.
        features: As in `evaluate`, and so are weights, batch and metrics.
        split: Split of the real images; "auto" is the one that the runs were trained on.
        guidance: 1 follows the label as trained. None: each run's.
        guidance_interval: As in `Model.sample`.
        guide: As in `load`, of all runs.
        precision: As in `Model.sample`. None: each run's.
        seed: Of the first sample, from 0; the others count up from it.
        out: Folder for comparison.html, comparison.png and comparison.json; None writes none of them.
        progress: Shows notices and progress bars.

    Returns:
        The table: `comparison.rows` has one dictionary for each run, sampler and number of steps, with the NFE, which
        are counted, and seconds per image. Under torchrun only the main process has rows.

    Raises:
        FileNotFoundError: there is no such run, data or file of weights.
        ValueError: an option is out of range, the runs were trained on different images, or no run can be sampled in
            any of these ways.
        WorkFailed: out of memory, or weights cannot be downloaded.

    Example:
        comparison = undiffuse.compare("runs/flowers", samplers=["ddim", "heun"], steps=[5, 10], features="pixels")
        [(row["sampler"], row["NFE"], row["FD-pixels"]) for row in comparison.rows]
    """
    total, real_total = parse_count(count, "--count"), optional_count(real_count, "--real-count")
    at_least(1, batch=batch, repeats=repeats, steps=min(steps, default=1))
    at_least(0, seed=seed)
    one = runs is None or isinstance(runs, (str, Path, Run, Model))
    chosen = [runs] if one else list(runs) or [None]
    with init_distributed() as world, speaking(progress and world.is_main):
        opened = world.on_main(lambda: [as_run(run) for run in chosen])
        sources = {_key(run, source): (run, source) for run, source in zip(opened, chosen, strict=True)}
        found = [run for run, _ in sources.values()]
        check_same_data(found)
        context = evaluation_context(features, weights, metrics, batch, world)
        folder = None if out is None else world.on_main(lambda: make_output(out, found[0].config.data.data))
        names = [run.name for run in found]
        candidates, left_out = [], []
        for run, source in sources.values():
            label = run.name if names.count(run.name) == 1 else str(run.folder)
            its_guide = guide_of(source, guide)
            options = guidance, precision, guidance_interval, its_guide is not None
            ways, unfit = _ways(label, run, (samplers, steps, sigmas), options)
            left_out += unfit
            if not ways:
                continue
            model = source if isinstance(source, Model) else load_model(run, world=world)
            model = with_guide(model, its_guide, world)
            named = [Candidate(label, model, way, way.sigmas if isinstance(way.sigmas, str) else "own") for way in ways]
            tuned, unfit = _tuned(named, world)
            candidates += tuned
            left_out += unfit
        if not candidates:
            raise ValueError(left_out[0].reason)
        real = world.in_turn(lambda: run_references(found[0], split, real_total)).sets[0]
        ranges = [range(seed + i * total, seed + (i + 1) * total) for i in range(repeats)]
        comparison = compare_candidates(candidates, real, ranges, context, left_out)
        if folder is not None:
            world.on_main(lambda: comparison.write(folder))
    return comparison


def _ways(
    label: str, run: Run, asked: tuple[Sequence[str], Sequence[int], Sequence[str]], options: tuple[Any, ...]
) -> tuple[list[SamplingConfig], list[LeftOut]]:
    """How a run is sampled: each sampler, number of steps and schedule asked for; and what does not fit, and why."""
    samplers, steps, schedules = asked
    guidance, precision, *rest = options
    if run.config.diffusion.jumps:
        schedules = ()  # It jumps between levels of its own.
        samplers = samplers and ("consistency",)  # The others follow a mean, which a distilled network does not give.
    ways, left_out = [], []
    for sampler, schedule in product(samplers or (None,), schedules or (None,)):
        settings, unfit = () if schedule is None else (f"sigmas={schedule}",), []
        for number in steps or (None,):
            try:
                ways.append(sampling_config(run.config, sampler, number, guidance, precision, settings, *rest))
            except ValueError as error:
                unfit.append((number, str(error)))
        name = ", ".join([label, sampler or run.config.sampling.sampler, *([schedule] if schedule else [])])
        if len(unfit) == len(steps or (None,)) and len({reason for _, reason in unfit}) == 1:
            unfit = [(None, unfit[0][1])]  # Its number of steps has nothing to do with it.
        titles = [name if number is None else f"{name}, {plural(number, 'step')}" for number, _ in unfit]
        left_out += [LeftOut(title, reason) for title, (_, reason) in zip(titles, unfit, strict=True)]
    return list(dict.fromkeys(ways)), left_out


def _tuned(candidates: Sequence[Candidate], world: World) -> tuple[list[Candidate], list[LeftOut]]:
    """With the noise levels that were found for each, where there are any; and those for which there must be, but are
    none."""

    def looked_up() -> list[SamplingConfig | str]:
        return [_tuned_or_why_not(each) for each in candidates]

    found, unfit = {}, {}
    for candidate, tuned in zip(candidates, world.on_main(looked_up), strict=True):
        if isinstance(tuned, str):
            unfit.setdefault(candidate.name, []).append((candidate.sampling.steps, tuned))
        elif tuned == candidate.sampling:
            found.setdefault(tuned, candidate)
        else:
            found.setdefault(tuned, replace(candidate, sampling=tuned, sigmas="tuned"))
    left_out = []
    for name, reasons in unfit.items():
        numbers = [number for number, _ in reasons]
        steps = plural(numbers[0], "step") if len(numbers) == 1 else f"{', '.join(map(str, numbers))} steps"
        left_out.append(LeftOut(f"{name}, {steps}", reasons[0][1]))
    return list(found.values()), left_out


def _tuned_or_why_not(candidate: Candidate) -> SamplingConfig | str:
    try:
        return candidate.model.tuned(candidate.sampling)
    except ValueError as error:
        return str(error)


def _key(run: Run, source: RunLike) -> tuple[object, ...]:
    """The same for the same weights of the same run with the same guide, however it is named."""
    if not isinstance(source, Model):
        return run.folder.resolve(), "ema"
    if source.guide is None:
        return run.folder.resolve(), source.weights
    guide, checkpoint = source.guide.origin
    return run.folder.resolve(), source.weights, guide.folder.resolve(), checkpoint.images
