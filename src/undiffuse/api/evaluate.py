"""Measuring: a run's samples, any two sets of images, several runs and samplers."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from undiffuse.api.data import SizeLike, check_outside, make_output
from undiffuse.api.runs import GuideLike, RunLike, as_run, guide_of, with_guide
from undiffuse.config import SamplingConfig
from undiffuse.data.open import DataLike
from undiffuse.evaluation.compare import check_same_data, compare_candidates
from undiffuse.evaluation.comparison import Comparison
from undiffuse.evaluation.context import EvaluationContext
from undiffuse.evaluation.entry import Candidate, LeftOut
from undiffuse.evaluation.evaluate import bits_of, evaluate_images
from undiffuse.evaluation.metrics import MetricLike, with_own
from undiffuse.evaluation.references import INCOMPLETE, References, named_references, run_references, take
from undiffuse.evaluation.result import Evaluation
from undiffuse.evaluation.samples import run_samples
from undiffuse.features.image_sets import DataSpec, ImageSet, open_set, own_size
from undiffuse.features.networks import FeatureNetwork, load_features
from undiffuse.runs.run import Run
from undiffuse.sampling.loading import load_model
from undiffuse.sampling.model import Model
from undiffuse.sampling.options import Settings, as_settings, sampling_config
from undiffuse.utils.names import Fit, SamplingPrecision, Split
from undiffuse.utils.parsing import at_least, parse_count, parse_size
from undiffuse.utils.terminal import speaking
from undiffuse.utils.text import plural
from undiffuse.utils.world import World, init_distributed

FeaturesLike = str | FeatureNetwork
"""inception, efficientnet-lite0, dinov2, pixels, or a network of your own."""


def evaluate(
    run: RunLike = None,
    *,
    real: DataLike | None = None,
    count: int | str = 5000,
    real_count: int | str | None = None,
    features: FeaturesLike = "inception",
    weights: str | Path | None = None,
    split: Split = "auto",
    sampler: str | None = None,
    steps: int | None = None,
    guidance: float | None = None,
    guidance_interval: str | tuple[float, float] | None = None,
    guide: GuideLike = None,
    precision: SamplingPrecision | None = None,
    set: Settings = (),
    seed: int = 0,
    batch: int = 64,
    likelihood: int = 0,
    data_root: str | Path | None = None,
    fit: Fit = "crop",
    strict: bool = False,
    out: str | Path | None = None,
    metrics: Sequence[MetricLike] = (),
    progress: bool = False,
) -> Evaluation:
    """Measures how good a model is: samples it and compares the samples with real images.

    Samples are kept in the run's evaluation/samples/. Called again it makes only those that are missing.

    Args:
        run: A run, its folder, its name under runs/, or a Model that was loaded from one; None takes the newest run.
        real: Other real images than the run's: whatever `measure` takes. An imported run needs them.
        count: Number of samples, such as 50_000 or "50k", which published values take; at least 2.
        real_count: Number of real images, chosen at random; None takes all.
        features: "inception" (FID, KID, Inception Score), "efficientnet-lite0", "dinov2", "pixels", which needs no
            weights but sees only coarse differences, or a `FeatureNetwork` of your own.
        weights: File of the feature network's weights; None finds or downloads the published ones.
        split: Split of the real images. "auto": the one that the run was trained on, and the test split if there is
            one.
        sampler: As in `Model.sample`, and so are steps, guidance, guidance_interval, precision and set.
        guide: As in `load`.
        seed: Of the first sample, from 0; the others count up from it.
        batch: Images at once; changes speed and memory only.
        likelihood: Number of held-out images whose bits/dim is computed, by the VLB and the probability flow; slow.
        data_root: Where cifar10 and flowers102 are; None: where they were in training.
        fit: How the images in `real` are brought to the samples' size: crop, pad or stretch.
        strict: Fail if an image cannot be decoded, instead of leaving it out.
        out: Folder for report.html and metrics.json; None takes the run's evaluation/.
        metrics: Your own metrics, computed along with the others: functions f(real, fake) -> float of two arrays of
            features, float32 `(n, d)` and `(m, d)`, or `Metric`s.
        progress: Shows notices and progress bars.

    Returns:
        The metrics: `evaluation["FID"].value` and so on. Under torchrun all processes work, but only the main one has
        the values and writes; the others get an `Evaluation` without values.

    Raises:
        FileNotFoundError: there is no such run, data or file of weights.
        ValueError: an option is out of range, the images are not those of the training any more, or too few.
        WorkFailed: out of memory, or weights cannot be downloaded.

    Example:
        evaluation = undiffuse.evaluate("runs/flowers", features="pixels", count=500)
        evaluation["FD-pixels"].value
    """
    total, real_total = parse_count(count, "--count"), _optional_count(real_count, "--real-count")
    at_least(1, batch=batch)
    at_least(0, likelihood=likelihood, seed=seed)
    with init_distributed() as world, speaking(progress and world.is_main):
        opened = world.on_main(lambda: as_run(run))
        context = _context(features, weights, metrics, batch, world)
        chosen = Path(out or opened.output_folder / "evaluation")
        folder = world.on_main(lambda: make_output(chosen, *(() if real is None else (real,))))
        check_outside(folder, opened.config.data.data)
        given, guide = (sampler, steps, guidance, precision, as_settings(set), guidance_interval), guide_of(run, guide)
        sampling = sampling_config(opened.config, *given, guide=guide is not None)
        root = None if data_root is None else str(Path(data_root).expanduser().absolute())
        if real is None:
            references = world.in_turn(lambda: run_references(opened, split, real_total, root, strict))
        else:
            spec = DataSpec(real, root, split, None, fit)
            references = world.in_turn(lambda: named_references(opened, spec, real_total, strict))
        model = with_guide(run if isinstance(run, Model) else load_model(opened, world=world), guide, world)
        sampling = world.on_main(lambda: model.tuned(sampling))
        samples = run_samples(model, sampling, total, context)
        fake, made_by, _ = samples.make(range(seed, seed + total), context)
        bits = bits_of(model, references, likelihood, context, sampling)
        title, log_lines = f"How good is {opened.name}?", opened.log_lines()
        return evaluate_images(title, fake, references, context, made_by, bits, folder, log_lines)


def measure(
    real: DataLike,
    fake: DataLike,
    *,
    count: int | str | None = None,
    real_count: int | str | None = None,
    features: FeaturesLike = "inception",
    weights: str | Path | None = None,
    split: Split = "auto",
    fake_split: Split = "auto",
    data_root: str | Path | None = None,
    size: SizeLike | None = None,
    fit: Fit = "crop",
    strict: bool = False,
    batch: int = 64,
    out: str | Path | None = None,
    metrics: Sequence[MetricLike] = (),
    progress: bool = False,
) -> Evaluation:
    """Compares any two sets of images.

    Args:
        real: The real images: digits, cifar10, flowers102, a folder, an archive, an .npy file, uint8 arrays
            `(n, height, width, channels)`, uint8 tensors `(n, channels, height, width)`, `Images`, or a sequence of
            images or of (image, label) pairs. Memorization is checked as if they were the training images.
        fake: The generated images: likewise.
        count: Number of generated images, chosen at random, such as 50_000 or "50k"; None takes all.
        real_count: Number of real images, chosen at random; None takes all.
        features: As in `evaluate`, and so are weights, data_root, strict, batch and metrics.
        split: Split of the real images; "auto" is what `train` would use.
        fake_split: Split of the generated images.
        size: At which the images are compared, as in 64, "48x64" (height x width) or (48, 64). None: the size that all
            generated images share, else the one that all real images share, else 64.
        fit: How images are brought to that size: crop, pad or stretch. Arrays are not resized.
        out: Folder for report.html and metrics.json; None writes nothing.
        progress: Shows notices and progress bars.

    Returns:
        The metrics: `evaluation["FID"].value` and so on; see `evaluate`.

    Raises:
        FileNotFoundError: there is no such data or file of weights.
        ValueError: an option is out of range, or there are too few images.
        WorkFailed: out of memory, or weights cannot be downloaded.

    Example:
        undiffuse.measure("photos/", model.sample(500), features="pixels")["FD-pixels"].value
    """
    total, real_total = _optional_count(count, "--count"), _optional_count(real_count, "--real-count")
    at_least(1, batch=batch)
    sides = None if size is None else parse_size(size)
    root = None if data_root is None else str(data_root)
    with init_distributed() as world, speaking(progress and world.is_main):
        context = _context(features, weights, metrics, batch, world)
        folder = None if out is None else world.on_main(lambda: make_output(out, real, fake))
        specs = DataSpec(real, root, split, sides, fit), DataSpec(fake, root, fake_split, sides, fit)
        all_real, all_fake = world.in_turn(lambda: _opened(specs, strict))
        x, y = take(all_real, real_total, "--real-count"), take(all_fake, total, "--count")
        references = References((x,), None if len(x) == len(all_real) else INCOMPLETE)
        return evaluate_images(f"{y.name} against {x.name}", y, references, context, folder=folder)


def compare(
    runs: RunLike | Sequence[RunLike] = (),
    *,
    samplers: Sequence[str] = (),
    steps: Sequence[int] = (),
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
    total, real_total = parse_count(count, "--count"), _optional_count(real_count, "--real-count")
    at_least(1, batch=batch, repeats=repeats, steps=min(steps, default=1))
    at_least(0, seed=seed)
    one = runs is None or isinstance(runs, (str, Path, Run, Model))
    chosen = [runs] if one else list(runs) or [None]
    with init_distributed() as world, speaking(progress and world.is_main):
        opened = world.on_main(lambda: [as_run(run) for run in chosen])
        sources = {_key(run, source): (run, source) for run, source in zip(opened, chosen, strict=True)}
        found = [run for run, _ in sources.values()]
        check_same_data(found)
        context = _context(features, weights, metrics, batch, world)
        folder = None if out is None else world.on_main(lambda: make_output(out, found[0].config.data.data))
        names = [run.name for run in found]
        candidates, left_out = [], []
        for run, source in sources.values():
            label = run.name if names.count(run.name) == 1 else str(run.folder)
            its_guide = guide_of(source, guide)
            given = guidance, precision, (), guidance_interval, its_guide is not None
            ways, unfit = _ways(label, run, samplers, steps, given)
            left_out += unfit
            if not ways:
                continue
            model = source if isinstance(source, Model) else load_model(run, world=world)
            model = with_guide(model, its_guide, world)
            ways = world.on_main(lambda model=model, ways=ways: [model.tuned(way) for way in ways])
            candidates += [Candidate(label, model, sampling) for sampling in dict.fromkeys(ways)]
        if not candidates:
            raise ValueError(left_out[0].reason)
        real = world.in_turn(lambda: run_references(found[0], split, real_total)).sets[0]
        ranges = [range(seed + i * total, seed + (i + 1) * total) for i in range(repeats)]
        comparison = compare_candidates(candidates, real, ranges, context, left_out)
        if folder is not None:
            world.on_main(lambda: comparison.write(folder))
    return comparison


def _ways(
    label: str, run: Run, samplers: Sequence[str], steps: Sequence[int], given: tuple[Any, ...]
) -> tuple[list[SamplingConfig], list[LeftOut]]:
    """How a run is sampled; and what does not fit it, with the reasons. `given`: what follows in `sampling_config`."""
    ways, left_out = [], []
    if samplers and run.config.diffusion.jumps:
        samplers = ("consistency",)  # The others follow a mean, which a distilled network does not give.
    for sampler in samplers or (None,):
        unfit = []
        for number in steps or (None,):
            try:
                ways.append(sampling_config(run.config, sampler, number, *given))
            except ValueError as error:
                unfit.append((number, str(error)))
        name = f"{label}, {sampler or run.config.sampling.sampler}"
        if len(unfit) == len(steps or (None,)) and len({reason for _, reason in unfit}) == 1:
            unfit = [(None, unfit[0][1])]  # Its number of steps has nothing to do with it.
        titles = [name if number is None else f"{name}, {plural(number, 'step')}" for number, _ in unfit]
        left_out += [LeftOut(title, reason) for title, (_, reason) in zip(titles, unfit, strict=True)]
    return list(dict.fromkeys(ways)), left_out


def _context(
    features: FeaturesLike, weights: str | Path | None, metrics: Sequence[MetricLike], batch: int, world: World
) -> EvaluationContext:
    rows = with_own(metrics)
    if isinstance(features, FeatureNetwork):
        return EvaluationContext(features, world, batch, rows)
    file = None if weights is None else Path(weights).expanduser()
    network = world.in_turn(lambda: load_features(features, file, world.device))
    return EvaluationContext(network, world, batch, rows)


def _optional_count(value: int | str | None, option: str) -> int | None:
    return None if value is None else parse_count(value, option)


def _opened(specs: Sequence[DataSpec], strict: bool) -> tuple[ImageSet, ...]:
    """Real and generated images, at one size."""
    real, fake = specs
    size = real.size or own_size(fake) or own_size(real)
    return tuple(open_set(replace(spec, size=size), strict) for spec in specs)


def _key(run: Run, source: RunLike) -> tuple[object, ...]:
    """The same for the same weights of the same run with the same guide, however it is named."""
    if not isinstance(source, Model):
        return run.folder.resolve(), "ema"
    if source.guide is None:
        return run.folder.resolve(), source.weights
    guide, checkpoint = source.guide.origin
    return run.folder.resolve(), source.weights, guide.folder.resolve(), checkpoint.images
