"""Training's endless stream of images, a function of the seed alone, so that it can be taken up anywhere."""

import signal
from collections.abc import Iterator
from functools import lru_cache
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from undiffuse.data.augmentation import AugmentationConfig, augmentation
from undiffuse.data.store import Store
from undiffuse.utils.randomness import ImageRandomness, generator


class Batch(NamedTuple):
    """Images with all that is random about them. The n-th image of training is the same in every run of the seed."""

    x0: Float[Tensor, "b c h w"]
    """Images in [-1, 1]."""
    label: Int[Tensor, " b"]
    """Class index; -1 for none, or hidden."""
    u: Float[Tensor, " b"]
    """Uniform in [0, 1): the quantile at which the noise level is drawn."""
    eps: Float[Tensor, "b c h w"]
    """Unit normal noise."""


class ImageStream(Dataset):
    """The n-th image of training, n counting from 0 over all epochs; every epoch shows each image once, reordered."""

    def __init__(self, store: Store, config: AugmentationConfig, label_dropout: float, seed: int):
        self.store, self.label_dropout, self.seed = store, label_dropout, seed
        self.transform = augmentation(config, store.size)

    def __getitems__(self, numbers: list[int]) -> Batch:
        indices = [int(_order(len(self.store), self.seed, n // len(self.store))[n % len(self.store)]) for n in numbers]
        images = torch.from_numpy(self.store.read(indices)).permute(0, 3, 1, 2)
        x0 = self.transform(images, self.seed, numbers)
        randomness = ImageRandomness("training", self.seed, numbers)
        u, hides = randomness.uniform(), randomness.uniform() < self.label_dropout
        label = torch.from_numpy(self.store.labels[indices])
        return Batch(x0, torch.where(hides, -1, label), u, randomness.normal(*self.store.shape))


class _Portions:
    """For each step the numbers of the images that are this process's share: consecutive within the global batch."""

    def __init__(self, first_image: int, batch: int, rank: int, world: int):
        self.first_image, self.batch, self.rank, self.world = first_image, batch, rank, world

    def __iter__(self) -> Iterator[list[int]]:
        share = self.batch // self.world
        start = self.first_image + self.rank * share
        while True:
            yield list(range(start, start + share))
            start += self.batch


def batches(
    stream: ImageStream, first_image: int, batch: int, rank: int, world: int, workers: int, pin_memory: bool
) -> Iterator[Batch]:
    """This process's share of each global batch, from image `first_image` on, without end.

    The stream of all processes together does not depend on how many there are.
    """
    loader = DataLoader(
        stream,
        batch_sampler=_Portions(first_image, batch, rank, world),
        collate_fn=_as_is,  # ty: ignore[invalid-argument-type]
        num_workers=workers,
        worker_init_fn=_ignore_signals,
        pin_memory=pin_memory,
        persistent_workers=workers > 0,
        generator=torch.Generator(),  # Else it draws from the global one.
    )
    return iter(loader)


def _as_is(batch: Batch) -> Batch:
    return batch


def _ignore_signals(worker: int) -> None:
    """A signal to the whole group is for the training process: it must find its workers alive to save in peace."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)


@lru_cache(maxsize=4)
def _order(total_images: int, seed: int, epoch: int) -> Int[Tensor, " n"]:
    return torch.randperm(total_images, generator=generator("order", seed, epoch))
