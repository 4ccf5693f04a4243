"""Whether a distance sees what people see: real against real far below real against damaged, and worse with damage.

python benchmarks/metrics.py --data path/to/cifar10 --features efficientnet-lite0
"""

import io
import os
import tempfile
from dataclasses import replace
from functools import partial
from typing import Literal

import numpy as np
import tyro
from PIL import Image, ImageFilter

from undiffuse.commands.evaluate import weights_file
from undiffuse.evaluation.evaluate import load_net
from undiffuse.features.cache import Share, features_of
from undiffuse.features.image_sets import Asked, ImageSet, chosen, open_set
from undiffuse.metrics.frechet import frechet_distance, gaussian
from undiffuse.metrics.scores import kernel_distance
from undiffuse.utils.device import choose_device

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
    "shift round by 2, 4, 8 pixels": [partial(shifted, pixels=pixels) for pixels in (2, 4, 8)],
    "JPEG, quality 60, 25, 8": [partial(compressed, quality=q) for q in (60, 25, 8)],
}


def main(
    data: str,
    features: Literal["inception", "efficientnet-lite0", "pixels"] = "efficientnet-lite0",
    count: int = 10_000,
    ladder: int = 500,
    batch: int = 16,
) -> None:
    """Distances of test images, as they are and damaged, from `count` training images.

    Args:
        data: A folder with train/ and test/.
        features: The feature network.
        count: Training images, and test images of the first three comparisons.
        ladder: Test images of each damage in the ladders.
        batch: Images at once.
    """
    net = load_net(features, weights_file(features, None), False, choose_device())
    train, test = (chosen(open_set(Asked(data, split=part), False, print), count, 0) for part in ("train", "test"))
    real = features_of(net, train, batch, Share()).features
    fitted = gaussian(real)

    def tell(what: str, images: ImageSet) -> None:
        rows = features_of(net, images, batch, Share()).features
        kernel = kernel_distance(real, rows)
        assert kernel is not None, "there are images"
        distance = frechet_distance(fitted, gaussian(rows))
        print(f"{what:<40} {len(rows):>6,}  {net.distance} {distance:9.3f}  {net.kernel} {kernel.mean:.5f}", flush=True)

    tell("test", test)
    tell("test, blurred with radius 1", damaged(test, partial(blurred, radius=1)))
    tell("test, shifted round by 4 pixels", damaged(test, partial(shifted, pixels=4)))
    few = chosen(test, ladder, 1)
    tell("test, few", few)
    for name, damages in LADDERS.items():
        for i, damage in enumerate(damages, 1):
            tell(f"{name}: {i}", damaged(few, damage))


def damaged(images: ImageSet, damage: Damage) -> ImageSet:
    def read(indices) -> np.ndarray:
        read = zip(images.read(indices), indices, strict=True)
        return np.stack([np.asarray(damage(Image.fromarray(pixels), int(i))) for pixels, i in read])

    name = getattr(damage.func, "__name__", "")
    return replace(images, content=f"{images.content} {name} {damage.keywords}", read=read)


if __name__ == "__main__":
    # Features of an earlier run, before this file changed, must not be found again.
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as cache:
        os.environ["UNDIFFUSE_CACHE"] = cache
        tyro.cli(main)
