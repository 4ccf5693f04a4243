"""Settings that may be left open: they are chosen once, when a run begins, and config.json has what was chosen."""

import time
from collections.abc import Callable
from dataclasses import replace

import torch

from undiffuse.config import Config
from undiffuse.data.batches import split_held_out
from undiffuse.training.blocks import recompute_activations
from undiffuse.training.cost import noise_inputs
from undiffuse.utils.device import autocast
from undiffuse.utils.terminal import Meter, log

LEFT_OPEN = ("held_out_images", "microbatch")
"""Settings of training that are None until a run begins."""

MOST_AT_ONCE = 128
"""Images: the largest microbatch that is chosen."""

LEAST_AT_ONCE = 8

QUICK_SECONDS = 1.0
"""A network that does a whole batch in this time is not measured: its microbatch hardly matters."""

MEASURING_FRACTION = 0.01
"""Of a budget in minutes, at most about this fraction is spent on measuring."""

MEASURING_SECONDS = 20.0

SLOWER = 1.02
"""A microbatch that takes this many times as long for an image ends the search: larger ones will not do better."""


def chosen(config: Config, total_images: int, device: torch.device, processes: int) -> Config:
    """The config of a new run, with what was left open chosen for `total_images` images and this machine."""
    training = config.training
    if training.held_out_images is None:
        _, held_out = split_held_out(total_images, None)
        training = replace(training, held_out_images=len(held_out))
    if training.microbatch is None:
        most = max(1, min(training.batch // processes, MOST_AT_ONCE))
        microbatch = most if device.type != "cpu" else _fastest_microbatch(config, device, most)
        training = replace(training, microbatch=microbatch)
    return replace(config, training=training)


def as_begun(config: Config, begun: Config) -> Config:
    """The config with what it leaves open as it is in the run that was begun."""
    left_open = {name: getattr(begun.training, name) for name in LEFT_OPEN if getattr(config.training, name) is None}
    return replace(config, training=replace(config.training, **left_open))


def _fastest_microbatch(config: Config, device: torch.device, most: int) -> int:
    """On a CPU, small microbatches keep their features in its caches and large ones waste less on overhead."""
    step = _step_timer(config, device)
    began = time.monotonic()
    allowed = min(MEASURING_SECONDS, MEASURING_FRACTION * 60 * (config.training.total_minutes or 1e9))
    size = min(LEAST_AT_ONCE, most)
    with Meter("measuring speed", allowed) as meter:
        step(size)  # Warms up.
        seconds_per_image = {size: step(size) / size}
        if seconds_per_image[size] * config.training.batch < QUICK_SECONDS:
            return most
        while 2 * size <= most and time.monotonic() + 2 * size * seconds_per_image[size] < began + allowed:
            meter.reach(time.monotonic() - began, f"{2 * size} images at once")
            size *= 2
            seconds_per_image[size] = step(size) / size
            if seconds_per_image[size] > SLOWER * min(seconds_per_image.values()):
                break
    best = min(seconds_per_image, key=lambda images: seconds_per_image[images])
    speeds = ", ".join(f"{1 / seconds:.3g} at {images}" for images, seconds in seconds_per_image.items())
    log.info(f"microbatch {best} images at once, the fastest of those tried (images/s: {speeds})")
    return best


def _step_timer(config: Config, device: torch.device) -> Callable[[int], float]:
    """A function from a number of images to the seconds of a forward and a backward pass."""
    network, loss_of = config.build_network().to(device), config.diffusion.make_loss()
    if config.training.activation_checkpointing:
        recompute_activations(network, device)

    def step(images: int) -> float:
        inputs = noise_inputs(config, images, device)
        began = time.monotonic()
        with autocast(device, config.training.precision):
            loss = loss_of(network, **inputs).mean()
        loss.backward()
        return time.monotonic() - began

    return step
