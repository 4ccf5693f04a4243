"""How well edits work on images that the run never trained on: inversion there and back, enlarging against bicubic.

python benchmarks/editing.py round-trip digits
python benchmarks/editing.py enlarge digits --side 4
python benchmarks/editing.py colorize flowers
python benchmarks/editing.py super-resolution digits --factor 4
python benchmarks/editing.py super-resolution flowers102 --data-root data --size 32 --minutes 60
"""

from dataclasses import dataclass
from functools import cached_property, partial

import numpy as np
import PIL.Image
import torch
import tyro
from jaxtyping import UInt8
from torch import Tensor
from torch.nn.functional import interpolate

import undiffuse as ud
from undiffuse.data.batches import split_held_out
from undiffuse.data.low_resolution import small_size
from undiffuse.data.pixels import to_nchw, to_nhwc, to_pixels
from undiffuse.data.store import open_store
from undiffuse.diffusion.inverse_problems import Separable, area_downsampling, corrected, grayscale, posterior
from undiffuse.report.grids import to_pil
from undiffuse.sampling import editing
from undiffuse.sampling.edits import Evaluations, rms, signed
from undiffuse.sampling.model import Model, last, sample_steps, seeded_noise, steps_from
from undiffuse.sampling.options import noise_levels, sampling_config
from undiffuse.utils.conditions import NO_LABEL


def held_out(model: Model) -> tuple[UInt8[Tensor, "n c h w"], np.ndarray]:
    """The images that the run held out, and their labels."""
    store = open_store(model.config.data)
    _, indices = split_held_out(len(store), model.config.training.held_out_images)
    return to_nchw(store.read(indices)), store.labels[indices]


def round_trip(run: str = "digits", /, steps: tuple[int, ...] = (9, 18, 36, 72)) -> None:
    """The error of image, noise, image: root mean square and greatest, in levels of 255, without a label.

    Args:
        run: A run that held images out.
        steps: Of each way.
    """
    model = ud.load(run)
    pixels, _ = held_out(model)
    labels = [NO_LABEL] * len(pixels) if model.class_names else None
    for sampler in ("euler", "ipndm", "heun"):
        for count in steps:
            evaluations = Evaluations()
            counted = evaluations.of(model)
            sampling = sampling_config(model.config, sampler, count, precision="fp32", settings=["guidance=1"])
            noise = last(editing.invert_steps(counted, signed(pixels), sampling)).x
            sigmas, fresh = noise_levels(model.diffusion, sampling), seeded_noise(model, range(len(pixels)))
            back = to_pixels(last(steps_from(counted, noise, sigmas, labels, sampling, fresh)).x)
            error, nfe = back.double() - pixels, evaluations.count // len(pixels)
            print(f"{sampler}, {count} steps, NFE {nfe}: rms {rms(error):.2f}, greatest {float(error.abs().max()):.0f}")


@dataclass(frozen=True)
class Restoring:
    """Images that a run held out, and what was measured of them: whoever restores them is measured here."""

    pixels: UInt8[Tensor, "n c h w"]
    operator: Separable

    @cached_property
    def measured(self) -> UInt8[Tensor, "n d k l"]:
        return to_pixels(self.operator(signed(self.pixels)))

    def bicubic(self) -> Tensor:
        return interpolate(signed(self.measured), size=self.pixels.shape[2:], mode="bicubic")

    def report(self, name: str, restored: UInt8[Tensor, "n c h w"]) -> None:
        """Prints the distances to the images, and how far the measurements are met."""
        difference = signed(restored) - signed(self.pixels)
        psnr = (20 * torch.log10(2 / difference.square().mean(dim=(1, 2, 3)).sqrt())).mean()
        met = 127.5 * rms(self.operator(signed(restored)) - signed(self.measured))
        arrays = to_nhwc(self.pixels), to_nhwc(restored)
        distances = [
            ud.measure(real=arrays[0], fake=arrays[1], features=features, metrics=())[f"FD-{short}"].value
            for features, short in (("pixels", "pixels"), ("efficientnet-lite0", "EffNet"))
        ]
        print(
            f"{name}: MSE {difference.square().mean():.4f}, PSNR {psnr:.2f} dB, FD-pixels {distances[0]:.2f}, "
            f"FD-EffNet {distances[1]:.0f}, measurement met to {met:.2f} levels",
            flush=True,
        )

    def report_guided(
        self, model: Model, classes: np.ndarray, steps: int, clip: bool, samplers: tuple[str, ...]
    ) -> None:
        """Reports the model guided by the measurements, with each sampler, without and with labels."""
        y, std = signed(self.measured), model.diffusion.sigma_data
        wrap = partial(posterior, operator=self.operator, y=y, noise_std=editing.NOISE_STD, data_std=std)
        for sampler in samplers:
            sampling = sampling_config(
                model.config, sampler, steps, guidance=1.0, settings=[f"clip={str(clip).lower()}"]
            )
            for name, given in (("no label", None), ("its label", classes)):
                labels = [NO_LABEL] * len(y) if given is None else given.tolist()
                x = last(sample_steps(model, range(len(y)), labels, sampling, wrap)).x
                restored = corrected(x, self.operator, y, noise_std=editing.NOISE_STD)
                self.report(f"{sampler}, {name}", to_pixels(restored))


