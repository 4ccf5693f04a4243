"""The samples of a run: kept in its folder, so that only those that are missing are made."""

import hashlib
import json
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

import torch

from undiffuse.config import SamplingConfig
from undiffuse.evaluation.context import EvaluationContext
from undiffuse.evaluation.own_conditions import OwnConditions, own_conditions
from undiffuse.features.image_sets import ImageSet, of_gallery
from undiffuse.runs.gallery import Gallery
from undiffuse.runs.timing import Timing, record, timing_of
from undiffuse.sampling.generate import fill, gallery_in, source_of, told
from undiffuse.sampling.model import Model
from undiffuse.sampling.nfe import nfe
from undiffuse.sampling.options import on_device
from undiffuse.utils.conditions import Conditions, as_conditions
from undiffuse.utils.terminal import log
from undiffuse.utils.world import World


class Made(NamedTuple):
    """Samples of some seeds."""

    images: ImageSet
    made_by: dict[str, Any]
    """What made them, as JSON has it."""
    timing: Timing | None
    """How long it took; None if that is not known. Under torchrun the main process knows."""


@dataclass(frozen=True)
class RunSamples:
    """A folder of samples that one model makes with the same options."""

    model: Model
    gallery: Gallery
    own: OwnConditions | None

    def missing(self, seeds: range, world: World) -> int:
        """How many of the samples are not there yet."""
        return world.on_main(lambda: sum(not self.gallery.has(seed) for seed in seeds))

    def nfe(self, seeds: range) -> int:
        """The function evaluations that make one of them."""
        return nfe(self.model, self.gallery.sampling, self._told(seeds))

    def make(self, seeds: range, context: EvaluationContext) -> Made:
        """The samples of these seeds; the processes make the missing ones together.

        Raises:
            WorkFailed: out of memory.
        """
        world, gallery, model = context.world, self.gallery, self.model
        all_missing = self.missing(seeds, world) == len(seeds)
        seconds = fill(gallery, model, seeds, context.batch, world)
        if all_missing and world.is_main:
            on = model.device.type, torch.get_num_threads(), world.size, context.batch
            record(gallery.folder, Timing(seeds[0], seeds[-1], seconds / len(seeds), *on))
        world.barrier()  # The others read the files that the main process has written.
        conditions = self._told(seeds)
        labels = None if conditions.label is None else conditions.label.tolist()
        images = of_gallery(gallery, seeds, model.origin[0].name, labels)
        return Made(images, self._made_by(seeds), timing_of(gallery.folder, seeds) if world.is_main else None)

    def _told(self, seeds: range) -> Conditions:
        return as_conditions(told(self.gallery, self.model, seeds))

    def _made_by(self, seeds: range) -> dict[str, Any]:
        (run, checkpoint), source, own = self.model.origin, source_of(self.model), self.own
        like_training = self.gallery.like_training
        in_turn = "as often as in training" if like_training or own is not None else "every class in turn"
        attributes = {"attributes": "those of training images, chosen at random"} if like_training else {}
        return {
            **{"images_seen" if name == "images" else name: value for name, value in source.items()},
            "ema": self.model.weights == "ema",
            **(
                {"ema_halflife_images": run.config.training.ema_halflife_images}
                if checkpoint.ema_length is None
                else {"ema_length": checkpoint.ema_length}
            ),
            **asdict(self.gallery.sampling),
            "nfe": self.nfe(seeds),
            "seeds": seeds_text(seeds),
            "classes": in_turn if self.model.class_names else "none",
            **attributes,
            **({} if own is None else {"made_from": f"{own.about}, in turn"}),
            "trained_with_seed": run.config.seed,
        }


def run_samples(model: Model, sampling: SamplingConfig, count: int, context: EvaluationContext) -> RunSamples:
    """The folder of the samples that a run makes with these options; `count` of them will be looked at together.

    Raises:
        ValueError: the model was not loaded from a run.
    """
    world, (run, checkpoint) = context.world, model.origin
    sampling = on_device(sampling, model.device)
    source, own = source_of(model), world.in_turn(lambda: own_conditions(run, count))
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
    return RunSamples(model, gallery, own)


def seeds_text(seeds: range) -> str:
    """As files of metrics have it."""
    return f"{seeds[0]} to {seeds[-1]}"
