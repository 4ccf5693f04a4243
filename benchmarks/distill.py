"""A student of few steps against its teacher: the distance to the images, and the class asked for, by NFE.

undiffuse distill digits --images 24k --batch 32 --out runs/digits-student
python benchmarks/distill.py runs/digits-student --teacher digits

Every row samples the same seeds, every class in turn. The class is read by a support vector machine that saw three
quarters of the real images, never a sample; it reads pixels for gray images, and for others the last of the features.
"""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
import tyro

import undiffuse
from undiffuse.data.pixels import to_nchw
from undiffuse.data.store import open_store
from undiffuse.evaluation.reader import read_samples
from undiffuse.features.arrays import to_rgb
from undiffuse.features.networks import load_features
from undiffuse.metrics.frechet import frechet_distance, gaussian
from undiffuse.sampling.nfe import nfe
from undiffuse.sampling.options import sampling_config
from undiffuse.utils.terminal import console


def main(
    student: str,
    /,
    teacher: str,
    student_steps: tuple[int, ...] = (1, 2, 4),
    teacher_steps: tuple[int, ...] = (1, 2, 4, 10),
    count: int = 1000,
    features: tuple[str, ...] = ("pixels", "efficientnet-lite0"),
    data_root: str | None = None,
    json_file: Path = Path("benchmarks/results/distill.json"),
) -> None:
    """Samples `count` images for each row.

    Args:
        student: The run that was distilled.
        teacher: The run that it was distilled from.
        student_steps: Of the sampler consistency, without guidance.
        teacher_steps: Of the teacher's own sampler, without guidance; its own options come last.
        count: Samples in each row.
        features: Of the distances.
        data_root: Where cifar10 and flowers102 are.
        json_file: Where the rows go.
    """
    models = {"student": undiffuse.load(student), "teacher": undiffuse.load(teacher)}
    config = models["teacher"].config
    store = open_store(replace(config.data, data_root=data_root or config.data.data_root))
    real = store.read(range(len(store)))
    networks = {name: load_features(name, None, torch.device("cpu")) for name in features}

    def described(images: np.ndarray, name: str) -> np.ndarray:
        chunks = (to_nchw(to_rgb(images[i : i + 64])) for i in range(0, len(images), 64))
        return torch.cat([networks[name](chunk).features for chunk in chunks]).numpy()

    of_real = {name: described(real, name) for name in features}
    fits = {name: gaussian(rows) for name, rows in of_real.items()}
    asked = [("student", steps, 1.0) for steps in student_steps]
    asked += [("teacher", steps, 1.0) for steps in teacher_steps]
    asked.append(("teacher", config.sampling.steps, config.sampling.guidance))
    rows = []
    for name, steps, guidance in asked:
        model = models[name]
        sampling = sampling_config(model.config, steps=steps, guidance=guidance)
        images = np.asarray(model.sample(count, steps=steps, guidance=guidance))
        of_fake = {each: described(images, each) for each in features}
        row = {
            "model": name,
            "sampler": sampling.sampler,
            "steps": steps,
            "guidance": guidance,
            "nfe": nfe(model, sampling, [0] if model.class_names else [-1]),
            **{f"FD-{each}": frechet_distance(fits[each], gaussian(rows)) for each, rows in of_fake.items()},
        }
        if model.class_names:
            seen = (real, images) if real.shape[3] == 1 else (of_real[features[-1]], of_fake[features[-1]])
            pictures = [each if each.ndim == 4 else each[:, None, None] for each in seen]
            labels = np.arange(count) % len(model.class_names)
            row["read_as_asked"] = read_samples(pictures[0], store.labels, pictures[1], labels).correct
        rows.append(row)
        console.print(json.dumps(row), soft_wrap=True)
    images_seen = {name: model.origin[1].images for name, model in models.items()}
    about = {"student": student, "teacher": teacher, "images": images_seen, "samples": count, "rows": rows}
    json_file.write_text(json.dumps(about, indent=2) + "\n")


if __name__ == "__main__":
    tyro.cli(main)
