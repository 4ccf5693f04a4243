"""Patches of images: where they lie, how large they are, and that training does not depend on how steps are split."""

import pytest
import torch
from helpers.tensors import normal

from undiffuse.data.augmentation import AugmentationConfig
from undiffuse.data.batches import ImageStream
from undiffuse.data.patches import mean_pixels, patch_size, patch_sizes, patches
from undiffuse.data.store import DataConfig, open_store
from undiffuse.utils.conditions import as_conditions, coordinates


def test_all_of_an_image_is_cut_at_the_same_place() -> None:
    where = coordinates(12, 8).expand(50, 2, 12, 8)
    found, negative, across = patches([where, -where, where[:, :1]], (6, 4), 0, range(50))
    assert found.shape == (50, 2, 6, 4)
    assert torch.equal(negative, -found)
    assert torch.equal(across, found[:, :1])
    steps = found.diff(dim=3)[:, 0], found.diff(dim=2)[:, 1]
    torch.testing.assert_close(steps[0], torch.full_like(steps[0], 2 / 7))
    torch.testing.assert_close(steps[1], torch.full_like(steps[1], 2 / 11))


def test_coordinates_reach_from_corner_to_corner() -> None:
    across, down = coordinates(4, 6)
    assert across[:, 0].eq(-1).all()
    assert across[:, -1].eq(1).all()
    assert down[0].eq(-1).all()
    assert down[-1].eq(1).all()


def test_every_place_is_as_likely() -> None:
    n, places = 3000, 5 * 3
    image = torch.arange(24.0).view(1, 1, 6, 4).expand(n, -1, -1, -1)
    first = patches([image], (2, 2), 1, range(n))[0][:, 0, 0, 0]
    counts = first.long().bincount(minlength=24).double()
    possible = torch.tensor([4 * top + left for top in range(5) for left in range(3)])
    assert counts[possible].sum() == n
    assert ((counts[possible] / n - 1 / places).abs() < 4 * (1 / places / n) ** 0.5).all()


@pytest.mark.parametrize("fraction", [0.0, 0.5, 1.0])
def test_each_size_has_its_fraction_of_the_steps(fraction: float) -> None:
    n, size = 2000, (48, 32)
    found = [patch_size(size, fraction, 0, step) for step in range(n)]
    assert patch_sizes(size) == [(24, 16), (12, 8)]
    expected = {(48, 32): 1 - fraction, (24, 16): 0.6 * fraction, (12, 8): 0.4 * fraction}
    for each, p in expected.items():
        assert abs(found.count(each) / n - p) <= 4 * (p * (1 - p) / n) ** 0.5
    pixels = sum(height * width for height, width in found) / n / (48 * 32)
    assert pixels == pytest.approx(mean_pixels(fraction), rel=0.05)


def test_an_image_has_the_same_patch_in_any_batch() -> None:
    x0, eps = normal(6, 3, 8, 8).float(), normal(6, 3, 8, 8).float()
    together = patches([x0, eps], (4, 4), 3, range(10, 16))
    for i in range(6):
        alone = patches([x0[i : i + 1], eps[i : i + 1]], (4, 4), 3, [10 + i])
        assert all(torch.equal(one[0], all_of_them[i]) for one, all_of_them in zip(alone, together, strict=True))


def test_a_step_has_patches_of_one_size_however_it_is_split() -> None:
    store = open_store(DataConfig(size=(8, 8)))
    stream = ImageStream(store, AugmentationConfig(patches=0.7), 0.1, seed=0, batch=20)
    sizes = []
    for step in range(12):
        numbers = list(range(20 * step, 20 * step + 20))
        whole = stream.__getitems__(numbers)
        halves = [stream.__getitems__(half) for half in (numbers[:10], numbers[10:])]
        for name in ("x0", "eps", "label", "u"):
            assert torch.equal(torch.cat([getattr(half, name) for half in halves]), getattr(whole, name))
        sizes.append(tuple(whole.x0.shape[2:]))
        where = as_conditions(whole.condition).coordinates
        assert (where is None) == (sizes[-1] == (8, 8))
        assert where is None or where.shape[2:] == sizes[-1]
    assert set(sizes) == {(8, 8), (4, 4), (2, 2)}
