"""Every objective and parametrization trains through the command and makes images."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from undiffuse.cli import main
from undiffuse.runs.run import open_run
from undiffuse.training import session

SMALL = ["network.channels=8", "network.groups=4", "network.multipliers=[1]", "network.patch=1"]
SMALL += ["network.attention_resolutions=[]", "training.log_batches=1", "optimizer.warmup_images=0"]

CHAIN = ["diffusion.draw=discrete_uniform", "diffusion.schedule=cosine"]
WAYS = {
    "eps": ["diffusion.parametrization=eps", "diffusion.draw=discrete_uniform"],
    "x0": ["diffusion.parametrization=x0", *CHAIN],
    "v": ["diffusion.parametrization=v", *CHAIN],
    "v min_snr": ["diffusion.parametrization=v", "diffusion.weight=min_snr", *CHAIN],
    "eps edm weight": ["diffusion.parametrization=eps", "diffusion.weight=edm", "diffusion.draw=log_normal"],
    "flow": ["diffusion.parametrization=flow", "diffusion.draw=logit_normal"],
    "edm": ["diffusion.parametrization=edm", "diffusion.draw=log_normal"],
    "eps hybrid": ["diffusion.parametrization=eps", "diffusion.objective=hybrid", *CHAIN],
    "eps vlb": ["diffusion.parametrization=eps", "diffusion.objective=vlb", *CHAIN, "diffusion.draw=loss_aware"],
}


@pytest.fixture(scope="module")
def decoded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the digits lie once they are decoded."""
    return tmp_path_factory.mktemp("decoded")


@pytest.mark.parametrize("settings", WAYS.values(), ids=WAYS)
def test_a_way_to_train_makes_a_model_that_makes_images(
    settings: list[str], decoded: Path, own_folders: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("UNDIFFUSE_CACHE", str(decoded))
    monkeypatch.setattr(session, "PREVIEWS", 1)
    budget = ["--size", "8", "--images", "128", "--batch", "32", "--out", "runs/it"]
    main(["train", "--data", "digits", *budget, "--set", *SMALL, *settings])
    run = open_run(Path("runs/it"))
    lines = run.log_lines()
    assert [line["images"] for line in lines] == [32, 64, 96, 128]
    assert all(0 < line["loss"] < 1e6 for line in lines)
    assert lines[-1]["skipped_batches"] == 0
    # The last layer starts at 0: what it is for, an image or a variance, has been learned where it is not.
    weights = run.checkpoints()[0].tensors("network")["output.2.weight"]
    assert len(weights) == (2 if run.config.diffusion.learned_variance else 1)
    assert all(part.any() for part in weights)

    main(["sample", "it", "--sampler", "ancestral", "--steps", "5", "--count", "2", "--out", "images"])
    first, second = (np.asarray(Image.open(f"images/{seed:06d}.png")).astype(int) for seed in (0, 1))
    assert first.shape == second.shape == (8, 8)
    assert np.abs(first - second).max() > 1
