"""Muon against AdamW: the loss after the same images, everything else equal.

python benchmarks/optimizers.py --data digits --images 20k
"""

import time
from dataclasses import replace

import torch
import tyro

from undiffuse.commands import values
from undiffuse.data.batches import ImageStream, batches
from undiffuse.data.store import DataConfig, open_store
from undiffuse.presets import RECIPES, configure
from undiffuse.training.loop import train
from undiffuse.training.session import new_state
from undiffuse.utils.device import choose_device, compute_dtype
from undiffuse.utils.world import World

LAST_SHARE = 0.1
"""The loss is averaged over this last share of the steps."""


def main(data: str = "digits", images: str = "20k", learning_rates: tuple[float, ...] = (1e-3, 2e-3, 4e-3)) -> None:
    """Each optimizer at each learning rate: AdamW deserves its best one too.

    Args:
        data: As for undiffuse train.
        images: Images seen by each.
        learning_rates: Tried for both.
    """
    preset = values.preset(None, data)
    asked = DataConfig(data=data, size=RECIPES[preset]().size)
    store = open_store(asked)
    config = configure(preset, store, asked, seed=0)
    total = values.count(images, "--images")
    best = {}
    for name in ("AdamW", "Muon"):
        for rate in learning_rates:
            optimizer = replace(config.optimizer, muon=name == "Muon", learning_rate=rate)
            training = replace(config.training, total_images=total, total_minutes=None)
            began = time.monotonic()
            loss = final_loss(replace(config, optimizer=optimizer, training=training), store, total)
            print(f"{name:6} learning rate {rate:g}: loss {loss:.4f} in {time.monotonic() - began:.0f} s", flush=True)
            best[name] = min(loss, best.get(name, loss))
    print(f"Muon's best loss is {1 - best['Muon'] / best['AdamW']:.1%} under AdamW's best after {total:,} images")


def final_loss(config, store, total: int) -> float:
    device = choose_device()
    state = new_state(config, device)
    stream = batches(
        ImageStream(store, config.augmentation, 0.1, config.seed), 0, config.training.batch, 0, 1, 0, False
    )
    steps = train(state, config, stream, lambda: state.images / total, World(0, 1, device), compute_dtype(device))
    losses = []
    while state.images < total:
        losses.append(next(steps).loss)
    last = losses[-max(1, round(LAST_SHARE * len(losses))) :]
    return torch.tensor(last).mean().item()


if __name__ == "__main__":
    tyro.cli(main)
