"""Bits/dim of images under a run's model, by both estimates (`diffusion.likelihood`, `flow_likelihood`)."""

from collections.abc import Callable, Iterator
from dataclasses import fields, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from undiffuse.data.pixels import to_unit_range
from undiffuse.data.store import Store
from undiffuse.diffusion import flow_likelihood, likelihood, reverse
from undiffuse.diffusion.denoiser import clipped, denoiser
from undiffuse.sampling.model import Model
from undiffuse.utils.device import state_dtype
from undiffuse.utils.randomness import ImageRandomness
from undiffuse.utils.terminal import Meter

CONTINUOUS_STEPS = 250
"""Levels of the bound's grid where the model knows no chain, evenly spread in log SNR."""


def bits_per_dim(model: Model, store: Store, count: int, seed: int, batch: int) -> dict[str, Any]:
    """The bound and the probability flow's figure over the first `count` images drawn by `seed`, as JSON has them."""
    taken = torch.randperm(len(store), generator=torch.Generator().manual_seed(seed))[:count].sort().values.tolist()
    portions = [taken[start : start + batch] for start in range(0, len(taken), batch)]
    bounds, flows = [], []
    with Meter("bits/dim", len(taken)) as meter:
        for i, portion in enumerate(portions):
            x0, label = _images(model, store, portion)

            def show(share: float, done: int = i * batch, size: int = len(portion)) -> None:
                meter.reach(done + share * size, f"{done:,}/{len(taken):,} images")

            bounds.append(_bound(model, x0, label, seed, portion, lambda part: show(part / 2)))
            flows.append(_flow(model, x0, label, seed, portion, lambda part: show((1 + part) / 2)))
    return {
        "variational bound": {**_joined(bounds).summary(), "split": store.split},
        "probability flow": {**_joined(flows).summary(), "split": store.split},
    }


def _images(model: Model, store: Store, indices: list[int]) -> tuple[Tensor, Tensor | None]:
    pixels = torch.from_numpy(store.read(indices)).permute(0, 3, 1, 2)
    x0 = nn.Sequential(*to_unit_range())(pixels).to(model.device, state_dtype(model.device))
    label = torch.from_numpy(store.labels[indices]).to(model.device) if model.class_names else None
    return x0, label


@torch.no_grad()
def _bound(
    model: Model, x0: Tensor, label: Tensor | None, seed: int, indices: list[int], show: Callable[[float], object]
) -> likelihood.VLB:
    diffusion = model.diffusion
    grid = (
        diffusion.discrete_sigmas(diffusion.num_timesteps)
        if diffusion.is_discrete
        else diffusion.log_snr_sigmas(CONTINUOUS_STEPS)
    ).to(model.device, state_dtype(model.device))

    def watch(terms: Iterator[likelihood.Term]) -> Iterator[likelihood.Term]:
        for i, term in enumerate(terms, 1):
            show(i / (len(grid) - 1))
            yield term

    return likelihood.bound(
        clipped(model.estimate),  # As Improved DDPM's figures are.
        x0,
        grid,
        label,
        noise=partial(ImageRandomness("bound", seed, indices).normal, *model.shape),
        variance=reverse.learned if diffusion.learned_variance else reverse.small,
        watch=watch,
    )


def _flow(
    model: Model, x0: Tensor, label: Tensor | None, seed: int, indices: list[int], show: Callable[[float], object]
) -> flow_likelihood.FlowLikelihood:
    randomness = ImageRandomness("probability flow", seed, indices)
    uniform = torch.special.ndtr(randomness.normal(*model.shape).double())
    probe = randomness.normal(*model.shape).sign()  # Rademacher's.
    return flow_likelihood.flow_likelihood(
        denoiser(model.estimate),
        x0,
        *model.diffusion.sigma_range(),
        label,
        uniform=uniform.to(x0),
        probe=probe.to(x0),
        solve=flow_likelihood.RK45(),
        watch=show,
    )


def _joined(parts: list) -> Any:
    """The results of several batches as one."""
    tensors = [field.name for field in fields(parts[0]) if isinstance(getattr(parts[0], field.name), Tensor)]
    return replace(parts[0], **{name: torch.cat([getattr(part, name) for part in parts]) for name in tensors})
