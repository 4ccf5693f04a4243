"""Small models of diffusers. Its classes are imported from their modules: its top level hides their types."""

from pathlib import Path
from typing import Any

import torch
from diffusers.models.unets.unet_2d import UNet2DModel
from diffusers.pipelines.ddpm.pipeline_ddpm import DDPMPipeline
from diffusers.pipelines.pipeline_utils import DiffusionPipeline
from diffusers.schedulers.scheduling_ddim import DDIMScheduler
from diffusers.schedulers.scheduling_ddpm import DDPMScheduler

__all__ = ["DDIMScheduler", "DDPMScheduler", "UNet2DModel", "open_pipeline", "random_unet2d", "save_pipeline"]

SETTINGS: dict[str, Any] = {
    "sample_size": 8,
    "in_channels": 1,
    "out_channels": 1,
    "block_out_channels": (16, 32),
    "down_block_types": ("DownBlock2D", "AttnDownBlock2D"),
    "up_block_types": ("AttnUpBlock2D", "UpBlock2D"),
    "layers_per_block": 1,
    "norm_num_groups": 8,
    "attention_head_dim": 8,
}
"""Every kind of layer of UNet2DModel once."""


def random_unet2d(**settings: Any) -> UNet2DModel:
    """A UNet2DModel with SETTINGS, some of them changed: always the same, and no weight is zero."""
    model = UNet2DModel(**{**SETTINGS, **settings})
    generator = torch.Generator().manual_seed(0)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.1, generator=generator)
    return model.eval()


def save_pipeline(folder: Path, scheduler: Any = None, **settings: Any) -> Path:
    """Saves a pipeline of a random UNet2DModel and a scheduler, by default a DDPMScheduler."""
    DDPMPipeline(random_unet2d(**settings), scheduler or DDPMScheduler()).save_pretrained(folder)
    return folder


def open_pipeline(folder: str) -> Any:
    """The pipeline in the folder, opened as users do."""
    pipeline = DiffusionPipeline.from_pretrained(folder)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline
