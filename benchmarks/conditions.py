"""Does a model trained with a table do what it is asked? Digits with their ink, their slant and their width.

python benchmarks/conditions.py --images 32k

Two numbers and a word are measured in each real digit and written to a CSV file. A model is trained with it, asked for
values, and the same is measured in its samples: the correlation says whether they follow.
"""

import csv
import json
from pathlib import Path

import numpy as np
import torch
import tyro
from matplotlib.figure import Figure

import undiffuse
from undiffuse.data.store import DataConfig, open_store
from undiffuse.sampling.model import Model

DATA = DataConfig(size=(16, 16))

NUMBERS = {"ink": "ink, the mean brightness", "slant": "slant, the shift to the right per pixel upward"}


def measured(images: np.ndarray) -> dict[str, np.ndarray]:
    """The numbers of each image `(n, height, width, 1)`, and how widely its ink is spread."""
    ink = images[..., 0] / 255
    total = ink.sum((1, 2)) + 1e-9
    y, x = np.mgrid[: ink.shape[1], : ink.shape[2]]

    def mean(values: np.ndarray) -> np.ndarray:
        return (ink * values).sum((1, 2)) / total

    mean_x, mean_y = mean(x), mean(y)
    variance_x, variance_y = mean(x**2) - mean_x**2, mean(y**2) - mean_y**2
    return {
        "ink": ink.mean((1, 2)),
        "slant": -(mean(x * y) - mean_x * mean_y) / variance_y,
        "spread": np.sqrt(variance_x),
    }


def main(
    images: str = "32k",
    count: int = 500,
    out: Path = Path("runs/told-digits"),
    json_file: Path = Path("benchmarks/results/conditions.json"),
    plot: Path = Path("docs/conditions.png"),
) -> None:
    """Trains the model, unless it is there, and asks it for `count` samples of each attribute and guidance."""
    torch.set_num_threads(1)
    store = open_store(DATA)
    real = measured(store.read(range(len(store))))
    narrow = np.median(real["spread"])
    table = out.parent / "digits.csv"
    table.parent.mkdir(parents=True, exist_ok=True)
    with table.open("w", newline="") as file:
        rows = zip(range(len(store)), real["ink"], real["slant"], real["spread"], strict=True)
        csv.writer(file).writerows(
            [("image", "ink", "slant", "width")]
            + [(i, f"{a:.4f}", f"{b:.4f}", "wide" if c > narrow else "narrow") for i, a, b, c in rows]
        )
    run = undiffuse.train(condition=table, size=16, images=images, out=out, progress=True)
    model, results = undiffuse.load(run), []
    for guidance in (1.0, 1.5):
        for name in NUMBERS:
            asked = np.random.default_rng(0).uniform(*np.quantile(real[name], [0.02, 0.98]), count)
            samples = model.sample(count, attributes={name: asked.tolist()}, guidance=guidance)
            got = measured(np.asarray(samples))[name]
            error = float(np.abs(got - asked).mean())
            spread = float(np.abs(real[name] - real[name].mean()).mean())
            correlation = float(np.corrcoef(asked, got)[0, 1])
            results.append({"guidance": guidance, "asked": name, "correlation": correlation, "mean_error": error})
            results[-1] |= {"mean_deviation_of_real": spread, "samples": count}
            print(json.dumps(results[-1]), flush=True)
        words = ["narrow" if i % 20 < 10 else "wide" for i in range(count)]  # Every class of both.
        samples = model.sample(count, attributes={"width": words}, guidance=guidance)
        wide = measured(np.asarray(samples))["spread"] > narrow
        share = float(np.mean(wide == (np.array(words) == "wide")))
        results.append({"guidance": guidance, "asked": "width", "as_asked": share, "samples": count})
        print(json.dumps(results[-1]), flush=True)
    seen = model.origin[1].images
    json_file.parent.mkdir(parents=True, exist_ok=True)
    json_file.write_text(json.dumps({"images": seen, "rows": results}, indent=2) + "\n")
    _plot(model, real).savefig(plot, dpi=110, facecolor="white")


def _plot(model: Model, real: dict[str, np.ndarray], columns: int = 12) -> Figure:
    """The same seeds and classes in each row, from the least to the most of one number."""
    figure = Figure(figsize=(11, 2.4), layout="constrained")
    for axes, (name, title) in zip(figure.subplots(1, 2), NUMBERS.items(), strict=True):
        values = np.linspace(*np.quantile(real[name], [0.02, 0.98]), columns)
        rows = [
            np.concatenate(
                [np.asarray(model.sample(1, seed=7 * digit, label=digit, attributes={name: v}))[0] for v in values],
                axis=1,
            )
            for digit in (0, 2, 3, 7)
        ]
        axes.imshow(np.concatenate(rows)[..., 0], cmap="gray_r", aspect="equal")
        axes.set_title(f"{title}: {values[0]:.2f} to {values[-1]:.2f}", fontsize=10, loc="left")
        axes.axis("off")
    return figure


if __name__ == "__main__":
    tyro.cli(main)
