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
from undiffuse.data.store import Store
from undiffuse.utils.conditions import (
    NO_LABEL,
    Condition,
    Conditions,
    as_conditions,
    coordinates,
    dropped,
    simplest,
)
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
    numbers: Float[Tensor, "b k"]
    """As in `Conditions`, and so are the next two; k = 0, m = 0 and i = 0: the network is not told of any."""
    categories: Int[Tensor, "b m"]
    image: Float[Tensor, "b i h w"]
    coordinates: Float[Tensor, "b p h w"]
    """Where in the whole image each pixel is; p = 0: these are whole images."""

    @property
    def condition(self) -> Condition:
        """All that the network is told of the images."""
        more = self.augmentation, self.numbers, self.categories, self.image, self.coordinates
        return simplest(Conditions(self.label, *(each if each.shape[1] else None for each in more)))


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
        """`held_out` images are left out: see `split_held_out`. The patches of a step's `batch` have one size."""
        self.store, self.label_dropout, self.seed, self.batch = store, label_dropout, seed, batch
        self.training, _ = split_held_out(len(store), held_out)
        self.transform, self.config = augmentation(config, store.size), config

    def __getitems__(self, numbers: list[int]) -> Batch:
        total = len(self.training)
        indices = self.training[[int(_order(total, self.seed, n // total)[n % total]) for n in numbers]]
        pixels, other = self.store.read(indices), self.store.image_condition
        if other is not None:
            pixels = other.beside(pixels, indices)
        x0 = self.transform(to_nchw(pixels), self.seed, numbers)
        told = x0.new_empty(len(x0), 0)
        if self.config.nonleaky:
            x0, told = nonleaky(x0, self.config.nonleaky, self.seed, numbers)
        image = None
        if other is not None:
            x0, image = other.told(x0, indices)
        randomness = ImageRandomness("training", self.seed, numbers)
        u, drops = randomness.uniform(), randomness.uniform() < self.label_dropout
        condition = as_conditions(self.store.condition(indices, image))
        if self.label_dropout and (self.store.table or other is not None):
            condition = partly_told(condition, self.label_dropout, ImageRandomness("columns", self.seed, numbers))
        condition = as_conditions(dropped(condition, drops))
        assert condition.label is not None
        eps = randomness.normal(*self.store.shape)
        more, whole = _present(condition, len(x0), self.store.size), torch.empty(len(x0), 0, *self.store.size)
        return self._patches(Batch(x0, condition.label, u, eps, told, *more, whole), numbers)

    def _patches(self, batch: Batch, numbers: list[int]) -> Batch:
        """The batch, or patches of it in some steps."""
        whole = self.store.size
        size = patch_size(whole, self.config.patches, self.seed, numbers[0] // self.batch)
        if size == whole:
            return batch
        where = coordinates(*whole).expand(len(numbers), -1, -1, -1)
        cut = patches([batch.x0, batch.eps, batch.image, where], size, self.seed, numbers)
        return batch._replace(x0=cut[0], eps=cut[1], image=cut[2], coordinates=cut[3])


def partly_told(told: Conditions, fraction: float, randomness: ImageRandomness) -> Conditions:
    """In this fraction of the images, the label and each column are told with a probability that is itself random.

    So any of them can be stated alone in sampling: what is not stated was missing in training too.
    """
    columns = [0 if each is None else each.shape[1] for each in (told.numbers, told.categories)]
    partly, probability = randomness.uniform() < fraction, randomness.uniform()
    uniform = torch.special.ndtr(randomness.normal(1 + sum(columns)))
    missing = partly[:, None] & (uniform > probability[:, None])
    label, numbers, categories = missing.split([1, *columns], dim=1)

    def without(tensor: Tensor | None, where: Tensor, value: float) -> Tensor | None:
        return None if tensor is None else torch.where(where, value, tensor)

    return told._replace(
        label=without(told.label, label[:, 0], NO_LABEL),
        numbers=without(told.numbers, numbers, torch.nan),
        categories=without(told.categories, categories, -1),
    )


def _present(told: Conditions, images: int, size: tuple[int, int]) -> tuple[Tensor, Tensor, Tensor]:
    """Numbers, categories and images, without columns or channels where there are none."""
    numbers = torch.empty(images, 0) if told.numbers is None else told.numbers
    categories = torch.empty(images, 0, dtype=torch.long) if told.categories is None else told.categories
    return numbers, categories, torch.empty(images, 0, *size) if told.image is None else told.image


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
