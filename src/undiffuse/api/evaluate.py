"""Measuring: a run's samples, or any two sets of images."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from undiffuse.api.data import SizeLike, check_outside, make_output
from undiffuse.api.runs import GuideLike, RunLike, as_run, guide_of, with_guide
from undiffuse.data.open import DataLike
from undiffuse.evaluation.context import EvaluationContext
from undiffuse.evaluation.evaluate import bits_of, evaluate_images
from undiffuse.evaluation.metrics import MetricLike, with_own
from undiffuse.evaluation.references import INCOMPLETE, References, named_references, run_references, take
from undiffuse.evaluation.result import Evaluation
from undiffuse.evaluation.samples import run_samples
from undiffuse.features.image_sets import DataSpec, ImageSet, open_set, own_size
from undiffuse.features.networks import FeatureNetwork, load_features
from undiffuse.sampling.loading import load_model
from undiffuse.sampling.model import Model
from undiffuse.sampling.options import Settings, as_settings, sampling_config
from undiffuse.utils.names import Fit, SamplingPrecision, Split
from undiffuse.utils.parsing import at_least, parse_count, parse_size
from undiffuse.utils.terminal import speaking
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
    total, real_total = parse_count(count, "--count"), optional_count(real_count, "--real-count")
    at_least(1, batch=batch)
    at_least(0, likelihood=likelihood, seed=seed)
    with init_distributed() as world, speaking(progress and world.is_main):
        opened = world.on_main(lambda: as_run(run))
        context = evaluation_context(features, weights, metrics, batch, world)
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
    total, real_total = optional_count(count, "--count"), optional_count(real_count, "--real-count")
    at_least(1, batch=batch)
    sides = None if size is None else parse_size(size)
    root = None if data_root is None else str(data_root)
    with init_distributed() as world, speaking(progress and world.is_main):
        context = evaluation_context(features, weights, metrics, batch, world)
        folder = None if out is None else world.on_main(lambda: make_output(out, real, fake))
        specs = DataSpec(real, root, split, sides, fit), DataSpec(fake, root, fake_split, sides, fit)
        all_real, all_fake = world.in_turn(lambda: _opened(specs, strict))
        x, y = take(all_real, real_total, "--real-count"), take(all_fake, total, "--count")
        references = References((x,), None if len(x) == len(all_real) else INCOMPLETE)
        return evaluate_images(f"{y.name} against {x.name}", y, references, context, folder=folder)


def evaluation_context(
    features: FeaturesLike, weights: str | Path | None, metrics: Sequence[MetricLike], batch: int, world: World
) -> EvaluationContext:
    rows = with_own(metrics)
    if isinstance(features, FeatureNetwork):
        return EvaluationContext(features, world, batch, rows)
    file = None if weights is None else Path(weights).expanduser()
    network = world.in_turn(lambda: load_features(features, file, world.device))
    return EvaluationContext(network, world, batch, rows)


def optional_count(value: int | str | None, option: str) -> int | None:
    return None if value is None else parse_count(value, option)


def _opened(specs: Sequence[DataSpec], strict: bool) -> tuple[ImageSet, ...]:
    """Real and generated images, at one size."""
    real, fake = specs
    size = real.size or own_size(fake) or own_size(real)
    return tuple(open_set(replace(spec, size=size), strict) for spec in specs)
