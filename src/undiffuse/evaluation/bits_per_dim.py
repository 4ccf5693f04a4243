"""Bits/dim of images under a run's model, by both estimates (`diffusion.likelihood`, `diffusion.flow_likelihood`)."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, fields, replace
from itertools import zip_longest
from typing import Any

import torch
from torch import Tensor

from undiffuse.config import SamplingConfig
from undiffuse.data.pixels import to_nchw, to_signed_range
from undiffuse.data.store import Store
from undiffuse.diffusion import flow_likelihood, likelihood, reverse
from undiffuse.diffusion.denoiser import clipped, denoiser
from undiffuse.diffusion.sampler_table import SAMPLERS
from undiffuse.sampling.model import Model
from undiffuse.sampling.options import noise_levels
from undiffuse.utils.device import state_dtype, upload
from undiffuse.utils.randomness import ImageRandomness
from undiffuse.utils.terminal import Meter
from undiffuse.utils.world import World

CONTINUOUS_STEPS = 250
"""Sigmas of the VLB if the model has no discrete schedule, evenly spaced in log SNR."""

Show = Callable[[float], object]
"""Called with the fraction that is done."""


@dataclass(frozen=True)
class Batch:
    """Images with the randomness that goes with each."""

    x0: Tensor
    label: Tensor | None
    indices: list[int]
    """In the store."""
    seed: int

    def randomness(self, purpose: str) -> ImageRandomness:
        return ImageRandomness(purpose, self.seed, self.indices)


def bits_per_dim(
    model: Model, store: Store, count: int, seed: int, batch: int, world: World, sampling: SamplingConfig | None = None
) -> dict[str, Any]:
    """The VLB and the probability flow's bits/dim of `count` images that `seed` chooses, as JSON has them.

    With a sampler that takes the VLB's reverse steps, also the VLB over its levels. The processes share the images; in
    all but the main one the result is empty.
    """
    chosen = torch.randperm(len(store), generator=torch.Generator().manual_seed(seed))[:count].sort().values.tolist()
    mine = world.deal(chosen, batch)[world.rank :: world.size]
    total, done, found = sum(map(len, mine)), 0, []
    every, strided = _levels(model), None if sampling is None else _strided(model, sampling)
    with Meter("bits/dim", total) as meter:
        meter.reach(0, f"0/{len(chosen):,} images")
        for indices in mine:
            images = _read(model, store, list(indices), seed)

            def show(fraction: float, done: int = done, size: int = len(indices)) -> None:
                meter.reach(done + fraction * size, f"{done * world.size:,}/{len(chosen):,} images")

            bound = _vlb(model, images, every, lambda fraction: show(fraction / 2))
            flow = _flow(model, images, lambda fraction: show((1 + fraction) / 2))
            shorter = [] if strided is None else [_vlb(model, images, strided, lambda fraction: None)]
            # The main process may not see the others' devices.
            found.append([_on_cpu(each) for each in (bound, flow, *shorter)])
            done += len(indices)
    by_rank = world.collect(found)
    if not by_rank:
        return {}
    # In the order of the batches, whoever computed them: sums are then the same to the last digit.
    in_order = (each for turn in zip_longest(*by_rank) for each in turn if each is not None)
    names = ["VLB", "probability flow"] + ([] if strided is None else [f"VLB over {len(strided) - 1} steps"])
    told = {"attributes": "not told"} if model.config.attributes else {}
    estimates = {
        name: _joined(batches).summary() for name, batches in zip(names, zip(*in_order, strict=True), strict=True)
    }
    return {
        name: {**summary, "split": store.split, "protocol": {**summary["protocol"], **told}}
        for name, summary in estimates.items()
    }


def _levels(model: Model) -> Tensor:
    """The levels of the VLB: the whole discrete schedule, or a fine one of our own."""
    diffusion = model.diffusion
    if diffusion.is_discrete:
        return diffusion.discrete_sigmas(diffusion.num_timesteps)
    return diffusion.log_snr_sigmas(CONTINUOUS_STEPS)


def _strided(model: Model, sampling: SamplingConfig) -> Tensor | None:
    """The levels of a sampler that takes the VLB's steps, if they are fewer than all and more than one."""
    takes_steps = SAMPLERS[sampling.sampler].takes_prediction
    sigmas = noise_levels(model.diffusion, sampling)
    return sigmas if takes_steps and 3 <= len(sigmas) < len(_levels(model)) else None


def _read(model: Model, store: Store, indices: list[int], seed: int) -> Batch:
    pixels = to_nchw(store.read(indices))
    x0 = to_signed_range(pixels).to(model.device, state_dtype(model.device))
    label = upload(torch.from_numpy(store.labels[indices]), model.device) if model.class_names else None
    return Batch(x0, label, indices, seed)


@torch.no_grad()
def _vlb(model: Model, images: Batch, sigmas: Tensor, show: Show) -> likelihood.VLB:
    diffusion = model.diffusion
    randomness = images.randomness("bound")

    def watch(terms: Iterator[likelihood.Term]) -> Iterator[likelihood.Term]:
        for i, term in enumerate(terms, 1):
            show(i / (len(sigmas) - 1))
            yield term

    return likelihood.vlb(
        clipped(model.predict),  # As in Improved DDPM's values.
        images.x0,
        upload(sigmas, model.device),
        images.label,
        noise=lambda: upload(randomness.normal(*model.shape), model.device),
        variance=reverse.learned if diffusion.learned_variance else reverse.small,
        watch=watch,
    )


def _flow(model: Model, images: Batch, show: Show) -> flow_likelihood.FlowLikelihood:
    randomness = images.randomness("probability flow")
    uniform = torch.special.ndtr(randomness.normal(*model.shape).double())
    probe = randomness.normal(*model.shape).sign()  # Rademacher's.
    return flow_likelihood.flow_likelihood(
        denoiser(model.predict),
        images.x0,
        *model.diffusion.sigma_range(),
        images.label,
        uniform=uniform.to(images.x0),
        probe=probe.to(images.x0),
        solve=flow_likelihood.RK45(),
        watch=show,
    )


def _joined(batches: Sequence[Any]) -> Any:
    """The results of several batches as one."""
    return replace(
        batches[0], **{name: torch.cat([getattr(each, name) for each in batches]) for name in _tensors(batches[0])}
    )


def _on_cpu(result: Any) -> Any:
    return replace(result, **{name: tensor.cpu() for name, tensor in _tensors(result).items()})


def _tensors(result: Any) -> dict[str, Tensor]:
    """The tensors of a dataclass by name."""
    values = {field.name: getattr(result, field.name) for field in fields(result)}
    return {name: value for name, value in values.items() if isinstance(value, Tensor)}
