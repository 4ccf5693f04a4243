"""Another image that a network is told of beside each noisy one: what it is, and what every kind of it can do."""

from collections.abc import Sequence
from typing import Annotated, Any, Protocol, runtime_checkable

import numpy as np
import pydantic
from jaxtyping import Bool, Float, UInt8
from pydantic import Field
from torch import Tensor

from undiffuse.utils.validation import STRICT

Indices = Sequence[int] | np.ndarray
"""Of images in a store."""


@pydantic.dataclasses.dataclass(frozen=True, config=STRICT)
class ImageConditionConfig:
    """What the other image is: either the image itself in low resolution, or its partner in another folder."""

    low_res: Annotated[int, Field(ge=2)] | None = None
    """The factor by which the image is made smaller, and then enlarged again: super-resolution."""
    pairs: str | None = None
    """A folder or archive with an image of the same name for each."""
    channels: Annotated[int, Field(ge=1)] = 3
    """Of the other image."""
    content: str = ""
    """A digest of the images in `pairs`."""

    @property
    def factor(self) -> int:
        """By which the other image is smaller when it is given; 1 for a partner."""
        return self.low_res or 1

    @property
    def kind(self) -> str:
        """A network that knows the one knows nothing of the other."""
        return "low-res" if self.low_res else "pairs"

    def __str__(self) -> str:
        """As `--condition` takes it."""
        return f"low-res:{self.low_res}" if self.low_res else str(self.pairs)


@runtime_checkable
class ImageCondition(Protocol):
    """The other images of a store."""

    @property
    def config(self) -> ImageConditionConfig: ...

    def beside(self, pixels: UInt8[np.ndarray, "b h w c"], indices: Indices) -> UInt8[np.ndarray, "b h w d"]:
        """The images with these indices, with channels of whatever must be augmented as they are behind their own."""
        ...

    def told(self, x: Float[Tensor, "b d h w"], indices: Indices) -> tuple[Any, Any]:
        """From those, augmented and in [-1, 1], the images and the other images; NaN for one that is missing."""
        ...

    def given(
        self, pixels: UInt8[np.ndarray, "b h w c"], indices: Indices
    ) -> tuple[UInt8[np.ndarray, "b k l i"], Bool[np.ndarray, " b"]]:
        """The other images of the images with these indices, as a user would give them; and which of them there are."""
        ...
