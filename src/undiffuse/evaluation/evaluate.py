"""The whole of an evaluation: samples, reference sets, features, figures, report."""

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch

from undiffuse.config import SamplingConfig
from undiffuse.data.store import DataConfig, Store, open_store
from undiffuse.evaluation import report
from undiffuse.evaluation.colors import color
from undiffuse.evaluation.feature_sets import FeatureSet
from undiffuse.evaluation.metrics import Comparison, compare
from undiffuse.features import networks as feature_nets
from undiffuse.features.cache import Share, features_of
from undiffuse.features.image_sets import Asked, ImageSet, chosen, of_gallery, of_store, open_set
from undiffuse.features.networks import FeatureNet
from undiffuse.metrics.memorization import Memorization, memorization
from undiffuse.runs import gallery as galleries
from undiffuse.runs.gallery import Gallery
from undiffuse.runs.run import Checkpoint, Run
from undiffuse.sampling.model import Model, nfe
from undiffuse.utils.names import Split
from undiffuse.utils.terminal import log

NO_COPIES = (
    "Not looked for: the first real images are not all that the model was trained on, and copies of the others would "
    "be missed. Leave --split and --real-count out."
)

NOT_KNOWN = (
    "Not looked for: that the model was trained on these images is not known. Where it was, give the folder of the "
    "samples: undiffuse evaluate --real IMAGES --fake SAMPLES takes the real ones for training images."
)

SEED = 0
"""Of the draw of reference images, where not all are taken."""


@dataclass(frozen=True)
class Work:
    """Where and how the work is done; changes no figure."""

    batch: int
    share: Share
    device: torch.device


def load_net(features: str, path: Path | None, given: bool, device: torch.device) -> FeatureNet:
    """The feature network of that name; `path` is its weights file, `given` whether the user named it."""
    if path is None:
        return feature_nets.pixels_net()
    choices = {
        "inception": feature_nets.load_inception,
        "efficientnet-lite0": feature_nets.load_efficientnet,
        "dinov2": feature_nets.load_dinov2,
    }
    return choices[features](path, device, given)


def samples(
    run: Run, model: Model, checkpoint: Checkpoint, how: SamplingConfig, seeds: range, work: Work
) -> tuple[ImageSet, dict[str, Any]]:
    """The run's samples of these seeds, of which only the missing are made, and what made them."""
    made_by = galleries.maker(run, checkpoint, "average")
    # Other settings or weights, another folder: nothing that was made is ever in the way.
    key = hashlib.sha256(json.dumps([made_by, asdict(how)], sort_keys=True).encode()).hexdigest()[:8]
    folder = run.folder / "evaluation" / "samples" / f"{how.sampler}-{how.steps}-{checkpoint.images}-{key}"
    gallery = Gallery(folder, model, how, None)
    if work.share.rank == 0:
        gallery = galleries.open_gallery(folder, model, how, None, made_by)
        log.info(f"samples  {folder.absolute()}")
    work.share.wait()
    mine = seeds[work.share.rank :: work.share.world]
    galleries.fill(gallery, mine, work.batch)
    work.share.wait()
    calls = nfe(how, labeled=bool(model.class_names))
    protocol = {
        **made_by,
        "ema": True,
        "ema_halflife_images": run.config.training.ema_halflife_images,
        **asdict(how),
        "nfe": calls,
        "seeds": f"{seeds[0]} to {seeds[-1]}",
        "classes": "every class in turn" if model.class_names else "none",
        "trained_with_seed": run.config.seed,
    }
    return of_gallery(gallery, seeds, run.name), protocol


@dataclass(frozen=True)
class References:
    """The real images that a run is compared with."""

    sets: tuple[ImageSet, ...]
    no_copies: str
    """Why copies of training images cannot be looked for; empty where the first set is all of them."""
    held_out: Store | None
    """Images that training never saw, if there are any."""


def references(
    run: Run,
    split: Split,
    count: int | None,
    data_root: str | None = None,
    strict: bool = False,
) -> References:
    """The run's own images; with split `auto` those it was trained on, and the test split where there is one.

    `data_root` is where a named dataset lies now, if not where it lay in training.

    Raises:
        FileNotFoundError, ValueError: they are not where they were, there is no such split, or the run is imported.
    """
    if not run.config.data_content:
        raise ValueError(
            f"{run.folder.absolute()} holds an imported model, and nobody knows its images: name some with "
            "undiffuse evaluate RUN --real."
        )
    data = replace(run.config.data, data_root=data_root or run.config.data.data_root)
    wanted = split if split != "auto" else data.split
    first = open_store(replace(data, split=wanted), strict)
    trained_on = first.content == run.config.data_content
    if wanted == data.split and not trained_on:
        log.info(f"{first.name} no longer holds the images that {run.folder.absolute()} was trained on.")
    never_seen = wanted not in (data.split, "all") and data.split != "all"
    held_out = first if never_seen else _test_split(data)
    stores = [first] + ([held_out] if split == "auto" and held_out is not None else [])
    sets = tuple(some(of_store(store, data), count, "--real-count") for store in stores)
    return References(sets, "" if trained_on and sets[0].total_images == len(first) else NO_COPIES, held_out)


