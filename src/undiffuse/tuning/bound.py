"""Tuning `ancestral`: the stride of a run's discrete schedule whose bound on the bits/dim of its images is least."""

import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import safetensors.torch
import torch
from jaxtyping import Float
from torch import Tensor

from undiffuse.config import SamplingConfig
from undiffuse.data.batches import split_held_out
from undiffuse.data.pixels import to_nchw, to_signed_range
from undiffuse.data.store import Store
from undiffuse.diffusion import likelihood
from undiffuse.diffusion.denoiser import clipped
from undiffuse.diffusion.reverse import VARIANCES, LogVariance
from undiffuse.sampling.model import Model
from undiffuse.sampling.options import on_device
from undiffuse.sampling.tuned import TunedSchedule
from undiffuse.tuning.progress import Outcome, Progress, key, read_progress, read_tensors, write_progress
from undiffuse.tuning.strides import Show, best_stride, bound_terms, candidates
from undiffuse.utils.device import state_dtype, upload
from undiffuse.utils.files import write_atomically
from undiffuse.utils.randomness import ImageRandomness, generator
from undiffuse.utils.terminal import Meter, log, track
from undiffuse.utils.text import duration

BATCH = 16
"""Images at once, and in a file of terms."""

MOST_IMAGES = 256

TIMED_LEVELS = 8
"""Of the candidates, to learn the speed."""


def tune_stride(model: Model, sampling: SamplingConfig, store: Store, folder: Path, minutes: float) -> Outcome:
    """Finds the levels of the discrete schedule for `ancestral`, with as many of the run's images as `minutes` allow.

    Args:
        sampling: With the evenly spaced levels, which the result is compared with on other images: those that were held
            out from training where there are enough.
        store: The images that the run was trained on.
        folder: Of what is kept between interruptions.

    Raises:
        ValueError: the run has no discrete schedule of more levels than steps, or there are too few images.
    """
    diffusion = model.diffusion
    if not diffusion.is_discrete:
        raise ValueError(
            "--sampler ancestral is tuned along a discrete schedule, which this run has not: choose ipndm."
        )
    if not 2 <= sampling.steps < diffusion.num_timesteps:
        raise ValueError(f"--steps {sampling.steps} cannot be tuned: choose 2 to {diffusion.num_timesteps - 1}.")
    if len(store) < 2 * BATCH:
        raise ValueError(f"{store.name} has {len(store)} images, and tuning needs at least {2 * BATCH}.")
    sampling = on_device(sampling, model.device)
    checkpoint = model.origin[1]
    digest, sigmas = checkpoint.digest(model.weights), candidates(diffusion, sampling.steps)
    at = folder / f"ancestral-{sampling.steps}-{key(digest, sampling)}"
    progress = read_progress(at / "search.json")
    if progress is not None and progress.found is not None:
        return Outcome(progress.found, again=True)
    variance = _variance(model, sampling)
    if progress is None:
        progress = Progress(_images(model, store, sigmas, variance, minutes))
        write_progress(at / "search.json", progress)
    searched, checked = _split(model, store, progress.images)
    with Meter("tuning", len(searched) * len(sigmas)) as meter:
        costs = []
        for i in range(0, len(searched), BATCH):

            def show(level: int, i: int = i) -> None:
                meter.reach(i * len(sigmas) + level * BATCH, f"{i:,}/{len(searched):,} images")

            file = at / f"{i}.safetensors"
            if not file.exists():
                found = _terms(model, store, searched[i : i + BATCH], sigmas, variance, show)
                write_atomically(file, safetensors.torch.save({"costs": found}))
            costs.append(read_tensors(file, "costs")[0])
    path = best_stride(torch.stack(costs).mean(dim=0), sampling.steps)
    even = tuple(diffusion.discrete_sigmas(sampling.steps)[:-1].tolist())
    tuned = tuple(sigmas[path].tolist())
    bounds = [
        _bound(model, store, checked, levels, variance, f"checking the {name} levels")
        for name, levels in {"tuned": tuned, "even": even}.items()
    ]
    schedule = TunedSchedule(
        sampling=replace(sampling, sigmas=tuned),
        weights_sha256=digest,
        images_seen=checkpoint.images,
        measure="bits/dim",
        error=bounds[0],
        default_error=bounds[1],
        images_measured=len(checked),
    )
    write_progress(at / "search.json", replace(progress, found=schedule))
    return Outcome(schedule, again=False)


