"""L_simple against L_hybrid: bits/dim of held-out digits (Nichol & Dhariwal 2021, Table 2).

python benchmarks/bits_per_dim.py --images 64k
"""

import tempfile
import time
from functools import partial
from pathlib import Path

import torch
import tyro
from PIL import Image
from sklearn.datasets import load_digits
from torch import Tensor

from undiffuse.commands import values
from undiffuse.config import Config, with_settings
from undiffuse.data.augmentation import AugmentationConfig, augmentation
from undiffuse.data.batches import ImageStream, batches
from undiffuse.data.store import DataConfig, Store, open_store
from undiffuse.diffusion import likelihood, noise, reverse
from undiffuse.diffusion.denoiser import Estimator, clipped, estimator
from undiffuse.presets import configure
from undiffuse.training.loop import train
from undiffuse.training.session import new_state
from undiffuse.utils.device import choose_device, compute_dtype, state_dtype
from undiffuse.utils.randomness import ImageRandomness
from undiffuse.utils.terminal import Meter
from undiffuse.utils.world import World

CHAIN = (
    *("diffusion.parametrization=eps", "diffusion.draw=discrete_uniform"),
    *("diffusion.schedule=cosine", "diffusion.num_timesteps=1000"),
)
VARIANCES = {"simple": (reverse.small, reverse.large), "hybrid": (reverse.small, reverse.large, reverse.learned)}
STRIDES = ("1000", "100", "25")


def main(images: str = "64k", held_out: int = 100, seed: int = 0) -> None:
    """Train on four fifths of the digits with each objective; the bound of `held_out` of the others by stride.

    Args:
        images: Images seen by each.
        held_out: Images whose bits are counted.
        seed: Of both models and of the noise.
    """
    with tempfile.TemporaryDirectory() as folder:
        write_digits(Path(folder))
        asked = DataConfig(data=folder, split="train", size=(16, 16))
        store, others = open_store(asked), open_store(DataConfig(data=folder, split="test", size=(16, 16)))
        pixels = torch.from_numpy(others.read(range(held_out))).permute(0, 3, 1, 2)
        x0 = augmentation(AugmentationConfig(), others.size)(pixels, seed, range(held_out))
        label = torch.from_numpy(others.labels[:held_out])
        for objective, variances in VARIANCES.items():
            config = configure("digits", store, asked, seed)
            config = with_settings(config, (*CHAIN, f"diffusion.objective={objective}"))
            began = time.monotonic()
            estimate = trained(config, store, values.count(images, "--images"))
            print(f"L_{objective}: {images} images in {time.monotonic() - began:.0f} s", flush=True)
            for variance in variances:
                print(
                    f"  {variance.__name__:8}" + "".join(bits(config, estimate, x0, label, seed, variance)), flush=True
                )


def write_digits(folder: Path) -> None:
    """Scikit-learn's digits as PNGs, every fifth one in test/."""
    digits = load_digits()
    for i, (image, digit) in enumerate(zip(digits.images, digits.target, strict=True)):
        path = folder / ("test" if i % 5 == 0 else "train") / str(digit) / f"{i}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray((image * 255 / 16).round().astype("uint8")).save(path)


def trained(config: Config, store: Store, total: int) -> Estimator:
    device = choose_device()
    state = new_state(config, device)
    stream = ImageStream(store, config.augmentation, config.training.label_dropout, config.seed)
    portions = batches(stream, 0, config.training.batch, 0, 1, 0, False)
    processes, dtype = World(0, 1, device), compute_dtype(device)
    with Meter("training", total) as meter:
        for report in train(state, config, portions, lambda: state.images / total, processes, dtype):
            meter.reach(min(state.images, total), f"loss {report.loss:.4f}")
            if state.images >= total:
                # Clipped, as Improved DDPM's own figures are.
                return clipped(estimator(state.average, config.diffusion.coefficients()))
    raise AssertionError("training has no end of its own")


@torch.no_grad()
def bits(
    config: Config, estimate: Estimator, x0: Tensor, label: Tensor, seed: int, variance: reverse.LogVariance
) -> list[str]:
    """Bits/dim over each stride, with the standard error over the images."""
    device = choose_device()
    chain = config.diffusion.chain().to(state_dtype(device))
    cells = []
    for stride in STRIDES:
        grid = noise.discrete_sigmas(noise.strided(len(chain), stride), chain).to(device)
        draws = partial(ImageRandomness("bits", seed, range(len(x0))).normal, *x0.shape[1:])
        with Meter(f"bound over {stride}", len(grid) - 1) as meter:

            def show(terms, meter=meter):
                for i, term in enumerate(terms, 1):
                    meter.reach(i, f"{i} levels")
                    yield term

            bound = likelihood.bound(
                estimate, x0.to(device), grid, label.to(device), noise=draws, variance=variance, watch=show
            )
        summary = bound.summary()
        cells.append(f"  {stride} levels {summary['bits_per_dim']:.3f} ± {summary['standard_error']:.3f}")
    return cells


if __name__ == "__main__":
    tyro.cli(main)
