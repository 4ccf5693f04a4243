"""Fine-tuning against training from scratch on 300 photos of flowers, for the same number of images: equal work.

    pip install -e '.[bench,offline]'
    python benchmarks/finetuning.py --flowers data/flowers-102 --photos path/to/flower-photos

The source is trained on Oxford Flowers-102 without any of the classes that have a folder in --photos, so that no photo
is seen before; then, on the photos of five classes, one run starts from scratch and others from the source, at
fractions of its learning rate. Sixty photos are held out. Interrupted, the same command goes on where it was. Results
go to benchmarks/results/finetuning.json, samples of the same seeds to benchmarks/results/finetuning.png.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tyro
from measuring import machine
from photos import Losses, losses_of, metrics, nearest, stacked
from scipy.io import loadmat

import undiffuse
from undiffuse.data.batches import split_held_out
from undiffuse.data.pixels import to_nchw
from undiffuse.data.store import open_store
from undiffuse.report.grids import grid
from undiffuse.runs.run import Run

RESULTS = Path(__file__).parent / "results" / "finetuning.json"
HELD_OUT_IMAGES = 60
MEASURED_AT = (0.5, 1.0)
"""Fractions of the budget after which the losses are measured."""
SHOWN = 16


@dataclass
class Options:
    """Trains what is not yet trained, measures it, and keeps results and figure."""

    flowers: Path = Path("data/flowers-102")
    """Folder with imagelabels.mat and jpg/, as torchvision leaves it."""
    photos: Path = Path("data/flower-photos")
    """Folder with a subfolder of photos for each class, named by its number in Flowers-102."""
    classes: tuple[str, ...] = ("041", "046", "051", "056", "058")
    """Those of the photos that are trained on."""
    source_minutes: float = 20
    """Of training of the source."""
    images: int = 2560
    """Budget of each of the other runs."""
    rates: tuple[float, ...] = (1 / 3, 1.0)
    """Learning rates as fractions of the source's; each is a run."""
    count: int = 200
    """Samples that are measured."""
    out: Path = Path("runs/finetuning")
    """Folder of the run folders."""


def main(options: Options) -> None:
    others, new = _link_photos(options)
    shared: dict[str, Any] = {"size": 32, "progress": True}
    source = undiffuse.train(
        others, minutes=options.source_minutes, set=("training.microbatch=32",), out=options.out / "source", **shared
    )
    trained = {"images": source.checkpoints()[0].images, "classes": len(source.config.class_names)}
    found = {"machine": machine(), "source": trained, "photos": len(list(new.rglob("*.jpg"))), "runs": {}}
    rate = source.config.optimizer.learning_rate
    variants = {
        "from scratch": (None, rate),
        **{f"fine-tuned, rate x {r:.2g}": (source, r * rate) for r in options.rates},
    }
    measured = json.loads(RESULTS.read_text(encoding="utf-8"))["runs"] if RESULTS.exists() else {}
    sheets = {}
    for name, (start, learning_rate) in variants.items():
        settings = {
            "optimizer.learning_rate": learning_rate,
            "training.held_out_images": HELD_OUT_IMAGES,
            "training.microbatch": 32,
        }
        run = undiffuse.train(
            new,
            from_run=start,
            images=options.images,
            set=settings,
            out=options.out / name.replace(" ", "-").replace(",", ""),
            observers=[Losses(HELD_OUT_IMAGES, MEASURED_AT)],
            **shared,
        )
        model, how = undiffuse.load(run), {"images": options.images, "samples": options.count}
        if not how.items() <= measured.get(name, {}).items():
            measured[name] = (
                how
                | {"loss": losses_of(run), "learning_rate": learning_rate}
                | _metrics(run, np.asarray(model.sample(options.count, seed=0)))
            )
        found["runs"][name] = measured[name]
        sheets[name] = grid(to_nchw(model.sample(SHOWN, seed=0)), columns=SHOWN // 2)
        print(name, json.dumps(found["runs"][name]), flush=True)
        RESULTS.parent.mkdir(parents=True, exist_ok=True)
        RESULTS.write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")
        stacked(sheets).save(RESULTS.with_suffix(".png"))


def _metrics(run: Run, samples: np.ndarray) -> dict[str, Any]:
    """Distances to all photos, and to the nearest of those that were trained on."""
    store = open_store(run.config.data)
    training, held_out = split_held_out(len(store), HELD_OUT_IMAGES)
    values = metrics(store.read(range(len(store))), samples)
    generated, control = (nearest(store.read(training), images) for images in (samples, store.read(held_out)))
    ratios = {space: float(np.median(generated[space][0]) / np.median(control[space][0])) for space in control}
    return values | {"distance to the nearest photo / that of held-out photos": ratios}


def _link_photos(options: Options) -> tuple[Path, Path]:
    """Two folders of links: all flowers but the classes in `photos`, and the chosen classes of the photos."""
    others, new = options.out / "other-flowers", options.out / "new-flowers"
    left_out = {folder.name for folder in options.photos.iterdir()}
    for i, number in enumerate(loadmat(options.flowers / "imagelabels.mat")["labels"][0], start=1):
        if f"{number:03d}" not in left_out:
            _link(options.flowers / "jpg" / f"image_{i:05d}.jpg", others / f"{number:03d}")
    for name in options.classes:
        for file in (options.photos / name).iterdir():
            _link(file, new / name)
    return others, new


def _link(file: Path, folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    if not (folder / file.name).is_symlink():
        (folder / file.name).symlink_to(file.absolute())


if __name__ == "__main__":
    main(tyro.cli(Options, description=__doc__))