def _split(model: Model, store: Store, images: int) -> tuple[list[int], list[int]]:
    """The images to search with, and others to check with, held-out ones where there are enough."""
    training, held_out = split_held_out(len(store), model.config.training.held_out_images)
    order = training[torch.randperm(len(training), generator=generator("strides", len(store))).numpy()].tolist()
    checked = held_out[:MOST_IMAGES].tolist() if len(held_out) >= BATCH else order[images : 2 * images]
    return order[:images], checked


def _images(model: Model, store: Store, sigmas: Tensor, variance: LogVariance, minutes: float) -> int:
    """How many images can be searched with in so many minutes, by the speed at a few of the levels."""
    few = sigmas[torch.linspace(0, len(sigmas) - 1, TIMED_LEVELS).long()]
    indices, _ = _split(model, store, BATCH)
    began = time.monotonic()
    _terms(model, store, indices, few, variance)
    pairs, timed = len(sigmas) * (len(sigmas) - 1), TIMED_LEVELS * (TIMED_LEVELS - 1)
    seconds = (time.monotonic() - began) * pairs / timed  # Of a batch, at most.
    most = min(MOST_IMAGES, len(store) // 2) // BATCH
    batches = max(1, min(most, int(60 * minutes / seconds)))
    log.info(f"The bound's terms at {len(sigmas)} levels, of {batches * BATCH} images: {duration(seconds * batches)}.")
    return batches * BATCH


@torch.no_grad()
def _terms(
    model: Model,
    store: Store,
    indices: Sequence[int],
    sigmas: Float[Tensor, " n"],
    variance: LogVariance,
    show: Show = lambda level: None,
) -> Float[Tensor, "2 n n"]:
    x0, label = _read(model, store, indices)
    randomness = ImageRandomness("strides", 0, indices)
    return bound_terms(
        clipped(model.predict),
        x0,
        upload(sigmas, model.device),
        label,
        noise=lambda: upload(randomness.normal(*model.shape), model.device),
        variance=variance,
        show=show,
    )


@torch.no_grad()
def _bound(
    model: Model, store: Store, indices: Sequence[int], sigmas: Sequence[float], variance: LogVariance, what: str
) -> float:
    """The mean bound of the images in bits/dim over these levels; `what` is what the progress bar says."""
    totals = []
    for i in track(range(0, len(indices), BATCH), what, -(-len(indices) // BATCH)):
        x0, label = _read(model, store, indices[i : i + BATCH])
        randomness = ImageRandomness("bound", 0, indices[i : i + BATCH])
        levels = upload(torch.tensor([*sigmas, 0.0], dtype=torch.float64), model.device)
        noise = lambda randomness=randomness: upload(randomness.normal(*model.shape), model.device)  # noqa: E731
        found = likelihood.vlb(clipped(model.predict), x0, levels, label, noise=noise, variance=variance)
        totals.append(found.total.cpu())
    return float(torch.cat(totals).mean())


def _read(model: Model, store: Store, indices: Sequence[int]) -> tuple[Tensor, Tensor | None]:
    pixels = to_nchw(store.read(list(indices)))
    x0 = to_signed_range(pixels).to(model.device, state_dtype(model.device))
    return x0, upload(torch.from_numpy(store.labels[list(indices)]), model.device) if model.class_names else None


def _variance(model: Model, sampling: SamplingConfig) -> LogVariance:
    auto = "learned" if model.diffusion.learned_variance else "small"
    return VARIANCES[auto if sampling.variance == "auto" else sampling.variance]
