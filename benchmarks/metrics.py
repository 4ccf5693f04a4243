"""Do distances see what people see? Real images must be much closer to real ones than damaged ones are.

python benchmarks/metrics.py --data path/to/cifar10 --features efficientnet-lite0
"""

import io
import os
import tempfile
from dataclasses import replace
from functools import partial

import numpy as np
import tyro
from PIL import Image, ImageFilter

from undiffuse.features.cache import features_of
from undiffuse.features.image_sets import DataSpec, ImageSet, open_set, subset
from undiffuse.features.networks import load_features
from undiffuse.features.table import FeaturesName
from undiffuse.metrics.frechet import frechet_distance, gaussian
from undiffuse.metrics.kernel import kernel_distance
from undiffuse.utils.terminal import speaking
from undiffuse.utils.world import World

Damage = partial[Image.Image]


def blurred(image: Image.Image, index: int, radius: float) -> Image.Image:
    return image.filter(ImageFilter.GaussianBlur(radius))


def shifted(image: Image.Image, index: int, pixels: int) -> Image.Image:
    return Image.fromarray(np.roll(np.asarray(image), (pixels, pixels), axis=(0, 1)))


def noisy(image: Image.Image, index: int, sd: float) -> Image.Image:
    noise = np.random.default_rng(index).normal(0, sd, (*image.size[::-1], 3))
    return Image.fromarray((np.asarray(image) + noise).round().clip(0, 255).astype(np.uint8))


def compressed(image: Image.Image, index: int, quality: int) -> Image.Image:
    file = io.BytesIO()
    image.save(file, "JPEG", quality=quality)
    return Image.open(file)


LADDERS: dict[str, list[Damage]] = {
    "blur, radius 0.5, 1, 2": [partial(blurred, radius=r) for r in (0.5, 1, 2)],
    "noise, sd 5, 15, 45": [partial(noisy, sd=sd) for sd in (5, 15, 45)],
    "cyclic shift by 2, 4, 8 pixels": [partial(shifted, pixels=pixels) for pixels in (2, 4, 8)],
    "JPEG, quality 60, 25, 8": [partial(compressed, quality=q) for q in (60, 25, 8)],
}


def main(
    data: str,
    features: FeaturesName = "efficientnet-lite0",
    count: int = 10_000,
    ladder: int = 500,
    batch: int = 16,
) -> None:
    """Distances from `count` training images to test images, intact and damaged.

    Args:
        data: A folder with train/ and test/.
        features: The feature network.
        count: Number of training images, and of test images in the first three comparisons.
        ladder: Number of test images in the other comparisons.
        batch: Images at once.
    """
    world = World.alone()
    network = load_features(features, None, world.device)
    train, test = (subset(open_set(DataSpec(data, split=split)), count, 0) for split in ("train", "test"))
    real = features_of(network, train, batch, world).features
    fitted = gaussian(real)

    def measure(name: str, images: ImageSet) -> None:
        rows = features_of(network, images, batch, world).features
        kernel = kernel_distance(real, rows)
        assert kernel is not None, "there are images"
        distance = frechet_distance(fitted, gaussian(rows))
        distances = f"{network.distance} {distance:9.3f}  {network.kernel} {kernel.mean:.5f}"
        print(f"{name:<40} {len(rows):>6,}  {distances}", flush=True)

    measure("test", test)
    measure("test, blurred with radius 1", damaged(test, partial(blurred, radius=1)))
    measure("test, cyclically shifted by 4 pixels", damaged(test, partial(shifted, pixels=4)))
    few = subset(test, ladder, 1)
    measure("test, few", few)
    for name, damages in LADDERS.items():
        for i, damage in enumerate(damages, 1):
            measure(f"{name}: {i}", damaged(few, damage))


def damaged(images: ImageSet, damage: Damage) -> ImageSet:
    def read(indices) -> np.ndarray:
        pairs = zip(images.read(indices), indices, strict=True)
        return np.stack([np.asarray(damage(Image.fromarray(pixels), int(i))) for pixels, i in pairs])

    name = getattr(damage.func, "__name__", "")
    return replace(images, content=f"{images.content} {name} {damage.keywords}", read=read)


if __name__ == "__main__":
    # An empty cache: features from before a change to this file must not be found.
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as cache:
        os.environ["UNDIFFUSE_CACHE"] = cache
        with speaking():
            tyro.cli(main)
