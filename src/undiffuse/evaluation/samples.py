"""The samples of a run: kept in its folder, so that only those that are missing are made."""

import hashlib
import json
from dataclasses import asdict
from typing import Any

from undiffuse.config import SamplingConfig
from undiffuse.evaluation.context import EvaluationContext
from undiffuse.evaluation.own_conditions import own_conditions
from undiffuse.features.image_sets import ImageSet, of_gallery
from undiffuse.sampling.generate import fill, gallery_in, source_of, told
from undiffuse.sampling.model import Model
from undiffuse.sampling.nfe import nfe
from undiffuse.sampling.options import on_device
from undiffuse.utils.conditions import as_conditions
from undiffuse.utils.terminal import log


def run_samples(
    model: Model, sampling: SamplingConfig, seeds: range, context: EvaluationContext
) -> tuple[ImageSet, dict[str, Any]]:
    """The samples of these seeds, which the processes make together, and what made them, as JSON has it.

    Raises:
        ValueError: the model was not loaded from a run.
        WorkFailed: out of memory.
    """
    world, (run, checkpoint) = context.world, model.origin
    sampling = on_device(sampling, model.device)
    source, own = source_of(model), world.in_turn(lambda: own_conditions(run, len(seeds)))
    options = asdict(sampling)
    if sampling.precision == "fp32":
        del options["precision"]  # Older versions had no other: their samples go on.
    if sampling.guidance_interval is None:
        del options["guidance_interval"]
    if own is not None:
        options["given"] = own.given.digest
    # Other options or weights get another folder, so that older samples are never in the way.
    key = hashlib.sha256(json.dumps([source, options], sort_keys=True).encode()).hexdigest()[:8]
    name = f"{sampling.sampler}-{sampling.steps}-{checkpoint.images}-{key}"
    folder = run.output_folder / "evaluation" / "samples" / name
    like_training = model.config.attributes is not None  # Else the samples would differ in what they are told.
    known, given = (None, None) if own is None else (own.labels, own.given)
    gallery = world.on_main(lambda: gallery_in(folder, model, sampling, known, {}, like_training, given))
    log.info(f"Samples are kept in {folder.absolute()}")
    fill(gallery, model, seeds, context.batch, world)
    world.barrier()  # The others read the files that the main process has written.
    conditions = as_conditions(told(gallery, model, seeds))
    labels = None if conditions.label is None else conditions.label.tolist()
    in_turn = "as often as in training" if like_training or own is not None else "every class in turn"
    attributes = {"attributes": "those of training images, chosen at random"} if like_training else {}
    return of_gallery(gallery, seeds, run.name, labels), {
        **{"images_seen" if name == "images" else name: value for name, value in source.items()},
        "ema": model.weights == "ema",
        "ema_halflife_images": run.config.training.ema_halflife_images,
        **asdict(sampling),
        "nfe": nfe(model, sampling, conditions),
        "seeds": f"{seeds[0]} to {seeds[-1]}",
        "classes": in_turn if model.class_names else "none",
        **attributes,
        **({} if own is None else {"made_from": f"{own.about}, in turn"}),
        "trained_with_seed": run.config.seed,
    }
