import math
import pickle
from itertools import islice
from pathlib import Path

import pytest
import torch
from helpers.making import opened, save_noise
from torch import Tensor

from undiffuse.data.augmentation import AugmentationConfig
from undiffuse.data.batches import Batch, ImageStream, batches, partly_told
from undiffuse.data.pixels import to_nhwc, to_pixels
from undiffuse.data.store import Store
from undiffuse.utils.conditions import Conditions
from undiffuse.utils.randomness import ImageRandomness

FULL = AugmentationConfig(flip=True, crop_scale=0.5)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    """Ten images in three classes."""
    names = [f"class-{i % 3}/{i}.png" for i in range(10)]
    return opened(save_noise(tmp_path / "photos", *names), size=(8, 12))


def stream(store: Store, config: AugmentationConfig = FULL, label_dropout: float = 0.3, seed: int = 0) -> ImageStream:
    return ImageStream(store, config, label_dropout, seed)


def joined(batches: list[Batch]) -> Batch:
    return Batch(*(torch.cat(tensors) for tensors in zip(*batches, strict=True)))


def taken(
    images: ImageStream,
    steps: int,
    first_image: int = 0,
    batch: int = 8,
    rank: int = 0,
    world: int = 1,
    workers: int = 0,
) -> list[Batch]:
    return list(islice(batches(images, first_image, batch, rank, world, workers, pin_memory=False), steps))


def same(a: Batch, b: Batch) -> bool:
    return all(torch.equal(x, y) for x, y in zip(a, b, strict=True))


def which(store: Store, x0: Tensor) -> list[int]:
    """The index in the store of each image that was not augmented."""
    index = {pixels.tobytes(): i for i, pixels in enumerate(store.read(range(len(store))))}
    return [index[pixels.tobytes()] for pixels in to_nhwc(to_pixels(x0))]


@pytest.mark.parametrize("world", [2, 4])
def test_several_processes_see_the_images_of_a_single_one(store: Store, world: int) -> None:
    single = taken(stream(store), steps=4)
    shards = [taken(stream(store), steps=4, rank=rank, world=world) for rank in range(world)]
    for step in range(4):
        assert same(joined([shards[rank][step] for rank in range(world)]), single[step])


@pytest.mark.parametrize("first_image", [1, 8, 10, 13, 10_007])
def test_starting_at_an_image_equals_skipping_to_it(store: Store, first_image: int) -> None:
    one_by_one = [stream(store).__getitems__([n]) for n in range(first_image, first_image + 12)]
    assert same(joined(taken(stream(store), steps=3, first_image=first_image, batch=4)), joined(one_by_one))


def test_the_batch_size_changes_nothing(store: Store) -> None:
    small, large = taken(stream(store), steps=8, batch=3), taken(stream(store), steps=2, batch=12)
    assert same(joined(small), joined(large))


def test_every_epoch_shows_each_image_once_in_a_new_order(store: Store) -> None:
    images = stream(store, AugmentationConfig(), label_dropout=0.0)
    seen = joined(taken(images, steps=10, batch=7))
    order = which(store, seen.x0)
    epochs = [order[i : i + 10] for i in range(0, 70, 10)]
    assert all(sorted(epoch) == list(range(10)) for epoch in epochs)
    assert len({tuple(epoch) for epoch in epochs}) == 7
    assert seen.label.tolist() == store.labels[order].tolist()


def test_another_seed_is_another_stream(store: Store) -> None:
    images = [joined(taken(stream(store, AugmentationConfig(), seed=seed), steps=2)) for seed in (0, 1)]
    assert which(store, images[0].x0) != which(store, images[1].x0)
    assert not torch.isclose(images[0].eps, images[1].eps).any()
    assert not torch.isclose(images[0].u, images[1].u).any()


def test_augmentation_changes_nothing_else_that_is_random(store: Store) -> None:
    plain, full = joined(taken(stream(store, AugmentationConfig()), steps=2)), joined(taken(stream(store), steps=2))
    assert not torch.equal(plain.x0, full.x0)
    assert all(torch.equal(x, y) for x, y in zip(plain[1:], full[1:], strict=True))