def other_references(run: Run, asked: Asked, count: int | None, strict: bool) -> References:
    """Images that the user named, brought to the size of the run's samples; see `references`.

    Raises:
        FileNotFoundError, ValueError: see `open_set`.
    """
    found = open_set(replace(asked, size=run.config.network.size), strict)
    return References((some(found, count, "--real-count"),), NOT_KNOWN, None)


def some(images: ImageSet, count: int | None, option: str) -> ImageSet:
    """`count` of the images, or all, and then says so if more were asked for."""
    if count is not None and count > len(images):
        log.info(f"{option} {count:,}: there are only {images.what}, and all are taken.")
    return chosen(images, count, SEED)


def _test_split(data: DataConfig) -> Store | None:
    if data.split != "train":
        return None
    try:
        return open_store(replace(data, split="test"))
    except ValueError:  # There is none.
        return None


def no_bits(held_out: Store | None, count: int) -> str:
    """Why there will be no bits of held-out images; empty if there will."""
    if count == 0:
        return "Not computed: --likelihood 100 computes those of 100 held-out images, at length."
    if held_out is None:
        return (
            "Not computed: no images are known to be held out from training, and bits of the training images would "
            "say nothing of others."
        )
    return ""


def measure(net: FeatureNet, fake: ImageSet, real: Sequence[ImageSet], work: Work) -> list[Comparison]:
    """The samples against each set of real images; nothing on all but the main process, which share the features."""
    of_fake = features_of(net, fake, work.batch, work.share)
    of_real = [features_of(net, images, work.batch, work.share) for images in real]
    if work.share.rank:
        return []
    side = FeatureSet(fake, of_fake, work.device)
    return [
        compare(net, FeatureSet(images, features, work.device), side)
        for images, features in zip(real, of_real, strict=True)
    ]


def find_memorization(net: FeatureNet, comparisons: Sequence[Comparison], work: Work) -> list[Memorization] | str:
    """In the features' space, and that of the pixels; the control is the second comparison's real images, if any."""
    train, fake = comparisons[0].real, comparisons[0].fake
    test = comparisons[1].real if len(comparisons) > 1 else None
    among = comparisons[0].neighborhood
    if among is None:
        return "Not looked for: there are too few images."
    if net.name == "pixels":
        return [memorization("pixels", train, fake, test, among.nearest)]
    pixels = feature_nets.pixels_net()

    def in_pixels(side: FeatureSet) -> FeatureSet:
        return FeatureSet(side.images, features_of(pixels, side.images, work.batch, Share()), work.device)

    return [
        memorization(f"{net.name} features", train, fake, test, among.nearest),
        memorization("pixels", in_pixels(train), in_pixels(fake), in_pixels(test) if test else None),
    ]


def evaluate(
    title: str,
    net: FeatureNet,
    fake: ImageSet,
    real: Sequence[ImageSet],
    no_copies: str,
    made_by: dict[str, Any],
    bits: Callable[[], dict[str, Any]] | str,
    folder: Path,
    work: Work,
) -> dict[str, Any]:
    """Writes report.html and metrics.json into `folder` and returns what the second holds; {} where not the main one.

    `no_copies` says why training images are not among the first of `real`, `bits` computes those of held-out
    images or says why there are none. They may take hours: the report is written before and again after them.

    Raises:
        ValueError: there are too few images to measure anything.
    """
    comparisons = measure(net, fake, real, work)
    if not comparisons:
        return {}
    colors = {"samples": color(fake)} | {f"real, {r.name} {r.split}": color(r) for r in real}
    spaces = no_copies or find_memorization(net, comparisons, work)
    waiting = bits if isinstance(bits, str) else "Not computed yet: this page was written before."
    found = report.Evaluation(title, net, comparisons, made_by, colors, spaces, {"skipped": waiting})
    written = report.write(found, folder)
    return written if isinstance(bits, str) else report.write(replace(found, bits=bits()), folder)