def enlarge(
    run: str = "digits",
    /,
    side: int = 4,
    steps: int = 18,
    clip: bool = True,
    samplers: tuple[str, ...] = ("euler", "euler_ancestral", "dpmpp_2m"),
) -> None:
    """Images made `side` pixels long and enlarged again, by bicubic and by the model; distances to the images.

    Args:
        run: A run that held images out.
        side: Height and width of the small images.
        steps: Of the sampler.
        clip: Clip each prediction, as `undiffuse edit` does.
        samplers: Each is measured.
    """
    model = ud.load(run)
    pixels, classes = held_out(model)
    restoring = Restoring(pixels, area_downsampling(model.shape, (side, side)))
    restoring.report("bicubic", to_pixels(restoring.bicubic()))
    restoring.report_guided(model, classes, steps, clip, samplers)


def colorize(
    run: str = "flowers",
    /,
    steps: int = 18,
    clip: bool = True,
    samplers: tuple[str, ...] = ("euler", "euler_ancestral", "dpmpp_2m"),
) -> None:
    """Images made gray and colored again by the model; distances to the images, also of the gray ones.

    Args:
        run: A run of color images that held images out.
        steps: Of the sampler.
        clip: Clip each prediction, as `undiffuse edit` does.
        samplers: Each is measured.
    """
    model = ud.load(run)
    pixels, classes = held_out(model)
    restoring = Restoring(pixels, grayscale(model.shape))
    restoring.report("gray", restoring.measured.expand_as(pixels))
    restoring.report_guided(model, classes, steps, clip, samplers)


def super_resolution(
    data: str = "digits",
    /,
    factor: int = 4,
    data_root: str | None = None,
    size: str | None = None,
    preset: str | None = None,
    from_run: str | None = None,
    images: str | None = None,
    minutes: float | None = None,
    unconditional: bool = False,
    seed: int = 0,
    out: str | None = None,
    set: tuple[str, ...] = (),
    samplers: tuple[str, ...] = ("ipndm", "euler_ancestral"),
    guidance: tuple[float, ...] = (1.0, 1.5),
    steps: int = 18,
    draws: int = 8,
) -> None:
    """Trains with `--condition low-res:FACTOR` and enlarges the held-out images; a run that is finished is measured.

    Args:
        data: Images to train on, as `undiffuse train --data` takes them; so are the options up to `set`.
        factor: By which images are enlarged.
        samplers: Each is measured,
        guidance: and each of these scales with it.
        steps: Of the samplers.
        draws: The mean of so many results for each image is measured too.
    """
    name = out or f"runs/{data}-low-res-{factor}{'-unconditional' if unconditional else ''}"
    run = ud.train(
        data,
        data_root=data_root,
        size=size,
        preset=preset,
        from_run=from_run,
        images=images,
        minutes=minutes,
        unconditional=unconditional,
        condition=f"low-res:{factor}",
        seed=seed,
        out=name,
        set=set,
        progress=True,
    )
    model = ud.load(run)
    pixels, classes = held_out(model)
    small = small_size((pixels.shape[2], pixels.shape[3]), factor)
    restoring = Restoring(pixels, area_downsampling(model.shape, small))
    labels = {"no label": "none", "its label": classes.tolist()} if model.class_names else {"no classes": None}
    by_pillow = np.stack([_reduced_by_pillow(image, small) for image in to_nhwc(pixels)])
    restoring.report("bicubic", to_pixels(restoring.bicubic()))
    for told, label in labels.items():
        sample = partial(model.sample, len(pixels), label=label, steps=steps)
        for sampler in samplers:
            for scale in guidance:
                made = sample(condition=restoring.measured, sampler=sampler, guidance=scale).to_torch()
                restoring.report(f"{sampler}, guidance {scale:g}, {told}", made)
        best = partial(sample, sampler=samplers[-1], guidance=guidance[-1])
        restoring.report(f"as the last, but reduced by Pillow's bicubic, {told}", best(condition=by_pillow).to_torch())
        made = [best(condition=restoring.measured, seed=len(pixels) * i).to_torch().double() for i in range(draws)]
        restoring.report(f"as the last, mean of {draws}, {told}", torch.stack(made).mean(dim=0).round().to(torch.uint8))


def _reduced_by_pillow(image: UInt8[np.ndarray, "h w c"], side: tuple[int, int]) -> UInt8[np.ndarray, "k l c"]:
    small = to_pil(to_nchw(image[None])[0]).resize(side[::-1], PIL.Image.Resampling.BICUBIC)
    return np.asarray(small).reshape(*side, image.shape[2])


if __name__ == "__main__":
    tyro.extras.subcommand_cli_from_dict(
        {"round-trip": round_trip, "enlarge": enlarge, "colorize": colorize, "super-resolution": super_resolution}
    )
