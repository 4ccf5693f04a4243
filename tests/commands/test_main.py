"""The two scripts at the top: `python main.py` trains, `python test.py` evaluates the newest run."""

import subprocess
import sys
from pathlib import Path

TOP = Path(__file__).parents[2]


def test_main_trains_and_test_evaluates_the_newest_run() -> None:
    tiny = ["--size", "8", "--images", "200", "--set", "network.channels=8", "network.groups=4", "network.patch=1"]
    measure = ["--features", "pixels", "--count", "2", "--steps", "2"]
    for words in ([str(TOP / "main.py"), *tiny], [str(TOP / "test.py"), *measure]):
        done = subprocess.run([sys.executable, *words], capture_output=True, text=True, timeout=120)
        assert done.returncode == 0, done.stderr
    evaluation = Path("runs/digits-8x8/evaluation")
    assert len(list(evaluation.rglob("00000*.png"))) == 2
    assert (evaluation / "report.html").exists()
