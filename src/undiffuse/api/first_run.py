"""Suggests a first run after exploring images, from the measured speed of this machine."""

import time
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from undiffuse.data.open import DataLike, open_source
from undiffuse.data.store import DataConfig, Store
from undiffuse.exploration.inventory import Inventory
from undiffuse.exploration.suggestion import Request, SecondsPerImage, Size, Suggestion, suggest
from undiffuse.presets import configure
from undiffuse.training import cost
from undiffuse.utils.device import choose_device
from undiffuse.utils.terminal import Meter, log
from undiffuse.utils.text import number

MEASURED_IMAGES = 8
"""On a CPU the speed of training is measured with this many images at once."""

MEASURING_SECONDS = 15.0
"""At most this long, while other work on the machine makes the measurements disagree."""

AGREEING = 3
WITHIN = 1.1
"""The speed is known once this many measurements are within this factor of the fastest."""


@dataclass(frozen=True)
class FirstRun:
    """What a suggestion depends on besides the images' statistics."""

    data: DataLike
    data_root: str | Path | None
    """As the user gave it."""
    config: DataConfig
    size: Size | None
    """Only if the user asked for one."""
    store: Store

    def suggest(self, inventory: Inventory) -> Suggestion | None:
        """Measures and suggests; None, with a notice, if memory does not suffice to measure."""
        log.info("Measuring how fast this machine trains ...")
        request = Request(
            data=str(self.data) if isinstance(self.data, str | Path) else None,
            size=self.size,
            fit=self.config.fit,
            options=self._options(),
            images=self._training_images(inventory),
        )
        try:
            return suggest(inventory, request, self.store.size, choose_device().type, self._seconds_per_image)
        except torch.OutOfMemoryError:
            log.warning("Out of memory while measuring, so no first run is suggested: a smaller --size needs less.")
            return None

    def _options(self) -> dict[str, str]:
        """Options that `train` needs to read the same images."""
        options = {}
        if self.data_root is not None:
            options["data_root"] = str(self.data_root)
        if self.config.split in ("train", "val", "test"):
            options["split"] = self.config.split
        if self.config.channels is not None:
            options["channels"] = str(self.config.channels)
        return options

    def _training_images(self, inventory: Inventory) -> int:
        """How many images `train` would use: explore looks at all splits, train only at its own."""
        if self.config.split != "all" or not inventory.splits:
            return inventory.images
        return inventory.splits.get(open_source(self.data, self.config.data_root, "auto").split, inventory.images)

    def _seconds_per_image(self, preset: str, size: Size) -> SecondsPerImage:
        device = choose_device()
        config = configure(preset, replace(self.store, size=size), replace(self.config, size=size), seed=0)
        if device.type == "cpu":  # A few images are enough there, and quicker.
            config = replace(config, training=replace(config.training, microbatch=MEASURED_IMAGES))
        # Other work on the machine can only slow a measurement down, so the fastest is the most accurate.
        began, seconds, done = time.monotonic(), [], 0.0
        with Meter("measuring", 1.0) as meter:
            while done < 1:
                seconds.append(cost.measure_cost(config, device).seconds_per_image)
                agreeing = sum(each <= WITHIN * min(seconds) for each in seconds)
                spent = time.monotonic() - began
                done = max(done, agreeing / AGREEING, spent / MEASURING_SECONDS) if spent < MEASURING_SECONDS else 1.0
                meter.reach(done, f"{number(1 / min(seconds))} images/s")
        return SecondsPerImage(min(seconds), max(seconds))