@pytest.mark.parametrize("rate", [0.0, 0.2, 1.0])
def test_labels_are_dropped_at_the_requested_rate(store: Store, rate: float) -> None:
    n = 4000
    shown = stream(store, AugmentationConfig(), label_dropout=0.0).__getitems__(list(range(n))).label
    label = stream(store, AugmentationConfig(), label_dropout=rate).__getitems__(list(range(n))).label
    dropped = label == -1
    assert torch.equal(label[~dropped], shown[~dropped])
    # A fraction p of n has standard deviation sqrt(p (1 - p) / n): five of them.
    assert abs(dropped.double().mean() - rate) <= 5 * math.sqrt(rate * (1 - rate) / n)
    for kind in range(3):  # No class is dropped more often than the others.
        in_class = dropped[shown == kind].double()
        assert abs(in_class.mean() - rate) <= 5 * math.sqrt(rate * (1 - rate) / len(in_class))


def test_which_columns_are_told_depends_on_their_number_alone() -> None:
    """Each image draws once for its label and once for each column, whether these are numbers or categories."""
    n = 50
    zeros, label = torch.zeros(n, 2), torch.zeros(n, dtype=torch.long)
    told = [
        Conditions(label, numbers=zeros),
        Conditions(label, categories=zeros.long()),
        Conditions(label, numbers=zeros[:, :1], categories=zeros[:, :1].long()),
    ]
    missing = []
    for each in told:
        partly = partly_told(each, 0.7, ImageRandomness("columns", 0, range(n)))
        assert partly.label is not None
        columns = [partly.label[:, None] < 0]
        columns += [] if partly.numbers is None else [partly.numbers.isnan()]
        columns += [] if partly.categories is None else [partly.categories < 0]
        missing.append(torch.cat(columns, dim=1))
    assert torch.equal(missing[0], missing[1])
    assert torch.equal(missing[0], missing[2])
    assert 0 < missing[0].double().mean() < 1


def test_noise_and_its_level_are_normal_and_uniform(store: Store) -> None:
    n = 1000
    seen = stream(store, AugmentationConfig()).__getitems__(list(range(n)))
    total = seen.eps.numel()
    assert seen.eps.shape == seen.x0.shape == (n, 3, 8, 12)
    # Five standard errors: 1/sqrt(N) of a mean, sqrt(2/N) of a variance, 1/sqrt(12 n) of a uniform mean.
    assert abs(seen.eps.double().mean()) < 5 / math.sqrt(total)
    assert abs(seen.eps.double().var() - 1) < 5 * math.sqrt(2 / total)
    assert abs(seen.u.mean() - 0.5) < 5 / math.sqrt(12 * n)
    assert seen.u.min() >= 0
    assert seen.u.max() < 1
    assert len(seen.u.unique()) == n


def test_images_without_classes_have_no_label(tmp_path: Path) -> None:
    folder = save_noise(tmp_path / "photos", "a.png", "b.png")
    assert stream(opened(folder)).__getitems__([0, 1, 2]).label.tolist() == [-1, -1, -1]


def test_loader_processes_change_nothing(store: Store) -> None:
    without, with_two = taken(stream(store), steps=5), taken(stream(store), steps=5, workers=2)
    assert all(same(a, b) for a, b in zip(without, with_two, strict=True))


def test_the_stream_can_be_pickled(store: Store) -> None:
    images = stream(store)
    sent = pickle.loads(pickle.dumps(images))
    assert same(sent.__getitems__([3, 14]), images.__getitems__([3, 14]))


@pytest.mark.parametrize("workers", [0, 2])
def test_the_global_generator_is_left_alone(store: Store, workers: int) -> None:
    before = torch.random.get_rng_state()
    taken(stream(store), steps=3, workers=workers)
    assert torch.equal(torch.random.get_rng_state(), before)


def test_the_global_generator_has_no_influence(store: Store) -> None:
    torch.manual_seed(1)
    first = taken(stream(store), steps=2)
    torch.manual_seed(2)
    assert all(same(a, b) for a, b in zip(first, taken(stream(store), steps=2), strict=True))
