"""Runs that older versions wrote: they open, resume to the same weights, and their samples are recognized."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
from PIL import Image

from undiffuse.cli import main
from undiffuse.runs.run import open_run
from undiffuse.training import previews

OLD_RUNS = Path(__file__).parents[1] / "fixtures" / "old_runs"


@pytest.fixture(params=["continuous", "discrete"])
def old_run(request: pytest.FixtureRequest) -> Path:
    """A copy in runs/: opening and resuming may write to it."""
    folder = Path("runs") / request.param
    shutil.copytree(OLD_RUNS / request.param, folder)
    return folder


def expected(folder: Path) -> Path:
    return OLD_RUNS / f"{folder.name}-expected"


def flat(values: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    settings = {}
    for name, value in values.items():
        settings |= flat(value, f"{prefix}{name}.") if isinstance(value, dict) else {f"{prefix}{name}": value}
    return settings


def same_command(folder: Path) -> list[str]:
    """The command that would make this run: every setting by the name it has in the old config.json."""
    config = json.loads((folder / "config.json").read_text())
    by_option = ("network.size", "network.image_channels", "network.classes", "training.total_")
    settings = [
        f"{name}={json.dumps(value)}"
        for name, value in flat(config).items()
        if "." in name and not name.startswith(("data.", *by_option))
    ]
    options = ["--data", "digits", "--size", "8", "--seed", str(config["seed"]), "--images", "2000"]
    return ["train", *options, "--out", str(folder), "--set", *settings]


def test_old_settings_are_read_under_their_new_names() -> None:
    continuous, discrete = (open_run(OLD_RUNS / name).config for name in ("continuous", "discrete"))
    assert continuous.diffusion.sigma_sampler == "log_normal"
    assert (continuous.diffusion.sigma_mean, continuous.diffusion.sigma_std) == (-1.0, 1.1)
    assert continuous.optimizer.decay_fraction == 0.4
    assert continuous.sampling.sigmas == "log_snr"
    sampling = continuous.sampling
    assert (sampling.s_churn, sampling.s_tmin, sampling.s_tmax, sampling.s_noise) == (20.0, 0.1, 40.0, 1.01)
    assert discrete.diffusion.sigma_sampler == "loss_second_moment"
    assert discrete.diffusion.num_timesteps == 50
    assert discrete.sampling.sigmas == "discrete"


def test_old_checkpoint_parts_are_read_under_their_new_names(old_run: Path) -> None:
    checkpoint = open_run(old_run).last_good()
    assert checkpoint is not None
    assert checkpoint.images == 1000
    old_names = {"ema": "average", "network": "network", "optimizer": "optimizer"}
    if old_run.name == "discrete":
        old_names["sigma_sampler"] = "draws"
    digests = json.loads((checkpoint.folder / "checkpoint.json").read_text())["parts"]
    for name, old_name in old_names.items():
        stored = safetensors.torch.load_file(checkpoint.folder / f"{old_name}.safetensors")
        assert checkpoint.tensors(name).keys() == stored.keys()
        assert all(tensor.equal(stored[key]) for key, tensor in checkpoint.tensors(name).items())
        assert checkpoint.digest(name) == digests[old_name]


def test_an_old_run_resumes_to_the_recorded_weights_and_losses(
    old_run: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.setattr(previews, "PREVIEWS", 0)
    recorded = [json.loads(line) for line in (old_run / "log.jsonl").read_text().splitlines()]
    main(same_command(old_run))
    assert "Resuming at 1,000 images" in capsys.readouterr().out
    run = open_run(old_run)
    newest, *_ = run.checkpoints()
    assert newest.images == 2000
    ema = newest.tensors("ema")
    for name, tensor in safetensors.torch.load_file(expected(old_run) / "average.safetensors").items():
        # Other processors round differently.
        assert (ema[name] - tensor).norm() <= 1e-4 * tensor.norm() + 1e-6, name
    lines = run.log_lines()
    assert [line["images"] for line in lines] == [line["images"] for line in recorded]
    assert [line["loss"] for line in lines] == pytest.approx([line["loss"] for line in recorded], rel=1e-3)


def test_old_samples_are_recognized_and_made_again_the_same(old_run: Path, capsys: pytest.CaptureFixture) -> None:
    checkpoint = old_run / "checkpoints" / "2000"
    checkpoint.mkdir()
    index = json.loads((expected(old_run) / "checkpoint.json").read_text())
    index["parts"] = {"average": index["parts"]["average"]}  # All that was kept of it.
    (checkpoint / "checkpoint.json").write_text(json.dumps(index))
    shutil.copy(expected(old_run) / "average.safetensors", checkpoint)
    (samples,) = (old_run / "samples").iterdir()
    before = np.asarray(Image.open(samples / "000002.png")).astype(int)
    (samples / "000002.png").unlink()

    main(["sample", str(old_run), "--count", "4", "--out", str(samples)])
    assert "3 of 4 images are there already" in capsys.readouterr().out
    again = np.asarray(Image.open(samples / "000002.png")).astype(int)
    assert np.abs(again - before).max() <= 1  # Other processors round differently.
