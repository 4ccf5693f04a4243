"""Whole processes: killed, stopped, several at once. Slower than the rest: each has to load torch."""

import json
import random
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

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
    """Until the log has come to `images`."""
    deadline = time.monotonic() + 120
    while not any(line["images"] >= images for line in logged(folder)):
        assert process.poll() is None, process.stdout and process.stdout.read()
        assert time.monotonic() < deadline, "training does not get on"
        time.sleep(0.01)


def final_state(folder: Path, images: int) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in (folder / "checkpoints" / str(images)).glob("*.safetensors")}


def test_a_run_killed_five_times_equals_one_never_killed_to_the_bit() -> None:
    options = ("--images", "12800", "--checkpoint-images", "640")
    run(train_command(*options, "--out", "whole"))

    moments = random.Random(0)
    reached = 0
    for _ in range(5):
        process = start(train_command(*options, "--out", "killed"))
        wait_for(process, Path("killed"), reached + moments.randint(1, 20) * 64)
        time.sleep(moments.uniform(0, 0.05))
        process.kill()
        process.wait()
        reached = logged(Path("killed"))[-1]["images"]
        assert reached < 12800, "it was to be killed before its end"
    run(train_command(*options, "--out", "killed"))

    whole, killed = Path("whole"), Path("killed")
    assert final_state(whole, 12800).keys() == {"network.safetensors", "average.safetensors", "optimizer.safetensors"}
    assert final_state(whole, 12800) == final_state(killed, 12800)
    assert [(x["images"], x["loss"]) for x in logged(whole)] == [(x["images"], x["loss"]) for x in logged(killed)]
    assert not list(killed.rglob(".unfinished-*"))


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


@pytest.mark.skipif(sys.platform != "linux", reason="threads are listed in Linux's /proc")
def test_no_thread_of_the_group_outlives_it(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(
        "from pathlib import Path\n"
        "import torch\n"
        "from undiffuse.utils.world import init_distributed\n"
        "def work(processes):\n"
        "    network = world.wrap(torch.nn.Linear(4, 4))\n"
        "    network(torch.ones(2, 4)).sum().backward()\n"
        "    assert world.sum(1.0) == [2.0]\n"
        "    mine = torch.tensor([1.0, 2.0], dtype=torch.float64) + 10 * world.rank\n"
        "    assert world.gather(mine).tolist() == [1.0, 2.0, 11.0, 12.0]\n"
        "    assert threads(), 'the test looks for the wrong names'\n"
        "def threads():\n"
        "    names = [file.read_text() for file in Path('/proc/self/task').glob('*/comm')]\n"
        "    return [name for name in names if 'gloo' in name]\n"
        "with init_distributed() as world:\n"
        "    work(processes)\n"
        "assert not threads(), threads()\n"
    )
    run([*TORCHRUN, str(script)])


def test_two_processes_train_as_one_and_one_goes_on_where_two_stopped() -> None:
    # Both learn from all losses where to look: else they would soon draw other noise levels.
    learning = ("diffusion.draw=loss_aware", "diffusion.schedule=cosine", "diffusion.num_timesteps=8")
    together = [*TORCHRUN, "-m", "undiffuse", "train", *TINY]
    run([*train_command("--images", "2560", "--out", "one"), *learning])
    run([*together, *learning, "--images", "1280", "--out", "two"])
    assert "Resuming at 1,280 images" in run([*train_command("--images", "2560", "--out", "two"), *learning])
    expected, got = logged(Path("one")), logged(Path("two"))
    assert [line["images"] for line in got] == [line["images"] for line in expected]
    for line, other in zip(got, expected, strict=True):
        assert line["loss"] == pytest.approx(other["loss"], abs=1e-4)
    one, two = (open_run(Path(name)).checkpoints()[0].tensors("draws") for name in ("one", "two"))
    assert torch.equal(one["seen"], torch.full((8,), 10))
    assert torch.equal(two["seen"], one["seen"])
    torch.testing.assert_close(two["losses"], one["losses"], rtol=0, atol=1e-3)
