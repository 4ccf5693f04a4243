"""Stores whose images come with others that a network is told of."""

from dataclasses import replace

from undiffuse.data.low_resolution import LowResolution, small_size
from undiffuse.data.pairs import open_pairs
from undiffuse.data.paths import DataLike
from undiffuse.data.store import DataConfig, Store
from undiffuse.utils.parsing import parse_low_res
from undiffuse.utils.world import World


def conditioned(
    images: Store,
    condition: DataLike | None,
    config: DataConfig,
    strict: bool = False,
    world: World | None = None,
) -> Store:
    """The images with those that `condition` names: "low-res:4", or a folder, an archive or a sequence of partners.

    `config` says how the images are read, and so are their partners.

    Raises:
        FileNotFoundError, ValueError: see `open_pairs`; or the factor does not divide the images' size.
    """
    if condition is None:
        return images
    factor = parse_low_res(condition)
    if factor is None:
        return replace(images, image_condition=open_pairs(images, config, condition, strict, world))
    small_size(images.size, factor)
    return replace(images, image_condition=LowResolution(factor, images.channels))
