"""What guidance buys and costs: the class asked for, recall, distance and NFE against the guidance, three ways.

undiffuse train --data digits --images 24k --checkpoint-images 4k --keep 10 --out runs/guided
python benchmarks/guidance.py runs/guided --guide runs/guided@8000

The class is read by a support vector machine that saw three quarters of the real images, never a sample; for color
images it reads their features. Every row samples the same seeds, every class in turn.
"""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
import tyro
from matplotlib.figure import Figure

import undiffuse
from undiffuse.data.pixels import to_nchw
from undiffuse.data.store import open_store
from undiffuse.evaluation.reader import read_samples
from undiffuse.features.arrays import to_rgb
from undiffuse.features.networks import load_features
from undiffuse.sampling.model import Model
from undiffuse.sampling.nfe import nfe
from undiffuse.sampling.options import sampling_config

COLORS = {"everywhere": "#5f6670", "in the interval": "#2f6fde", "autoguidance": "#d2601a"}


def main(
    run: str,
    /,
    guide: str | None = None,
    interval: str = "0.28-1.6",
    values: tuple[float, ...] = (1.0, 1.5, 2.0, 2.5, 3.0),
    count: int = 1000,
    steps: int | None = None,
    features: str = "pixels",
    json_file: Path = Path("benchmarks/results/guidance.json"),
    plot: Path = Path("docs/guidance.png"),
) -> None:
    """Samples `count` images each way.

    Args:
        run: A run with classes.
        guide: A weaker model for autoguidance, as RUN@IMAGES.
        interval: Of noise levels.
        values: Of guidance.
        count: Samples in each row.
        steps: Of the sampler; None takes the run's.
        features: Of FD and recall, and of the reader unless they are pixels.
        json_file: Where the rows go.
        plot: Where the curves go.
    """
    model = undiffuse.load(run)
    ways: dict[str, tuple[Model, str | None]] = {"everywhere": (model, None), "in the interval": (model, interval)}
    if guide is not None:
        ways["autoguidance"] = undiffuse.load(run, guide=guide), None
    store = open_store(model.config.data)
    real, labels = store.read(range(len(store))), np.arange(count) % len(model.class_names)
    describe = _describe(features)
    described = describe(real)
    rows = []
    for way, (each, where) in ways.items():
        for value in values:
            options = {"guidance_interval": where} if value != 1 else {}
            # Without guidance all ways are the same; a guide would be refused.
            sampled = (each if value != 1 else model).sample(count, guidance=value, steps=steps, **options)
            found = undiffuse.measure(real, np.asarray(sampled), features=features)
            reading = read_samples(described, store.labels, describe(np.asarray(sampled)), labels)
            sampling = sampling_config(
                model.config, steps=steps, guidance=value, guide=each.guide is not None and value != 1, **options
            )
            distance = next(v for v in found.measurements[0].values if v.metric.startswith(("FD", "FID")))
            rows.append(
                {
                    **{"way": way, "guidance": value, "read_as_asked": reading.correct, "samples": count},
                    **{"held_out_real_read": reading.held_out_accuracy, "recall": found["recall"].value},
                    **{"precision": found["precision"].value, distance.metric: distance.value},
                    "nfe": nfe(each, sampling, [0]),
                }
            )
            print(json.dumps(rows[-1]), flush=True)
    about = {"run": run, "images": model.origin[1].images, "guide": guide, "interval": interval, "rows": rows}
    json_file.write_text(json.dumps(about, indent=2) + "\n")
    _plot(rows).savefig(plot, dpi=110, facecolor="white")


def _describe(features: str) -> Callable[[np.ndarray], np.ndarray]:
    """What the reader sees of uint8 images, as images one pixel high."""
    if features == "pixels":
        return lambda images: images
    network = load_features(features, None, torch.device("cpu"))

    def features_of(images: np.ndarray) -> np.ndarray:
        chunks = [network(to_nchw(to_rgb(images[i : i + 64]))).features for i in range(0, len(images), 64)]
        return torch.cat(chunks).numpy()[:, None, None]

    return features_of


def _plot(rows: list[dict]) -> Figure:
    distance = next(name for name in rows[0] if name.startswith(("FD", "FID")))
    panels = {"read_as_asked": "read as the class asked for", "recall": "recall", distance: distance, "nfe": "NFE"}
    figure = Figure(figsize=(11, 2.9), layout="constrained")
    for axes, (name, title) in zip(figure.subplots(1, len(panels)), panels.items(), strict=True):
        for way, color in COLORS.items():
            points = [(row["guidance"], row[name]) for row in rows if row["way"] == way]
            if points:
                axes.plot(*zip(*points, strict=True), marker="o", markersize=4, color=color, label=way)
        axes.set_title(title, fontsize=10, loc="left")
        axes.set_xlabel("guidance", fontsize=9)
        axes.spines[["top", "right"]].set_visible(False)
        axes.tick_params(labelsize=8)
    figure.axes[0].legend(frameon=False, fontsize=8)
    return figure


if __name__ == "__main__":
    tyro.cli(main)
