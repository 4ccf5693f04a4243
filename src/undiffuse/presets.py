"""Presets: named recipes. Each states its source, its command, and the result where we ran it."""

from collections.abc import Callable
from dataclasses import fields, replace
from typing import Any

from pydantic import ValidationError
from pydantic.dataclasses import dataclass

from undiffuse.config import Config, OptimizerConfig, Recipe, SamplingConfig, TrainingConfig
from undiffuse.data.augmentation import AugmentationConfig
from undiffuse.data.store import DataConfig, Store
from undiffuse.diffusion.recipe import DiffusionConfig
from undiffuse.networks.network import NetworkConfig
from undiffuse.networks.unet import UNetConfig
from undiffuse.utils.names import PRESETS
from undiffuse.utils.validation import STRICT, sentence


@dataclass(frozen=True, config=STRICT)
class Preset(Recipe):
    """A recipe and the images that it is meant for."""

    size: tuple[int, int] | None = None
    """The size to resize images to. None keeps their own if they share one up to 64x64, and takes 64x64 otherwise."""
    conditional: bool = True
    """Train with the class of each image, where images have one."""


def digits() -> Preset:
    """Handwritten digits, 16x16, by class, in minutes on a laptop.

    `undiffuse quickstart` on two AVX2 cores, fp32, seed 0: 32,000 images in 2 min 44 s, evaluation included. A support
    vector machine that is right on 99.1% of held-out real digits reads the requested digit in 99.0% of 500 samples.
    """
    return Preset(
        size=(16, 16),
        network=UNetConfig(
            channels=48,
            multipliers=(1, 2),
            blocks=1,
            attention_resolutions=(4,),
            groups=16,
            dropout=0.0,
            scale_shift_norm=True,
            patch=2,
        ),
        diffusion=DiffusionConfig(sigma_data=0.7),
        optimizer=OptimizerConfig(learning_rate=4e-3),
        training=TrainingConfig(total_images=32_000, total_minutes=None, ema_halflife_images=50_000, log_batches=1),
        sampling=SamplingConfig(guidance=1.5),
    )


def small() -> Preset:
    """Your own color images without a GPU: a slim U-Net, EDM's preconditioning, Muon, horizontal flips.

    Chosen by the loss (its mean over the last eighth of the log) of `undiffuse train --data path/to/cifar10 --minutes
    2.2 --set network...` on two AVX2 cores, fp32, seed 0: this shape 0.293; 48 channels, multipliers (1, 2, 2) 0.439;
    64 channels, multipliers (1, 2, 2), two blocks and 2x2 patches 0.524. docs/training.md shows samples.
    """
    return Preset(
        network=UNetConfig(
            channels=32,
            multipliers=(1, 2, 2, 2),
            blocks=1,
            attention_resolutions=(8,),
            heads=2,
            groups=16,
            dropout=0.0,
            scale_shift_norm=True,
        ),
        augmentation=AugmentationConfig(flip=True),
        optimizer=OptimizerConfig(learning_rate=3e-3, warmup_images=2000),
        training=TrainingConfig(batch=32, ema_halflife_images=100_000),
    )


def flowers64() -> Preset:
    """Oxford Flowers-102 at 64x64 by class: Improved DDPM's U-Net with EDM's preconditioning, for one GPU.

    `undiffuse train --data flowers102 --preset flowers64`. We have not run it, and there is no published result to
    compare it with.
    """
    return Preset(
        size=(64, 64),
        network=UNetConfig(
            channels=128,
            multipliers=(1, 2, 2, 2),
            blocks=2,
            attention_resolutions=(16, 8),
            head_channels=64,
            dropout=0.1,
            scale_shift_norm=True,
        ),
        augmentation=AugmentationConfig(flip=True, crop_scale=0.8),
        optimizer=OptimizerConfig(learning_rate=2e-3, warmup_images=50_000),
        training=TrainingConfig(total_images=10_000_000, total_minutes=None, batch=128, log_batches=50),
        sampling=SamplingConfig(sampler="heun", steps=18, guidance=1.5),
    )


