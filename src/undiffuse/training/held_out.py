"""The loss on images that training never sees, measured while training."""

import time
from collections.abc import Callable
from dataclasses import astuple, dataclass, replace
from typing import Any

import numpy as np
import torch
from jaxtyping import Float64
from torch import Tensor

from undiffuse.data.batches import split_held_out
from undiffuse.data.pixels import to_nchw, to_signed_range
from undiffuse.data.store import Store
from undiffuse.runs.finding import change, finding, memorization_gap
from undiffuse.runs.run import Run
from undiffuse.training.observers import Event, Observer
from undiffuse.training.state import TrainingState
from undiffuse.utils.conditions import as_conditions, simplest
from undiffuse.utils.device import autocast, upload
from undiffuse.utils.randomness import ImageRandomness
from undiffuse.utils.terminal import log

LEVELS = 8
"""Noise levels: the middles of as many equally likely parts of the distribution that training samples."""

COST_FRACTION = 0.03
"""At most this fraction of the budget is spent on measuring."""

EVALUATIONS_PER_TRAINING_IMAGE = 3
"""Of the network, in the time of one: forward, and twice as much backward."""

MEASUREMENTS = (8, 20)
"""How often it is measured over the budget, at least and at most."""

IMAGES = (8, 512)
"""How many held-out images are measured, at least and at most; as many training images are beside them."""

BATCH = 64

LAST_PART = 0.3
"""At the end, the loss is compared with that before this last fraction of the budget."""


@dataclass(frozen=True)
class Plan:
    """How much is measured."""

    images: int
    measurements: int

    @classmethod
    def within(cls, evaluations: float, held_out: int) -> "Plan | None":
        """What this many network evaluations suffice for; None if they are too few to tell anything."""
        for_one_image = 2 * LEVELS  # A training image goes with each held-out image.
        images = min(int(evaluations / (for_one_image * MEASUREMENTS[0])), IMAGES[1], held_out)
        if images < IMAGES[0]:
            return None
        return cls(images, min(MEASUREMENTS[1], int(evaluations / (for_one_image * images))))


class HeldOut(Observer):
    """Measures the loss of the EMA weights on held-out images and on training images, at fixed points of the budget.

    The same images have the same noise every time, so that only the model changes. The next line of the log has the
    result, curves.png shows it, and a notice at the end says what it means.
    """

    key = "held_out"

    def __init__(self, store: Store, progress: float):
        """`progress` is the fraction of the budget that is spent before."""
        self.store, self.progress = store, progress

    def begin(self, run: Run, state: TrainingState) -> None:
        self.run, self.config, self.finding = run, run.config, ""
        self.device = next(state.ema.parameters()).device
        self.sigmas = self.config.diffusion.make_sigma_sampler().sample(_middles(LEVELS)).sigma
        self.kept: dict[str, Any] = {}
        """What a checkpoint needs: the result that is not yet logged, and earlier losses of each image."""
        training, held_out = split_held_out(len(self.store), self.config.training.held_out_images)
        self.both = held_out, training
        self.plan = Plan.within(COST_FRACTION * self._affordable(state, training), len(held_out))
        if self.plan is not None:
            self.done = int(self.progress * self.plan.measurements)

    def resume(self, saved: dict[str, Any]) -> None:
        self.kept = dict(saved)
        if self.plan is not None and "first" in saved:
            # Another speed or budget suffices for another number, but only losses of the same images can be compared.
            self.plan = replace(self.plan, images=len(saved["first"][0]))

    def step(self, event: Event) -> None:
        if self.plan is None or event.fails:
            return
        due = int(min(event.progress, 1.0) * self.plan.measurements)
        if due > self.done:
            self.done = due
            self._measure(event)

    def take(self) -> dict[str, Any]:
        """What was measured since the last call, for a line of the log."""
        return self.kept.pop("result", {})

    def checkpoint_state(self) -> dict[str, Any]:
        return self.kept

    def end(self) -> None:
        if self.finding:
            log.info(self.finding)

    def _measure(self, event: Event) -> None:
        assert self.plan is not None
        losses = [self.losses(event.ema, indices[: self.plan.images]) for indices in self.both]
        held_out, training = (each.mean(dim=1) for each in losses)
        result = {
            "held_out_loss": float(held_out.mean()),
            "sigmas": [round(float(sigma), 4) for sigma in self.sigmas],
            "held_out_losses": losses[0].mean(dim=0).tolist(),
            "training_losses": losses[1].mean(dim=0).tolist(),
        }
        # A student's loss compares its own answers: lower is not better, and says nothing of more training.
        if "earlier" in self.kept and not self.config.diffusion.jumps:
            result["held_out_change"] = astuple(change(_tensors(self.kept["earlier"])[0], held_out))
        if "first" in self.kept:
            result["memorization_gap"] = astuple(memorization_gap(_tensors(self.kept["first"]), (held_out, training)))
        by_image = [held_out.tolist(), training.tolist()]
        self.kept.setdefault("first", by_image)
        if event.progress <= 1 - LAST_PART:
            self.kept["earlier"] = by_image
        self.kept["result"], self.finding = result, finding(result)

    @torch.no_grad()
    def losses(self, network: Callable[..., Tensor], indices: np.ndarray) -> Float64[Tensor, "n k"]:
        """The loss of each image at each noise level."""
        loss_of, precision = self.config.diffusion.make_loss(), self.config.training.precision
        rows = []
        for chunk in np.array_split(indices, -(-len(indices) // BATCH)):
            x0 = upload(to_signed_range(to_nchw(self.store.read(chunk))), self.device)
            eps = upload(ImageRandomness("held out", 0, chunk.tolist()).normal(*self.store.shape), self.device)
            told = as_conditions(self.store.condition(chunk)).map(lambda each: upload(each, self.device))
            levels = upload(self.sigmas, self.device)[:, None].expand(-1, len(chunk))
            with autocast(self.device, precision):
                found = [loss_of(network, x0=x0, eps=eps, sigma=sigma, label=simplest(told)) for sigma in levels]
            rows.append(torch.stack(found, dim=1).cpu().double())
        return torch.cat(rows)

    def _affordable(self, state: TrainingState, training: np.ndarray) -> float:
        """How many evaluations of the network the whole budget would be."""
        budget = self.config.training
        if budget.total_images is not None:
            return EVALUATIONS_PER_TRAINING_IMAGE * budget.total_images
        assert budget.total_minutes is not None
        seconds, some, ema = 0.0, training[: IMAGES[0]], state.whole("ema")
        for _ in range(2):  # The first warms up.
            began = time.monotonic()
            self.losses(ema, some)
            seconds = time.monotonic() - began
        return 60 * budget.total_minutes / (seconds / (LEVELS * len(some)))


def _tensors(by_image: list[list[float]]) -> tuple[Float64[Tensor, " n"], Float64[Tensor, " n"]]:
    held_out, training = (torch.tensor(losses, dtype=torch.float64) for losses in by_image)
    return held_out, training


def _middles(parts: int) -> Float64[Tensor, " n"]:
    return (torch.arange(parts, dtype=torch.float64) + 0.5) / parts
