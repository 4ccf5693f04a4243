"""The two scripts at the top: `python main.py` trains, `python test.py` evaluates the newest run."""

import runpy
import subprocess
import sys
from pathlib import Path

import pytest

TOP = Path(__file__).parents[2]


@pytest.mark.parametrize(("script", "does"), [("main.py", "undiffuse train"), ("test.py", "undiffuse evaluate")])
def test_a_script_starts(script: str, does: str) -> None:
    done = subprocess.run([sys.executable, TOP / script, "--help"], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert does in done.stdout


def test_main_trains_and_test_evaluates_the_newest_run(monkeypatch: pytest.MonkeyPatch) -> None:
    tiny = ["--size", "8", "--images", "200", "--set", "network.channels=8", "network.groups=4", "network.patch=1"]
    measure = ["--features", "pixels", "--count", "2", "--steps", "2"]
    for words in ([str(TOP / "main.py"), *tiny], [str(TOP / "test.py"), *measure]):
        monkeypatch.setattr(sys, "argv", words)
        runpy.run_path(words[0], run_name="__main__")  # In this process, which has loaded torch already.
    evaluation = Path("runs/digits-8x8/evaluation")
    assert len(list(evaluation.rglob("00000*.png"))) == 2
    assert (evaluation / "report.html").exists()
