"""What super-resolution starts from: an image made smaller by a whole factor, and brought back to its size."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, UInt8
from torch import Tensor
from torch.nn.functional import interpolate

from undiffuse.data.image_condition import ImageConditionConfig, Indices
from undiffuse.data.pixels import to_nchw, to_nhwc, to_pixels, to_signed_range
from undiffuse.utils.resampling import areas
from undiffuse.utils.text import size_text

Size = tuple[int, int]
"""Height and width."""


def small_size(size: Size, factor: int) -> Size:
    """The size of an image that is made smaller by `factor`.

    Raises:
        ValueError: the factor does not divide both sides.
    """
    if any(side % factor for side in size):
        larger = size_text((-(-size[0] // factor) * factor, -(-size[1] // factor) * factor))
        raise ValueError(
            f"--condition low-res:{factor} does not divide {size_text(size)}: give --size {larger}, or another factor."
        )
    return size[0] // factor, size[1] // factor


def reduced(x0: Float[Tensor, "b c h w"], factor: int) -> UInt8[Tensor, "b c k l"]:
    """Each block of factor x factor pixels becomes its mean, rounded to 256 levels as in a file.

    It is the operator of `undiffuse edit RUN enlarge`.
    """
    small = small_size((x0.shape[2], x0.shape[3]), factor)
    # In float64, so that no order of summation rounds half a level another way.
    rows, columns = (areas(*sides) for sides in zip(small, x0.shape[2:], strict=True))
    return to_pixels(rows @ x0.double() @ columns.T)


def enlarged(small: UInt8[Tensor, "b c k l"], size: Size) -> Float[Tensor, "b c h w"]:
    """Small images in [-1, 1] at `size`, bicubic: what a network is told of them."""
    x = to_signed_range(small)
    return interpolate(x, size=list(size), mode="bicubic", align_corners=False)


def low_resolution(x0: Float[Tensor, "b c h w"], factor: int) -> Float[Tensor, "b c h w"]:
    """What is left of images when they are made smaller by `factor`, at their size."""
    return enlarged(reduced(x0, factor), (x0.shape[2], x0.shape[3]))


@dataclass(frozen=True)
class LowResolution:
    """An `ImageCondition`: the image itself, made smaller."""

    factor: int
    channels: int

    @property
    def config(self) -> ImageConditionConfig:
        return ImageConditionConfig(low_res=self.factor, channels=self.channels)

    def beside(self, pixels: UInt8[np.ndarray, "b h w c"], indices: Indices) -> UInt8[np.ndarray, "b h w c"]:
        return pixels

    def told(
        self, x: Float[Tensor, "b c h w"], indices: Indices
    ) -> tuple[Float[Tensor, "b c h w"], Float[Tensor, "b c h w"]]:
        return x, low_resolution(x, self.factor)

    def given(
        self, pixels: UInt8[np.ndarray, "b h w c"], indices: Indices
    ) -> tuple[UInt8[np.ndarray, "b k l c"], Bool[np.ndarray, " b"]]:
        x0 = to_signed_range(to_nchw(pixels))
        return to_nhwc(reduced(x0, self.factor)), np.ones(len(pixels), bool)
