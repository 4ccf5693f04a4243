"""Known facts about real datasets are found, in bounded time and memory."""

import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from undiffuse.cli import main

pytestmark = pytest.mark.slow


def statistics(*options: str) -> dict[str, Any]:
    main(["explore", "--out", "out", *options])
    return json.loads(Path("out/statistics.json").read_text(encoding="utf-8"))


def test_decoded_flowers_are_explored_within_a_minute(real_data: Path) -> None:
    options = ("--data", "flowers102", "--data-root", str(real_data))
    statistics(*options)
    began = time.monotonic()
    found = statistics(*options)
    assert time.monotonic() - began < 60
    assert found["inventory"]["splits"] == {"train": 1020, "val": 1020, "test": 6149}
    classes = found["inventory"]["classes"]
    assert len(classes) == 102
    assert {(c["splits"]["train"], c["splits"]["val"]) for c in classes} == {(10, 10)}
    assert (min(c["images"] for c in classes), max(c["images"] for c in classes)) == (40, 258)
    assert found["balance"]["imbalance_ratio"] == pytest.approx(6.45)
    # Checked one by one: all exact pairs and nearly all near ones are the same photo.
    assert found["duplicates"]["redundant"] == 5
    assert len(found["duplicates"]["near_pairs"]) == pytest.approx(30, abs=2)  # Decoders differ by a level.
    assert found["duplicates"]["shared_with_train"] == {"val": 1, "test": 4}


def test_the_known_duplicates_of_cifar10_are_found(real_data: Path) -> None:
    found = statistics("--data", str(real_data / "cifar10"))
    assert found["inventory"]["splits"] == {"train": 50_000, "test": 10_000}
    assert {(c["splits"]["train"], c["splits"]["test"]) for c in found["inventory"]["classes"]} == {(5000, 1000)}
    # Barz & Denzler 2020 find 286 near duplicates of train in test by eye, including mirrored and cropped ones.
    assert found["duplicates"]["shared_with_train"] == {"test": 168}
    assert len(found["duplicates"]["near_pairs"]) == 738
    assert found["suggestion"]["epochs"] == pytest.approx(found["suggestion"]["total_images"] / 50_000)


def test_photos_have_their_own_sizes(real_data: Path) -> None:
    found = statistics("--data", str(real_data / "flower-photos"))
    assert found["inventory"]["images"] == 480
    assert len(found["inventory"]["sizes"]) > 100
    assert found["inventory"]["height"]["min"] >= 400
    assert 0.7 < found["framing"]["kept_mean"] < 0.8


EXPLORE = """
import sys
from pathlib import Path
from undiffuse.cli import main

main(["explore", "--data", sys.argv[1], "--size", "32", "--channels", "3", "--out", "out"])
peak = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
print("peak", peak.split()[1])
"""


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="this system does not report peak memory")
def test_memory_hardly_grows_with_the_number_of_images(real_data: Path, tmp_path: Path) -> None:
    few = tmp_path / "few"
    for folder in sorted((real_data / "cifar10" / "train").iterdir()):
        for file in sorted(folder.iterdir())[:100]:
            target = few / "train" / folder.name / file.name
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(file, target)
    peaks = []
    for data in (few, real_data / "cifar10"):
        command = [sys.executable, "-c", EXPLORE, str(data)]
        done = subprocess.run(command, capture_output=True, text=True, env=os.environ, check=True)
        peaks.append(int(done.stdout.split()[-1]))
    print(f"peak memory in KiB: {peaks}")
    assert peaks[1] - peaks[0] < 200 * 1024
