"""What every network has: a config that builds it."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Annotated

from pydantic import Field, ValidationError
from pydantic.dataclasses import dataclass
from torch import Tensor, nn

from undiffuse.networks.classes import ClassChange
from undiffuse.networks.conditions import NONE_KEPT, KeptColumns
from undiffuse.utils.conditions import NO_MORE, ConditionSizes
from undiffuse.utils.validation import STRICT, sentence


@dataclass(frozen=True, config=STRICT)
class NetworkConfig:
    """The config of a network `F(x, c_noise, label)`: subclass it to train a network of your own.

    The three fields follow from the images; add your own below them, each with a default that JSON can hold. The
    network that `build` returns is called with

    - x: noisy images scaled to unit variance, `(b, image_channels, height, width)`;
    - c_noise: the noise level as the parametrization states it, `(b,)`;
    - label: `(b,)` integers from 0 to classes - 1, and -1 for no label; None for no labels at all; or, where the
      network is built for more conditions, `undiffuse.utils.conditions.Conditions`

    and returns `(b, image_channels, height, width)`, or twice the channels if it is built with `learned_variance`. It
    may have two methods that `undiffuse.networks.unet.UNet` shows: `edge_parameters()`, without which AdamW trains all
    of it, and `blocks()`, which `training.activation_checkpointing` needs.

    Example:
        @pydantic.dataclasses.dataclass(frozen=True)
        class MLPConfig(NetworkConfig):
            width: int = 256

            def build(self, learned_variance: bool = False) -> nn.Module:
                return MLP(self)
    """

    size: tuple[int, int] = (32, 32)
    """Height and width of the images, in pixels."""
    image_channels: Annotated[int, Field(ge=1)] = 3
    """1 for grayscale, 3 for RGB, 4 for RGBA."""
    classes: Annotated[int, Field(ge=0)] = 0
    """Number of labels the network knows; 0 trains without labels."""

    def resized(self, size: tuple[int, int]) -> "NetworkConfig":
        """The config of a network with the same weights for images of another size.

        Raises:
            ValueError: the network cannot take that size.
        """
        try:
            return replace(self, size=size)
        except ValidationError as error:
            raise ValueError(sentence(error)) from error

    def adapted(
        self,
        weights: Mapping[str, Tensor],
        classes: ClassChange,
        sizes: ConditionSizes = NO_MORE,
        kept: KeptColumns = NONE_KEPT,
    ) -> dict[str, Tensor]:
        """The weights of a network that differs from this one's in its conditions alone, fitted to this one's.

        For a class that both have, and for no label, the network should predict what it did; and so for the columns
        that are `kept`, with all others missing.

        Raises:
            ValueError: the subclass does not say how, and the classes or their order differ.
        """
        if classes.before == classes.after:
            return dict(weights)
        raise ValueError(
            f"{type(self).__name__} does not say how its weights change with the classes: give images with the same "
            "classes, or add a method adapted(weights, classes, sizes, kept), as undiffuse.networks.unet.UNetConfig "
            "has."
        )

    def build(self, learned_variance: bool = False) -> nn.Module:
        """The network, untrained.

        With `learned_variance` it has twice the channels out: F, then what the variance is interpolated by.

        Raises:
            NotImplementedError: the subclass does not say how.
            ValueError: the network cannot learn a variance.
        """
        raise NotImplementedError(f"{type(self).__name__} needs a method build(self, learned_variance=False).")

    def build_for(self, sizes: ConditionSizes, learned_variance: bool = False) -> nn.Module:
        """The network, untrained, that takes conditions of these sizes besides the label; a subclass may know some.

        Raises:
            ValueError: it cannot be told of them.
        """
        if sizes != NO_MORE:
            if sizes.augmentation:
                what = "how an image was augmented: set augmentation.nonleaky to 0"
            elif sizes.coordinates:
                what = "where patches are: set augmentation.patches to 0"
            else:
                what = "more than the label: leave out --condition"
            raise ValueError(f"{type(self).__name__} cannot be told {what}.")
        return self.build(learned_variance)
