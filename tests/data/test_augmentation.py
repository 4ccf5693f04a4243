import math
import sys

import numpy as np
import pytest
import torch
from torch import Tensor
from torchvision.transforms import v2

from undiffuse.data.augmentation import AugmentationConfig, augmentation, random_transforms
from undiffuse.data.pixels import to_signed_range

IMAGES = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (6, 3, 8, 12), np.uint8))


def augmented(config: AugmentationConfig, images: Tensor, numbers: list[int], seed: int = 0) -> Tensor:
    height, width = images.shape[-2:]
    return augmentation(config, (height, width))(images, seed, numbers)


@pytest.mark.parametrize("channels", [1, 3, 4])
def test_without_flip_or_crop_images_are_only_to_signed_range(channels: int) -> None:
    images = IMAGES[:, :1].expand(6, channels, 8, 12)
    assert torch.equal(augmented(AugmentationConfig(crop_scale=1.0), images, list(range(6))), to_signed_range(images))


def test_without_flip_or_crop_torchvision_is_not_even_imported(monkeypatch: pytest.MonkeyPatch) -> None:
    """It takes two seconds, at the start of every training."""
    monkeypatch.setitem(sys.modules, "torchvision.transforms", None)
    assert random_transforms(AugmentationConfig(), (8, 12)) == []
    with pytest.raises(ImportError):
        random_transforms(AugmentationConfig(flip=True), (8, 12))


def test_about_half_of_the_images_are_mirrored_exactly() -> None:
    n = 2000
    image = IMAGES[:1]
    straight = to_signed_range(image)
    results = augmented(AugmentationConfig(flip=True), image.expand(n, -1, -1, -1), list(range(n)))
    mirrored = (results == straight.flip(-1)).flatten(1).all(dim=1)
    assert torch.equal(~mirrored, (results == straight).flatten(1).all(dim=1))
    # The fraction of heads in n throws has standard deviation 0.5/sqrt(n): five of them.
    assert abs(mirrored.double().mean() - 0.5) < 5 * 0.5 / math.sqrt(n)


CROP = AugmentationConfig(crop_scale=0.25, crop_ratio=1.5)


def crop_sides(config: AugmentationConfig, size: tuple[int, int], n: int) -> Tensor:
    """Height and width of n crops as fractions of the image's, (n, 2), measured by the slopes of a ramp."""
    height, width = size
    rows, columns = torch.meshgrid(torch.linspace(0, 250, height), torch.linspace(0, 250, width), indexing="ij")
    ramp = torch.stack([rows, columns, rows]).round().to(torch.uint8)[None]
    results = augmentation(config, size)(ramp.expand(n, -1, -1, -1), 0, list(range(n))).mul(127.5)
    inner = results[..., 4:-4, 4:-4]  # Bicubic weights are one-sided at the border.
    slopes = torch.stack([inner[:, 0].diff(dim=1).mean(dim=(1, 2)), inner[:, 1].diff(dim=2).mean(dim=(1, 2))], dim=1)
    return slopes / torch.tensor([250 / (height - 1), 250 / (width - 1)])


@pytest.mark.parametrize("size", [(48, 48), (32, 64)])
def test_crops_have_the_requested_areas_and_aspect_ratios(size: tuple[int, int]) -> None:
    n = 200
    sides = crop_sides(CROP, size, n)
    area, aspect = sides.prod(dim=1), sides[:, 1] / sides[:, 0]
    # Levels are whole numbers and crops whole pixels: a side is known to about 1 in 32.
    assert 0.25 * 0.9 < area.min() < 0.35
    assert 0.8 < area.max() < 1.05
    assert 1 / 1.5 * 0.92 < aspect.min() < 0.85
    assert 1.15 < aspect.max() < 1.5 * 1.08


def test_crops_differ_in_shape_as_much_as_torchvision_s_do_by_default() -> None:
    (crop,) = random_transforms(AugmentationConfig(crop_scale=0.5), (8, 8))
    assert isinstance(crop, v2.RandomResizedCrop)
    assert crop.ratio == pytest.approx(v2.RandomResizedCrop(8).ratio)


def test_crops_keep_the_size_and_the_plain_colors() -> None:
    plain = torch.tensor([10, 200, 99], dtype=torch.uint8).reshape(1, 3, 1, 1).expand(4, 3, 24, 40)
    assert torch.equal(augmented(CROP, plain, list(range(4))), to_signed_range(plain))


BOTH = AugmentationConfig(flip=True, crop_scale=0.5)


def test_the_transform_does_not_depend_on_the_batch() -> None:
    together = augmented(BOTH, IMAGES, [10, 11, 12, 13, 14, 15])
    assert torch.equal(augmented(BOTH, IMAGES, [10, 11, 12, 13, 14, 15]), together)
    assert torch.equal(augmented(BOTH, IMAGES[[4, 1]], [14, 11]), together[[4, 1]])
    assert torch.equal(augmented(BOTH, IMAGES[3:4], [13]), together[3:4])


def test_the_transform_depends_on_the_number_and_the_seed() -> None:
    same = IMAGES[:1].expand(6, -1, -1, -1)
    by_number = augmented(BOTH, same, list(range(6)))
    by_seed = torch.cat([augmented(BOTH, same[:1], [0], seed) for seed in range(6)])
    for results in (by_number, by_seed):
        assert len({result.numpy().tobytes() for result in results}) == 6
    assert torch.equal(by_number[0], by_seed[0])


def test_the_global_generator_is_left_alone() -> None:
    before = torch.random.get_rng_state()
    augmented(BOTH, IMAGES, list(range(6)))
    assert torch.equal(torch.random.get_rng_state(), before)


def test_crops_are_resized_as_antialiased_bicubic() -> None:
    """All of the image, cropped to its own size and to a quarter of it: torchvision's bicubic, to the bit."""
    whole = AugmentationConfig(crop_scale=1 - 1e-9, crop_ratio=1.0)
    image = IMAGES[:1, :, :, :8]
    for size in ((8, 8), (4, 4), (12, 12)):
        (crop,) = random_transforms(whole, size)
        expected = v2.functional.resize(image, list(size), v2.InterpolationMode.BICUBIC, antialias=True)
        assert torch.equal(crop(image), expected)


@pytest.mark.parametrize("wrong", [{"crop_scale": 0.0}, {"crop_scale": 1.5}, {"crop_scale": -1.0}, {"crop_ratio": 0.5}])
def test_values_out_of_range_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong))):
        AugmentationConfig(**wrong)  # ty: ignore[invalid-argument-type]
