"""Makes a run a model that comes with the package: its config, and its EMA weights in bf16.

python benchmarks/ship.py runs/flowers flowers --data flowers102

The model card, model.md beside it, is written by hand.
"""

import hashlib
import json
import shutil
from dataclasses import replace
from pathlib import Path

import safetensors.torch
import torch
import tyro

from undiffuse.config import to_json
from undiffuse.runs.find import SHIPPED, find_run
from undiffuse.runs.run import open_run


def main(run: str, name: str, /, data: str, guidance: float | None = None) -> None:
    """Writes the folder of the model, replacing what is there except the card.

    Args:
        run: The run, which must be finished.
        name: Of the model.
        data: What the images are called on other machines: digits, cifar10 or flowers102.
        guidance: The default of sampling; None keeps the run's.
    """
    opened = open_run(find_run(run))
    checkpoint = opened.last_good()
    if checkpoint is None:
        raise SystemExit(f"{opened.folder} has no whole checkpoint.")
    config = replace(opened.config, data=replace(opened.config.data, data=data, data_root=None))
    if config.origin:
        config = replace(config, origin=replace(config.origin, run=Path(config.origin.run).name))
    if guidance is not None:
        config = replace(config, sampling=replace(config.sampling, guidance=guidance))
    folder = SHIPPED / name
    shutil.rmtree(folder / "checkpoints", ignore_errors=True)
    target = folder / "checkpoints" / str(checkpoint.images)
    target.mkdir(parents=True)
    (folder / "config.json").write_text(to_json(config), encoding="utf-8")
    weights = {key: value.to(torch.bfloat16) for key, value in checkpoint.tensors("ema").items()}
    content = safetensors.torch.save(weights)
    (target / "ema.safetensors").write_bytes(content)
    index = {"images": checkpoint.images, "parts": {"ema": hashlib.sha256(content).hexdigest()}, "state": {}}
    (target / "checkpoint.json").write_text(json.dumps(index, indent=2) + "\n", encoding="utf-8")
    print(f"{folder}: {len(content) / 2**20:.2f} MiB of weights, trained on {checkpoint.images:,} images")


if __name__ == "__main__":
    tyro.cli(main)
