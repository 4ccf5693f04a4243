"""Muon against AdamW: the loss after the same images, everything else equal.

python benchmarks/optimizers.py --data digits --images 20k
"""

import statistics
import tempfile
import time
from pathlib import Path

import tyro

import undiffuse
from undiffuse.utils.parsing import parse_count

LAST_FRACTION = 0.1
"""The loss is averaged over this last fraction of the steps."""


def main(data: str = "digits", images: str = "20k", learning_rates: tuple[float, ...] = (1e-3, 2e-3, 4e-3)) -> None:
    """Trains with each optimizer at each learning rate: AdamW deserves its best one too.

    Args:
        data: As for undiffuse train.
        images: Training budget of each, in images seen.
        learning_rates: Tried for both.
    """
    best: dict[str, float] = {}
    for name in ("AdamW", "Muon"):
        for rate in learning_rates:
            began = time.monotonic()
            settings: dict[str, object] = {"optimizer.muon": name == "Muon", "optimizer.learning_rate": rate}
            loss = final_loss(data, images, settings)
            print(f"{name:6} learning rate {rate:g}: loss {loss:.4f} in {time.monotonic() - began:.0f} s", flush=True)
            best[name] = min(loss, best.get(name, loss))
    total = parse_count(images, "--images")
    print(f"Muon's best loss is {1 - best['Muon'] / best['AdamW']:.1%} below AdamW's best after {total:,} images")


def final_loss(data: str, images: str, settings: dict[str, object]) -> float:
    losses: list[float] = []
    with tempfile.TemporaryDirectory() as folder:
        observers = [lambda event: losses.append(event.loss)]
        undiffuse.train(data, images=images, out=Path(folder) / "run", set=settings, observers=observers)
    return statistics.mean(losses[-max(1, round(LAST_FRACTION * len(losses))) :])


if __name__ == "__main__":
    tyro.cli(main)
