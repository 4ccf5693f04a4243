"""What helps small sets: 300 or 100 photos of flowers at 32x32, one run for each way to train, with one thread.

    pip install -e '.[bench,offline]'
    OMP_NUM_THREADS=1 python benchmarks/small_sets.py --photos path/to/flower-photos --arm baseline
    ... (each arm is a command; --arm figure draws what is trained)

Of the 480 photos, 180 are the reference, the same for every run: held-out losses, distances, precision and recall are
of them, and they are the control of the nearest photos. No run trains on them. Interrupted, the same command goes on
where it was. Results go to benchmarks/results/small_sets.json, samples of the same seeds over their nearest photos to
benchmarks/results/small_sets.png.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import tyro
from measuring import machine
from photos import Losses, losses_of, metrics, nearest, stacked

import undiffuse
from undiffuse.data.batches import split_held_out
from undiffuse.data.pixels import to_nchw
from undiffuse.data.store import open_store
from undiffuse.report.grids import grid
from undiffuse.runs.run import Run

RESULTS = Path(__file__).parent / "results" / "small_sets.json"
REFERENCE_IMAGES = 180
"""Of the photos that no run trains on."""
MEASURED_AT = (0.5, 1.0)
SHOWN = 16
NETWORK = {"network.channels": 32, "network.multipliers": [1, 2, 2], "network.patch": 2}
"""Of the preset small, on 2x2 pixels: hundreds of epochs in minutes."""
ARMS: dict[str, dict[str, Any]] = {
    "baseline": {},
    "no flips": {"augmentation.flip": False},
    "nonleaky": {"augmentation.flip": False, "augmentation.nonleaky": 0.12},
    "dropout": {"network.dropout": 0.2},
    "patches": {"augmentation.patches": 0.5},
    "nonleaky and patches": {
        "augmentation.flip": False,
        "augmentation.nonleaky": 0.12,
        "augmentation.patches": 0.5,
    },
}
"""What each sets besides; the baseline mirrors half of the photos."""


@dataclass
class Options:
    """Trains an arm, measures it and keeps the results."""

    arm: Literal[*ARMS, "figure"]  # ty: ignore[invalid-type-form]
    photos: Path = Path("data/flower-photos")
    """Folder with a subfolder of photos for each class."""
    train_on: int = 300
    """Photos; those of fewer are among those of more."""
    images: int = 24_000
    """Budget, in images seen."""
    seed: int = 0
    count: int = 500
    """Samples that are measured."""
    out: Path = Path("runs/small-sets")
    """Folder of the run folders."""


def main(options: Options) -> None:
    found = json.loads(RESULTS.read_text(encoding="utf-8")) if RESULTS.exists() else {"machine": machine(), "runs": {}}
    if options.arm == "figure":
        return _figure(options)
    held_out_images = len(list(options.photos.rglob("*.jpg"))) - options.train_on
    settings = NETWORK | ARMS[options.arm] | {"training.held_out_images": held_out_images, "training.microbatch": 32}
    name = _name(options)
    run = undiffuse.train(
        options.photos,
        size=32,
        images=options.images,
        seed=options.seed,
        set=settings,
        out=options.out / name,
        observers=[Losses(REFERENCE_IMAGES, MEASURED_AT)],
        progress=True,
    )
    model = undiffuse.load(run)
    training, reference = _photos(run)
    samples = np.asarray(model.sample(options.count, seed=0))
    found["runs"][name] = {
        "settings": ARMS[options.arm],
        "trained on": len(training),
        "seed": options.seed,
        "images": options.images,
        "samples": options.count,
        "loss": losses_of(run),
        **metrics(reference, samples),
        "nearest photo": _memorization(training, reference, samples),
    }
    print(json.dumps(found["runs"][name], indent=2), flush=True)
    RESULTS.parent.mkdir(parents=True, exist_ok=True)
    RESULTS.write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")
    _print_table(found["runs"])


def _name(options: Options) -> str:
    name = f"{options.train_on} photos, {options.arm}, {options.images // 1000}k images, seed {options.seed}"
    return name.replace(" ", "-").replace(",", "")


def _photos(run: Run) -> tuple[np.ndarray, np.ndarray]:
    """Those that the run trained on, and those of the reference."""
    store = open_store(run.config.data)
    training, _ = split_held_out(len(store), run.config.training.held_out_images)
    _, reference = split_held_out(len(store), REFERENCE_IMAGES)
    return store.read(training), store.read(reference)


def _memorization(training: np.ndarray, reference: np.ndarray, samples: np.ndarray) -> dict[str, Any]:
    """Samples' distances to the nearest of the photos that were trained on and their mirror images.

    The control is the reference's distances: 1% of samples is expected to be nearer than their first percentile.
    """
    photos = np.concatenate([training, training[:, :, ::-1]])
    of_samples, of_control = nearest(photos, samples), nearest(photos, reference)
    found = {}
    for space, (distances, _) in of_samples.items():
        control = of_control[space][0]
        found[space] = {
            "median distance / that of held-out photos": float(np.median(distances) / np.median(control)),
            "nearer than 99% of held-out photos": float((distances < np.quantile(control, 0.01)).mean()),
        }
    return found


def _print_table(runs: dict[str, Any]) -> None:
    print(f"{'run':44} loss: held out, trained on   CPU s  FD     KD    precision recall  nearer")
    for name, run in runs.items():
        last = run["loss"][max(run["loss"], key=int)]
        nearer = [each["nearer than 99% of held-out photos"] for each in run["nearest photo"].values()]
        losses = f"{last['held out']:.4f} {last['trained on']:.4f} {last['cpu_seconds']:5}"
        distances = f"{run['FD-EffNet']:6.1f} {run['KD-EffNet']:.3f} {run['precision']:.3f} {run['recall']:.3f}"
        print(f"{name:44} {losses} {distances} " + " ".join(f"{each:.1%}" for each in nearer))


def _figure(options: Options) -> None:
    """Of each run of seed 0, samples of the same seeds, and below each the nearest photo that was trained on."""
    sheets = {}
    for name, run in json.loads(RESULTS.read_text(encoding="utf-8"))["runs"].items():
        if run["seed"]:
            continue
        model = undiffuse.load(options.out / name)
        training, _ = _photos(model.origin[0])
        photos = np.concatenate([training, training[:, :, ::-1]])
        samples = np.asarray(model.sample(SHOWN, seed=0))
        _, index = next(iter(nearest(photos, samples).values()))
        caption = name.removesuffix("-seed-0").replace("-", " ")
        sheets[caption] = grid(to_nchw(np.concatenate([samples, photos[index]])), columns=SHOWN)
    stacked(sheets).save(RESULTS.with_suffix(".png"))


if __name__ == "__main__":
    main(tyro.cli(Options, description=__doc__))
