"""The words that people type. Apart from everything else, so that a mistyped one is answered without loading torch."""

from typing import Literal

DATASETS = ("digits", "cifar10", "flowers102")
PRESETS = ("digits", "small", "cifar10-ddpm")

Split = Literal["auto", "train", "val", "test", "all"]
Fit = Literal["crop", "pad", "stretch"]
Channels = Literal["auto", "1", "3", "4"]
Precision = Literal["auto", "fp32", "bf16"]
SamplerName = Literal["euler", "heun", "ancestral"]
VarianceName = Literal["small", "large"]
