"""A network that exports to ONNX in a second, for tests of all that is around it."""

import torch
from pydantic.dataclasses import dataclass
from torch import Tensor, nn

from undiffuse.networks.network import NetworkConfig


@dataclass(frozen=True)
class SmallConfig(NetworkConfig):
    """The config of one convolution that sees the noise level and the label."""

    def build(self, learned_variance: bool = False) -> nn.Module:
        return SmallNetwork(self, learned_variance)


class SmallNetwork(nn.Module):
    def __init__(self, config: SmallConfig, learned_variance: bool):
        super().__init__()
        torch.manual_seed(0)
        channels = config.image_channels
        self.conv = nn.Conv2d(channels, channels * (2 if learned_variance else 1), 3, padding=1)
        self.embed = nn.Embedding(config.classes + 1, channels)

    def forward(self, x: Tensor, c_noise: Tensor, label: Tensor | None = None) -> Tensor:
        known = torch.zeros_like(c_noise).long() if label is None else torch.where(label < 0, 0, label + 1)
        shift = self.embed(known) * torch.sin(c_noise)[:, None]
        return self.conv(x + shift[:, :, None, None])