def cifar10_ddpm() -> Preset:
    """Ho et al. 2020 on CIFAR-10: 35.7 M parameters, T = 1000 linear, eps, 800,000 iterations of 128.

    The paper's FID of 50,000 samples against the training set: 3.17. We have not run it: it takes days on a GPU.
    """
    return Preset(
        size=(32, 32),
        conditional=False,
        # As in their TensorFlow code: padding, epsilon and frequencies.
        network=UNetConfig(norm_eps=1e-6, frequency_shift=1, asymmetric_downsampling=True),
        diffusion=DiffusionConfig(parametrization="eps", sigma_sampler="discrete_uniform", schedule="linear"),
        augmentation=AugmentationConfig(flip=True),
        optimizer=OptimizerConfig(
            muon=False, learning_rate=2e-4, betas=(0.9, 0.999), warmup_images=640_000, decay_fraction=0.0
        ),
        training=_cifar10_training(iterations=800_000),
        sampling=SamplingConfig(sampler="ancestral", steps=1000, variance="large", clip=True),
    )


def cifar10_iddpm() -> Preset:
    """Nichol & Dhariwal 2021 on CIFAR-10: T = 4000 cosine, L_hybrid, learned variance, 500,000 iterations of 128.

    52.5 M parameters. The paper, Table 2: with 4,000 steps, FID of 50,000 samples 3.19 and 3.17 bits/dim; with 100
    steps, FID 4.63. We have not run it: it takes days on a GPU.
    """
    return Preset(
        size=(32, 32),
        conditional=False,
        network=UNetConfig(
            blocks=3,
            attention_resolutions=(16, 8),
            heads=4,
            dropout=0.3,
            scale_shift_norm=True,
            time_scale=0.25,  # Their network gets t 1000 / T.
        ),
        diffusion=DiffusionConfig(
            parametrization="eps",
            objective="hybrid",
            sigma_sampler="discrete_uniform",
            schedule="cosine",
            num_timesteps=4000,
        ),
        optimizer=OptimizerConfig(
            muon=False,
            learning_rate=1e-4,
            betas=(0.9, 0.999),
            warmup_images=0,
            decay_fraction=0.0,
            max_gradient_norm=0.0,
        ),
        training=_cifar10_training(iterations=500_000),
        sampling=SamplingConfig(sampler="ancestral", steps=4000, variance="learned", clip=True),
    )


def cifar10_iddpm_vlb() -> Preset:
    """`cifar10-iddpm` for likelihood: L_vlb only, with the loss-second-moment resampler.

    The paper, Table 2: FID 11.47 and 2.94 bits/dim. We have not run it: it takes days on a GPU.
    """
    recipe = cifar10_iddpm()
    return replace(recipe, diffusion=replace(recipe.diffusion, objective="vlb", sigma_sampler="loss_second_moment"))


def cifar10_edm() -> Preset:
    """Karras et al. 2022 on CIFAR-10 by class: DDPM++ with 55.7 M parameters, EDM's preconditioning, 200 M images.

    The paper, Table 2: FID of 50,000 samples 1.79 at NFE 35 (1.97 without classes). We have not run it:
    it takes days on several GPUs. Of its augmentation this has the horizontal flips only.
    """
    return Preset(
        size=(32, 32),
        network=UNetConfig(
            multipliers=(2, 2, 2),
            blocks=4,
            attention_resolutions=(16,),
            dropout=0.13,
            norm_eps=1e-6,
            frequency_shift=1,
            resampling="residual",
            skip_scale=0.5**0.5,
            sparse_up_attention=True,
            input_multiplier=1,
        ),
        diffusion=DiffusionConfig(parametrization="edm", sigma_sampler="log_normal", sigma_mean=-1.2, sigma_std=1.2),
        augmentation=AugmentationConfig(flip=True),
        optimizer=OptimizerConfig(
            muon=False,
            learning_rate=1e-3,
            betas=(0.9, 0.999),
            warmup_images=10_000_000,
            decay_fraction=0.0,
            max_gradient_norm=0.0,
        ),
        training=TrainingConfig(
            total_images=200_000_000,
            total_minutes=None,
            batch=512,
            ema_halflife_images=500_000,
            label_dropout=0.0,
            log_batches=100,
        ),
        sampling=SamplingConfig(sampler="heun", steps=18),
    )


