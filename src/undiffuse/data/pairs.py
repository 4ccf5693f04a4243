"""Pairs of images: each image of a store, and the one of the same name in another folder or archive."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from os.path import splitext

import numpy as np
import torch
from jaxtyping import Bool, Float, Int, UInt8
from torch import Tensor

from undiffuse.data.image_condition import ImageConditionConfig, Indices
from undiffuse.data.paths import SUFFIXES, DataLike, data_name, printable, without_common
from undiffuse.data.store import DataConfig, Store, open_store
from undiffuse.utils.terminal import log
from undiffuse.utils.text import plural
from undiffuse.utils.world import World

NAMED = 3
"""Up to this many images without a partner are named."""


@dataclass(frozen=True)
class Pairs:
    """The partners of a store's images: an `ImageCondition`."""

    store: Store
    """The partners themselves, decoded at the images' size."""
    partner: Int[np.ndarray, " n"]
    """The index in `store` of each image's partner; -1 for none."""
    name: str
    """How config.json names the folder or archive."""

    @property
    def channels(self) -> int:
        return self.store.channels

    @property
    def config(self) -> ImageConditionConfig:
        return ImageConditionConfig(pairs=self.name, channels=self.channels, content=self.store.content)

    def read(self, indices: Indices) -> tuple[UInt8[np.ndarray, "b h w k"], Bool[np.ndarray, " b"]]:
        """The pixels of the partners of the images with these indices, black for none, and whether there is one."""
        partner = self.partner[np.asarray(indices)]
        found = partner >= 0
        pixels = np.zeros((len(partner), *self.store.size, self.channels), np.uint8)
        pixels[found] = self.store.read(partner[found])
        return pixels, found

    def beside(self, pixels: UInt8[np.ndarray, "b h w c"], indices: Indices) -> UInt8[np.ndarray, "b h w d"]:
        return np.concatenate([pixels, self.read(indices)[0]], axis=3)

    def told(
        self, x: Float[Tensor, "b d h w"], indices: Indices
    ) -> tuple[Float[Tensor, "b c h w"], Float[Tensor, "b k h w"]]:
        x0, image = x[:, : -self.channels], x[:, -self.channels :]
        found = torch.from_numpy(self.partner[np.asarray(indices)] >= 0)
        return x0, torch.where(found[:, None, None, None], image, torch.nan)

    def given(
        self, pixels: UInt8[np.ndarray, "b h w c"], indices: Indices
    ) -> tuple[UInt8[np.ndarray, "b h w k"], Bool[np.ndarray, " b"]]:
        return self.read(indices)


def open_pairs(
    images: Store,
    config: DataConfig,
    partners: DataLike,
    strict: bool = False,
    world: World | None = None,
) -> Pairs:
    """The partners of images, read as `config` reads those: gray, or in color without alpha.

    Names are compared without their suffixes, and without the leading folders that all share if otherwise none agree.
    Images of a sequence are paired by their numbers. Notices say which images have no partner, and how many partners
    belong to no image.

    Raises:
        FileNotFoundError, ValueError: see `open_source`; no image has a partner, an image has two or, with `strict`,
            one has none.
    """
    name = data_name(partners)
    wanted = DataConfig(name, config.data_root, "all", images.size, config.fit)
    store = open_store(wanted, strict, partners, world)
    if store.channels == 4:
        store = open_store(replace(wanted, channels=3), strict, partners, world)
    where = printable(name)
    partner = _matched(images.names, store.names, where)
    missing = [image for image, i in zip(images.names, partner, strict=True) if i < 0]
    if missing:
        names = ", ".join(missing[:NAMED]) + (", ..." if len(missing) > NAMED else "")
        have = f"{len(missing):,} of {plural(len(images), 'image')} have no partner in {where}"
        if len(missing) == len(images):
            first = ", ".join(store.names[:NAMED])
            raise ValueError(
                f"{have}: images are paired by name, without the suffix, but these are {names} and those {first}."
            )
        if strict:
            raise ValueError(f"{have} ({names}): add them, or leave --strict out.")
        log.warning(f"{have}, and train without one: {names}")
    unused = len(store) - len({*partner.tolist()} - {-1})
    if unused:
        belong = "belongs" if unused == 1 else "belong"
        log.info(f"{plural(unused, 'image')} in {where} {belong} to no training image.")
    return Pairs(store, partner, name)


def _matched(images: Sequence[str], partners: Sequence[str], where: str) -> Int[np.ndarray, " n"]:
    """The index of each image's partner, -1 for none."""
    found = _by_name(_stems(images), _stems(partners), where)
    if (found < 0).all():  # An archive is often of a folder, whose name stands before all others.
        found = _by_name(*(_stems(_without_common_folders(names)) for names in (images, partners)), where)
    return found


def _by_name(images: Sequence[str], partners: Sequence[str], where: str) -> Int[np.ndarray, " n"]:
    index = {name: i for i, name in enumerate(partners)}
    if len(index) < len(partners):
        twice = next(name for i, name in enumerate(partners) if index[name] != i)
        raise ValueError(f"{where} has two images named {twice}, with different suffixes: keep one of them.")
    return np.array([index.get(name, -1) for name in images], np.int64)


def _stems(names: Sequence[str]) -> list[str]:
    """The names without the suffixes of image files."""
    parts = [splitext(name) for name in names]  # noqa: PTH122  Five times as fast: there may be a million.
    return [stem if suffix.lower() in SUFFIXES else stem + suffix for stem, suffix in parts]


def _without_common_folders(names: Sequence[str]) -> list[str]:
    split = [tuple(name.split("/")) for name in names]
    shorter = without_common([parts[:-1] for parts in split])
    return ["/".join([*folders, parts[-1]]) for folders, parts in zip(shorter, split, strict=True)]
