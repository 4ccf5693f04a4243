import pytest
import torch
from helpers.tensors import normal
from torch.nn.functional import interpolate

from undiffuse.data.low_resolution import enlarged, low_resolution, reduced, small_size
from undiffuse.data.pixels import to_pixels
from undiffuse.diffusion.inverse_problems import area_downsampling


def images(count: int, *shape: int) -> torch.Tensor:
    return normal(count, *shape).clamp(-1, 1).float()


@pytest.mark.parametrize("factor", [2, 3, 4])
def test_an_image_is_reduced_as_enlarge_measures_it(factor: int) -> None:
    x0 = images(5, 3, 12, 24)
    operator = area_downsampling((3, 12, 24), small_size((12, 24), factor))
    assert torch.equal(reduced(x0, factor), to_pixels(operator(x0.double())))


def test_an_image_depends_on_no_other_of_its_batch() -> None:
    x0 = images(33, 3, 16, 16)
    one_by_one = torch.cat([low_resolution(x[None], 4) for x in x0])
    assert torch.equal(low_resolution(x0, 4), one_by_one)


def test_a_constant_image_stays_what_it_is_and_detail_goes() -> None:
    levels = torch.arange(256).view(256, 1, 1, 1).expand(-1, 1, 8, 8) / 127.5 - 1
    torch.testing.assert_close(low_resolution(levels, 4), levels, rtol=0, atol=1e-6)
    checkered = (torch.arange(8)[:, None] + torch.arange(8)) % 2 * 2.0 - 1
    assert low_resolution(checkered[None, None], 2).abs().max() < 0.01


def test_small_images_are_enlarged_by_bicubic() -> None:
    small = reduced(images(2, 1, 16, 16), 4)
    expected = interpolate(small / 127.5 - 1, size=(16, 16), mode="bicubic")
    torch.testing.assert_close(enlarged(small, (16, 16)), expected)


def test_a_factor_must_divide_the_size() -> None:
    assert small_size((32, 48), 4) == (8, 12)
    with pytest.raises(ValueError, match="low-res:5 does not divide 32x48: give --size 35x50, or another factor"):
        small_size((32, 48), 5)
