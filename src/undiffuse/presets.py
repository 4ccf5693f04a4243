"""Named recipes. Each says where it comes from, how to run it, and what came out when we did."""

from collections.abc import Callable
from dataclasses import replace

from undiffuse.config import Config, OptimizerConfig, Recipe, SamplingConfig, TrainingConfig
from undiffuse.data.augmentation import AugmentationConfig
from undiffuse.data.store import DataConfig, Store
from undiffuse.diffusion.recipe import DiffusionConfig
from undiffuse.names import PRESETS
from undiffuse.networks.unet import UNetConfig


def digits() -> Recipe:
    """Handwritten digits, 16x16, by class, in minutes on a laptop.

    `undiffuse quickstart` on two AVX2 cores, fp32, seed 0: 32,000 images; with 500 samples and the report 2 min 58 s; a
    support vector machine that reads 99.1% of held-out real digits reads 99.0% of the samples as asked.
    """
    return Recipe(
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


def small() -> Recipe:
    """Your own colour pictures without a GPU: a slim U-Net, EDM's preconditioning, Muon, flips.

    Chosen by the loss (mean of the log's last eighth) of `undiffuse train --data path/to/cifar10 --minutes 2.2 --set
    network...` on two AVX2 cores, fp32, seed 0: this shape 0.293; 48 channels, multipliers (1, 2, 2) 0.439; 64
    channels, multipliers (1, 2, 2), two blocks and 2x2 patches 0.524. What it makes in minutes: docs/training.md.
    """
    return Recipe(
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


def cifar10_ddpm() -> Recipe:
    """Ho et al. 2020 on CIFAR-10: 35.7 M parameters, T = 1000 linear, eps, 800,000 iterations of 128.

    The paper's FID of 50,000 samples against the training set: 3.17. Not run here: it takes days on a GPU.
    """
    return Recipe(
        size=(32, 32),
        conditional=False,
        network=UNetConfig(),
        diffusion=DiffusionConfig(parametrization="eps", draw="discrete_uniform", schedule="linear"),
        augmentation=AugmentationConfig(flip=True),
        optimizer=OptimizerConfig(
            muon=False, learning_rate=2e-4, betas=(0.9, 0.999), warmup_images=640_000, decay_share=0.0
        ),
        training=TrainingConfig(
            total_images=102_400_000,
            total_minutes=None,
            # A decay of 0.9999 an iteration: 128 ln(1/2) / ln(0.9999).
            ema_halflife_images=887_184,
            label_dropout=0.0,
            log_batches=100,
        ),
        sampling=SamplingConfig(sampler="ancestral", steps=1000, variance="large", clip=True),
    )


RECIPES: dict[str, Callable[[], Recipe]] = dict(zip(PRESETS, (digits, small, cifar10_ddpm), strict=True))


def configure(preset: str, store: Store, data: DataConfig, seed: int, conditional: bool = True) -> Config:
    """The recipe fitted to the pictures: their size, channels and, if `conditional` and the recipe is too, classes.

    Raises:
        ValueError: the pictures' size does not fit the recipe's network.
    """
    recipe = RECIPES[preset]()
    class_names = store.class_names if conditional and recipe.conditional else ()
    network = replace(recipe.network, size=store.size, image_channels=store.channels, classes=len(class_names))
    return Config(
        preset=preset,
        seed=seed,
        data=data,
        data_content=store.content,
        class_names=class_names,
        network=network,
        diffusion=recipe.diffusion,
        augmentation=recipe.augmentation,
        optimizer=recipe.optimizer,
        training=recipe.training,
        sampling=recipe.sampling,
    )
