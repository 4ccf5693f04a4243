import pytest
import torch
from torchvision.transforms import v2

from undiffuse.data.pixels import to_pixels, to_signed_range


@pytest.mark.parametrize("channels", [1, 3, 4])
def test_all_levels_survive_the_unit_range(channels: int) -> None:
    levels = torch.arange(256, dtype=torch.uint8).reshape(1, 1, 16, 16).expand(2, channels, 16, 16)
    x = to_signed_range(levels)
    assert x.dtype == torch.float32
    assert x.min() == -1
    assert x.max() == 1
    # Two roundings to float32, of numbers up to 1.
    assert torch.allclose(x.double(), levels.double() / 127.5 - 1, rtol=0, atol=2**-22)
    assert torch.equal(to_pixels(x), levels)


def test_pixels_become_the_floats_of_torchvision() -> None:
    levels = torch.arange(256, dtype=torch.uint8).reshape(1, 1, 16, 16)
    torchvisions = v2.Compose([v2.ToDtype(torch.float32, scale=True), v2.Normalize(mean=[0.5], std=[0.5])])
    assert torch.equal(to_signed_range(levels), torchvisions(levels))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_pixels_are_rounded_to_the_nearest_level_and_clipped(dtype: torch.dtype) -> None:
    half = 1 / 255  # Half a level.
    middle = 100 / 127.5 - 1
    x = torch.tensor(
        [middle - 0.9 * half, middle + 0.9 * half, middle + 1.1 * half, -1.5, 1.01, 1e30, -1e30], dtype=dtype
    )
    assert to_pixels(x.reshape(1, 1, -1))[0, 0].tolist() == [100, 100, 101, 0, 255, 255, 0]


def test_pixels_need_no_batch_and_carry_no_gradient() -> None:
    x = torch.zeros(3, 2, 2, requires_grad=True)
    assert torch.equal(to_pixels(x), torch.full((3, 2, 2), 128, dtype=torch.uint8))  # 127.5 goes to the even level.
    assert torch.equal(x, torch.zeros(3, 2, 2))
