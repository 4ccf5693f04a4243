"""Training in whole processes: killed, stopped, several at once. Slower than the rest: each has to load torch."""

import json
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers import forking

from undiffuse.cli import main
from undiffuse.runs.run import open_run

TINY = (
    *("--data", "digits", "--size", "8", "--batch", "64", "--precision", "fp32"),
    *("--set", "network.channels=8", "network.groups=4", "network.patch=1", "optimizer.decay_fraction=0"),
)

TORCHRUN = (sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2")


def train_command(*options: str) -> list[str]:
    return [sys.executable, "-m", "undiffuse", "train", *options, *TINY]


def start(command: Sequence[str]) -> subprocess.Popen:
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def run(command: Sequence[str]) -> str:
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=240)
    assert done.returncode == 0, done.stdout
    return done.stdout


def logged(folder: Path) -> list[dict[str, Any]]:
    log = folder / "log.jsonl"
    return [json.loads(line) for line in log.read_text().splitlines() if line.endswith("}")] if log.exists() else []


def wait_for(process: subprocess.Popen, folder: Path, images: int) -> None:
    """Until the log has reached `images`."""
    deadline = time.monotonic() + 120
    while not any(line["images"] >= images for line in logged(folder)):
        assert process.poll() is None, process.stdout and process.stdout.read()
        assert time.monotonic() < deadline, "training makes no progress"
        time.sleep(0.01)


def final_state(folder: Path, images: int) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in (folder / "checkpoints" / str(images)).glob("*.safetensors")}


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_saves_and_exits_with_zero(number: signal.Signals) -> None:
    process = start(train_command("--images", "10M", "--out", "run"))
    wait_for(process, Path("run"), 640)
    process.send_signal(number)
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 0, output
    assert number.name in output
    assert "Saved" in output
    (saved,) = (Path("run") / "checkpoints").iterdir()
    assert int(saved.name) == logged(Path("run"))[-1]["images"]


def test_two_processes_under_torchrun_train_like_one_and_one_resumes_them(capsys: pytest.CaptureFixture) -> None:
    # The sigma sampler learns from the losses of both: otherwise they would soon choose other noise levels. And both
    # must have patches of one size in a step.
    learning = (
        *("diffusion.sigma_sampler=loss_second_moment", "diffusion.schedule=cosine", "diffusion.num_timesteps=8"),
        *("training.log_batches=2", "augmentation.patches=0.5"),
    )
    main(["train", *TINY, *learning, "--images", "1280", "--out", "one"])
    run([*TORCHRUN, "-m", "undiffuse", "train", *TINY, *learning, "--images", "640", "--out", "two"])
    capsys.readouterr()
    main(["train", *TINY, *learning, "--images", "1280", "--out", "two"])
    assert "Resuming at 640 images" in capsys.readouterr().out
    expected, got = logged(Path("one")), logged(Path("two"))
    assert [line["images"] for line in got] == [line["images"] for line in expected]
    for line, other in zip(got, expected, strict=True):
        assert line["loss"] == pytest.approx(other["loss"], abs=1e-4)
    one, two = (open_run(Path(name)).checkpoints()[0].tensors("sigma_sampler") for name in ("one", "two"))
    assert torch.equal(one["seen"], torch.full((8,), 10))
    assert torch.equal(two["seen"], one["seen"])
    torch.testing.assert_close(two["losses"], one["losses"], rtol=0, atol=1e-3)


WATCHED = """
import os
from pathlib import Path
import undiffuse

rank = os.environ["RANK"]

class Watcher(undiffuse.Observer):
    def begin(self, run, state):
        Path(f"begun-{rank}").touch()

    def step(self, event):
        with open(f"steps-{rank}", "a") as file:
            print(event.images, file=file)

    def end(self):
        Path(f"ended-{rank}").touch()

small = {"network.channels": 8, "network.groups": 4, "network.patch": 1}
run = undiffuse.train(size=8, images=256, batch=64, precision="fp32", out="run", set=small, observers=[Watcher()])
Path(f"returned-{rank}").write_text(str(run.last_good().images))
"""


def test_only_rank_0_has_observers_and_all_ranks_get_the_run() -> None:
    printed = forking.together(2, exec, WATCHED, {})
    assert not [line for line in "".join(printed).splitlines() if "recipe" in line], "the API is quiet by default"
    assert Path("steps-0").read_text().split() == ["64", "128", "192", "256"]
    left = {path.name for path in Path().iterdir() if path.name[-2:] in ("-0", "-1")}
    assert left == {"begun-0", "steps-0", "ended-0", "returned-0", "returned-1"}
    assert Path("returned-0").read_text() == Path("returned-1").read_text() == "256"


@pytest.mark.parametrize("count", [7, 3])
def test_two_processes_sample_like_one(count: int) -> None:
    """To the bit where each has a whole batch, as of 7 images; of 3 they have 2 and 1."""
    options = ["sample", "digits", "--count", str(count), "--steps", "4", "--batch", "2"]
    main([*options, "--out", "one"])
    forking.together(2, main, [*options, "--out", "two"])
    one, two = (sorted(Path(name).iterdir()) for name in ("one", "two"))
    assert [file.name for file in one] == [file.name for file in two]
    assert len(one) == count + 2, "the images, the grid, and samples.json"
    for ours, theirs in zip(one, two, strict=True):
        assert ours.read_bytes() == theirs.read_bytes()
