"""L_simple against L_hybrid: bits/dim of held-out digits (Nichol & Dhariwal 2021, Table 2).

python benchmarks/bits_per_dim.py --images 64k
"""

import tempfile
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import torch
import tyro
from PIL import Image
from sklearn.datasets import load_digits
from torch import Tensor

import undiffuse
from undiffuse.data.pixels import to_nchw, to_signed_range
from undiffuse.data.store import DataConfig, open_store
from undiffuse.diffusion import likelihood, noise, reverse
from undiffuse.diffusion.denoiser import clipped
from undiffuse.utils.device import state_dtype
from undiffuse.utils.randomness import ImageRandomness
from undiffuse.utils.terminal import speaking, track

SIZE = (16, 16)
SETTINGS = {
    "diffusion.parametrization": "eps",
    "diffusion.sigma_sampler": "discrete_uniform",
    "diffusion.schedule": "cosine",
    "diffusion.num_timesteps": 1000,
}
VARIANCES = {"simple": (reverse.small, reverse.large), "hybrid": (reverse.small, reverse.large, reverse.learned)}
STRIDES = ("1000", "100", "25")


def main(images: str = "64k", held_out: int = 100, seed: int = 0) -> None:
    """Trains on four fifths of the digits with each objective, and prints the VLB of `held_out` others by stride.

    Args:
        images: Training budget of each, in images seen.
        held_out: Images whose bits are computed.
        seed: Of both models and of the noise.
    """
    with tempfile.TemporaryDirectory() as temporary, speaking():
        folder = Path(temporary)
        write_digits(folder / "digits")
        x0, label = held_out_images(folder / "digits", held_out)
        for objective, variances in VARIANCES.items():
            began = time.monotonic()
            run = undiffuse.train(
                folder / "digits",
                split="train",
                size=SIZE,
                preset="digits",
                images=images,
                seed=seed,
                precision="fp32",
                out=folder / objective,
                set={**SETTINGS, "diffusion.objective": objective},
            )
            print(f"L_{objective}: {images} images in {time.monotonic() - began:.0f} s", flush=True)
            model = undiffuse.load(run)
            for variance in variances:
                print(f"  {variance.__name__:8}" + "".join(bits(model, x0, label, seed, variance)), flush=True)


def write_digits(folder: Path) -> None:
    """Scikit-learn's digits as PNGs, every fifth one in test/."""
    digits = load_digits()
    for i, (image, digit) in enumerate(zip(digits.images, digits.target, strict=True)):
        path = folder / ("test" if i % 5 == 0 else "train") / str(digit) / f"{i}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray((image * 255 / 16).round().astype("uint8")).save(path)


def held_out_images(folder: Path, count: int) -> tuple[Tensor, Tensor]:
    """x0 in [-1, 1] and labels."""
    store = open_store(DataConfig(data=str(folder), split="test", size=SIZE))
    pixels = to_nchw(store.read(range(count)))
    return to_signed_range(pixels), torch.from_numpy(store.labels[:count])


@torch.no_grad()
def bits(model: undiffuse.Model, x0: Tensor, label: Tensor, seed: int, variance: reverse.LogVariance) -> Iterator[str]:
    """Bits/dim over each stride, with the standard error over the images."""
    schedule = model.diffusion.discrete_schedule().to(state_dtype(model.device))
    for stride in STRIDES:
        sigmas = noise.discrete_sigmas(noise.strided(len(schedule), stride), schedule).to(model.device)
        vlb = likelihood.vlb(
            clipped(model.predict),  # As Improved DDPM reports it.
            x0.to(model.device),
            sigmas,
            label.to(model.device),
            noise=partial(ImageRandomness("bits", seed, range(len(x0))).normal, *x0.shape[1:]),
            variance=variance,
            watch=partial(track, what="VLB", total=len(sigmas) - 1),
        )
        summary = vlb.summary()
        yield f"  {stride} levels {summary['bits_per_dim']:.3f} ± {summary['standard_error']:.3f}"


if __name__ == "__main__":
    tyro.cli(main)
