"""A network of a user's own."""

import dataclasses

import torch
from torch import Tensor, nn

from undiffuse.networks.network import NetworkConfig


@dataclasses.dataclass(frozen=True)
class TinyConfig(NetworkConfig):
    width: int = 4

    def build(self, learned_variance: bool = False) -> nn.Module:
        return Tiny(self, learned_variance)


class Tiny(nn.Module):
    """Two convolutions; the noise level and the label shift the features between them."""

    def __init__(self, config: TinyConfig, learned_variance: bool):
        super().__init__()
        self.input = nn.Conv2d(config.image_channels, config.width, 3, padding=1)
        self.noise = nn.Linear(1, config.width)
        self.label = nn.Embedding(config.classes + 1, config.width)
        self.output = nn.Conv2d(config.width, config.image_channels * (2 if learned_variance else 1), 3, padding=1)

    def forward(self, x: Tensor, c_noise: Tensor, label: Tensor | None = None) -> Tensor:
        label = torch.full(c_noise.shape, -1) if label is None else label
        shift = self.noise(c_noise[:, None]) + self.label(label + 1)
        return self.output(torch.relu(self.input(x) + shift[:, :, None, None]))
