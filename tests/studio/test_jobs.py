"""Training in a process of its own."""

import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from helpers.making import noise, save

import undiffuse as ud
from undiffuse.cli import main
from undiffuse.config import Config, with_settings
from undiffuse.runs.run import Run, open_run
from undiffuse.studio import jobs
from undiffuse.studio.jobs import Trainer, resume_words
from undiffuse.training import previews
from undiffuse.training.observers import Event

TINY = {"network.channels": 8, "network.groups": 4, "network.multipliers": "[1]", "network.patch": 1}
TINY |= {"network.attention_resolutions": "[]", "training.microbatch": 64}


@pytest.fixture
def trainer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Trainer:
    """Whose process is a small script in place of `undiffuse train`, which takes seconds to load."""
    script = tmp_path / "script.py"
    script.write_text(
        "import signal, sys, time\n"
        "words = sys.argv\n"
        "if '--fail' in words: sys.exit('undiffuse train: --size x is not a size.')\n"
        "print('training', flush=True)\n"
        "signal.signal(signal.SIGTERM, lambda *_: (print('Saved.', flush=True), sys.exit(0)))\n"
        "time.sleep(60)\n"
    )
    start = subprocess.Popen

    def run_script(words: list[str], **options) -> subprocess.Popen:
        assert words[:4] == [sys.executable, "-m", "undiffuse", "train"]
        return start([sys.executable, str(script), *words[4:]], **options)

    monkeypatch.setattr(jobs.subprocess, "Popen", run_script)
    return Trainer(tmp_path / "temporary")


def wait_for(condition, seconds: float = 20) -> None:
    until = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < until
        time.sleep(0.02)


def test_one_at_a_time_and_a_stop_saves(trainer: Trainer) -> None:
    job = trainer.start(["--data", "x.zip"], Path("runs/one"))
    wait_for(lambda: job.last_line == "training")
    with pytest.raises(ValueError, match="one is still training"):
        trainer.start(["--data", "y.zip"], Path("runs/two"))
    trainer.stop()
    job.process.wait(20)
    assert (job.last_line, job.failure, trainer.is_running) == ("Saved.", "", False)
    second = trainer.start(["--data", "y.zip"], Path("runs/two"))
    wait_for(lambda: second.last_line == "training")
    trainer.close()
    assert not second.is_running


def test_a_training_that_fails_says_its_sentence(trainer: Trainer) -> None:
    job = trainer.start(["--fail"], Path("runs/one"))
    job.process.wait(20)
    assert job.failure == "--size x is not a size."


def test_a_training_that_was_killed_is_no_silence(trainer: Trainer) -> None:
    job = trainer.start([], Path("runs/one"))
    job.process.send_signal(signal.SIGKILL)
    job.process.wait(20)
    assert "exit code -9" in job.failure or job.failure == "training"


def test_the_words_that_resume_give_the_same_config(preset_config) -> None:
    config: Config = with_settings(preset_config("small"), ["training.batch=7", "network.dropout=0.25"])
    words = resume_words(Run(Path("runs/x"), config))
    assert words[words.index("--size") + 1] == "32x32"
    assert words[words.index("--preset") + 1] == "small"
    settings = words[words.index("--set") + 1 :]
    assert with_settings(preset_config("small"), settings) == config


def test_a_run_that_started_from_another_is_resumed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(previews, "PREVIEWS", 0)
    for i in range(6):
        save(Path("photos") / "ab"[i % 2] / f"{i}.png", noise(i, 9, 9))
    options: dict[str, Any] = {"size": 8, "batch": 2, "set": TINY}
    ud.train("photos", images=8, out="runs/source", **options)

    def stop(event: Event) -> None:
        if event.images == 4:
            os.kill(os.getpid(), signal.SIGTERM)

    with pytest.raises(KeyboardInterrupt):
        ud.train("photos", from_run="source", images=12, batch=4, out="runs/mine", observers=[stop])
    run = open_run(Path("runs/mine"))
    assert run.config.origin is not None
    assert run.checkpoints()[0].images < 12
    main(["train", *resume_words(run), "--out", "runs/mine"])
    assert run.checkpoints()[0].images == 12
    assert open_run(run.folder).config == run.config


@pytest.mark.parametrize("condition", ["low-res:4", "gray", "light.csv"])
def test_a_run_that_is_told_of_more_is_resumed(monkeypatch: pytest.MonkeyPatch, condition: str) -> None:
    monkeypatch.setattr(previews, "PREVIEWS", 0)
    for i in range(4):
        save(Path("photos") / f"{i}.png", noise(i, 9, 9))
        save(Path("gray") / f"{i}.png", noise(i, 9, 9).convert("L"))
    Path("light.csv").write_text("file,light\n0.png,1\n1.png,2\n2.png,3\n3.png,\n")
    ud.train("photos", condition=condition, size=8, images=4, batch=2, out="runs/told", set=TINY)
    run = open_run(Path("runs/told"))
    main(["train", *resume_words(run), "--out", "runs/told"])
    assert open_run(run.folder).config == run.config


def test_a_run_whose_table_is_unknown_or_gone_is_a_sentence(told_config) -> None:
    config, gone = told_config("table"), Path("light.csv").absolute()
    with pytest.raises(ValueError, match=r"^x does not say where its table is: "):
        resume_words(Run(Path("runs/x"), config))
    moved = replace(config, attributes=replace(config.attributes, table=str(gone)))
    with pytest.raises(ValueError, match=f"^The table of x is gone: put {gone} back"):
        resume_words(Run(Path("runs/x"), moved))