def cifar10_flow() -> Preset:
    """Flow matching (Lipman et al. 2023) on CIFAR-10 with EDM's noise levels, as in the authors' library.

    55.7 M parameters. They publish an FID of 2.07 with 50 steps of Heun's method, without classes, after 1,800 of 3,000
    epochs. We have not run it: it takes days on several GPUs.
    """
    return Preset(
        size=(32, 32),
        conditional=False,
        network=UNetConfig(
            multipliers=(2, 2, 2),
            blocks=4,
            attention_resolutions=(16,),
            dropout=0.3,
            scale_shift_norm=True,
            resampling="none",
        ),
        diffusion=DiffusionConfig(parametrization="flow", sigma_sampler="logit_normal", sigma_mean=-1.2, sigma_std=1.2),
        augmentation=AugmentationConfig(flip=True),
        optimizer=OptimizerConfig(
            muon=False,
            learning_rate=1e-4,
            betas=(0.9, 0.95),
            weight_decay=0.01,
            warmup_images=0,
            decay_fraction=0.0,
            max_gradient_norm=0.0,
        ),
        training=TrainingConfig(
            total_images=150_000_000,
            total_minutes=None,
            batch=512,
            ema_halflife_images=354_713,  # 512 ln(1/2) / ln(0.999)
            label_dropout=0.0,
            log_batches=100,
        ),
        sampling=SamplingConfig(sampler="heun", steps=50),
    )


def _cifar10_training(iterations: int) -> TrainingConfig:
    """Batches of 128 and an EMA with decay 0.9999 per iteration, as for DDPM and Improved DDPM."""
    return TrainingConfig(
        total_images=128 * iterations,
        total_minutes=None,
        batch=128,
        ema_halflife_images=887_184,  # 128 ln(1/2) / ln(0.9999)
        label_dropout=0.0,
        log_batches=100,
    )


_IN_ORDER = (digits, small, flowers64, cifar10_ddpm, cifar10_iddpm, cifar10_iddpm_vlb, cifar10_edm, cifar10_flow)
RECIPES: dict[str, Callable[[], Preset]] = dict(zip(PRESETS, _IN_ORDER, strict=True))


@dataclass(frozen=True)
class ImageFacts:
    """What a preset needs to know about the images, before they are opened; later a `Store` has it."""

    size: tuple[int, int]
    channels: int
    class_names: tuple[str, ...] = ()
    content: str = ""
    """A digest of the images themselves."""


def configure(
    preset: str,
    images: Store | ImageFacts,
    data: DataConfig,
    seed: int,
    conditional: bool = True,
    network: NetworkConfig | type[NetworkConfig] | None = None,
) -> Config:
    """The preset fitted to the images: to their size, channels and, if `conditional` and the preset is too, classes.

    `network`, a config or the class of one, replaces that of the preset.

    Raises:
        ValueError: the images' size does not fit the network.
    """
    recipe = RECIPES[preset]()
    class_names = images.class_names if conditional and recipe.conditional else ()
    facts = {"size": images.size, "image_channels": images.channels, "classes": len(class_names)}
    chosen = recipe.network if network is None else network
    try:
        fitted = chosen(**facts) if isinstance(chosen, type) else replace(chosen, **facts)
    except ValidationError as error:
        raise ValueError(sentence(error)) from error
    sections: dict[str, Any] = {section.name: getattr(recipe, section.name) for section in fields(Recipe)}
    sections["network"] = fitted
    return Config(
        preset=preset,
        seed=seed,
        data=data,
        data_content=images.content,
        class_names=class_names,
        **sections,
    )
