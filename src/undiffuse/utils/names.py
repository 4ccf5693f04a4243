"""The values that people type on the command line, so that a typo is reported without loading torch."""

from typing import Literal, get_args

PRESETS = (
    *("digits", "small", "flowers64"),
    *("cifar10-ddpm", "cifar10-iddpm", "cifar10-iddpm-vlb", "cifar10-edm", "cifar10-flow"),
)

Split = Literal["auto", "train", "val", "test", "all"]
Fit = Literal["crop", "pad", "stretch"]
Channels = Literal["auto", "1", "3", "4"]
Precision = Literal["auto", "fp32", "bf16", "fp16"]
SamplingPrecision = Literal[Precision, "tf32"]
Compile = Literal["auto", "on", "graphs", "off"]

TunedSampler = Literal["ipndm", "dpmpp_2m", "heun", "ancestral"]
"""Samplers whose noise levels can be tuned."""

TUNABLE: tuple[str, ...] = get_args(TunedSampler)

EMA_LENGTHS = (0.03, 0.05, 0.1, 0.15)
"""That are tried unless others are given: each the standard deviation of what an EMA averages over, as a fraction of
the training."""
