"""The endless stream of training images. It depends on the seed alone, so training can resume at any image."""

import signal
from collections.abc import Iterator
from functools import lru_cache
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from undiffuse.data.augmentation import AugmentationConfig, augmentation
from undiffuse.data.nonleaky import nonleaky
from undiffuse.data.patches import patch_size, patches
from undiffuse.data.pixels import to_nchw
from undiffuse.data.source import NO_CLASS
from undiffuse.data.store import Store
from undiffuse.utils.conditions import Condition, Conditions
from undiffuse.utils.randomness import ImageRandomness, generator


class Batch(NamedTuple):
    """Images with everything random about them. Image n of training is the same in every run with the same seed."""

    x0: Float[Tensor, "b c h w"]
    """Images in [-1, 1]."""
    label: Int[Tensor, " b"]
    """Class index; -1 for no label, or a dropped one."""
    u: Float[Tensor, " b"]
    """Uniform in [0, 1): the quantile of the noise level."""
    eps: Float[Tensor, "b c h w"]
    """Standard normal noise."""
    augmentation: Float[Tensor, "b a"]
    """How x0 was augmented, for the network; a = 0: not in a way that it is told of."""
    coordinates: Float[Tensor, "b 2 h w"] | None = None
    """Where in the whole image each pixel is; None: these are whole images."""

    @property
    def condition(self) -> Condition:
        """All that the network is told of the images."""
        augmentation = self.augmentation if self.augmentation.shape[1] else None
        if augmentation is None and self.coordinates is None:
            return self.label
        return Conditions(self.label, augmentation, self.coordinates)


class ImageStream(Dataset):
    """Image n of training, counted from 0 over all epochs. Each epoch shows every image once, in a new order."""

    def __init__(
        self,
        store: Store,
        config: AugmentationConfig,
        label_dropout: float,
        seed: int,
        held_out: int | None = 0,
        batch: int = 1,
    ):
        """`held_out` images are left out: see `split_held_out`. The `batch` images of a step have patches of one size."""
        self.store, self.label_dropout, self.seed, self.batch = store, label_dropout, seed, batch
        self.training, _ = split_held_out(len(store), held_out)
        self.transform, self.config = augmentation(config, store.size), config

    def __getitems__(self, numbers: list[int]) -> Batch:
        total = len(self.training)
        indices = self.training[[int(_order(total, self.seed, n // total)[n % total]) for n in numbers]]
        x0 = self.transform(to_nchw(self.store.read(indices)), self.seed, numbers)
        told = x0.new_empty(len(x0), 0)
        if self.config.nonleaky:
            x0, told = nonleaky(x0, self.config.nonleaky, self.seed, numbers)
        randomness = ImageRandomness("training", self.seed, numbers)
        u, dropped = randomness.uniform(), randomness.uniform() < self.label_dropout
        label = torch.where(dropped, NO_CLASS, torch.from_numpy(self.store.labels[indices]))
        whole = Batch(x0, label, u, randomness.normal(*self.store.shape), told)
        return self._patches(whole, numbers) if self.config.patches else whole

    def _patches(self, batch: Batch, numbers: list[int]) -> Batch:
        """The batch, or patches of it in some steps."""
        size = patch_size(self.store.size, self.config.patches, self.seed, numbers[0] // self.batch)
        if size == self.store.size:
            return batch
        x0, eps, coordinates = patches(batch.x0, batch.eps, size, self.seed, numbers)
        return batch._replace(x0=x0, eps=eps, coordinates=coordinates)


HELD_OUT_FRACTION = 0.05
MOST_HELD_OUT = 1000
LEAST_IMAGES = 1000
"""Fewer images than this are all needed for training."""


def split_held_out(total_images: int, held_out: int | None) -> tuple[Int[np.ndarray, " n"], Int[np.ndarray, " m"]]:
    """The indices of the images to train on, and of those held out, each rising: the same for every seed.

    `held_out` is how many; None takes 5%, at most 1,000, where there are at least 1,000 images.

    Raises:
        ValueError: none would be left to train on.
    """
    if held_out is None:
        held_out = min(int(HELD_OUT_FRACTION * total_images), MOST_HELD_OUT) if total_images >= LEAST_IMAGES else 0
    if held_out >= total_images:
        raise ValueError(
            f"--set training.held_out_images={held_out} leaves none of {total_images:,} images to train on: give less."
        )
    order = torch.randperm(total_images, generator=generator("held out", total_images)).numpy()
    return np.sort(order[held_out:]), np.sort(order[:held_out])


class _Shards:
    """For each step, the numbers of the images in this process's shard of the global batch; they are consecutive."""

    def __init__(self, first_image: int, batch: int, rank: int, world: int):
        self.first_image, self.batch, self.rank, self.world = first_image, batch, rank, world

    def __iter__(self) -> Iterator[list[int]]:
        shard = self.batch // self.world
        start = self.first_image + self.rank * shard
        while True:
            yield list(range(start, start + shard))
            start += self.batch


def batches(
    stream: ImageStream, first_image: int, batch: int, rank: int, world: int, workers: int, pin_memory: bool
) -> Iterator[Batch]:
    """This process's shard of each global batch, from image `first_image` on, forever.

    All `world` processes together see the same stream however many there are.
    """
    loader = DataLoader(
        stream,
        batch_sampler=_Shards(first_image, batch, rank, world),
        collate_fn=_unchanged,  # ty: ignore[invalid-argument-type]
        num_workers=workers,
        worker_init_fn=_ignore_signals,
        pin_memory=pin_memory,
        persistent_workers=workers > 0,
        generator=torch.Generator(),  # Otherwise it draws from the global one.
    )
    return iter(loader)


def _unchanged(batch: Batch) -> Batch:
    return batch


def _ignore_signals(worker: int) -> None:
    """A signal to the process group is for the training process, which needs its workers alive until it has saved."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)


@lru_cache(maxsize=4)
def _order(total_images: int, seed: int, epoch: int) -> Int[Tensor, " n"]:
    return torch.randperm(total_images, generator=generator("order", seed, epoch))
