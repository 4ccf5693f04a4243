"""Training in a process of its own, so that the page stays alive: one at a time, stopped with everything saved."""

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from undiffuse.config import FROM_IMAGES, Config, flat
from undiffuse.data.columns import AttributesConfig
from undiffuse.runs.run import Run
from undiffuse.utils.text import size_text

LAST_BYTES = 20_000
"""Read of what a process said."""

STOP_SECONDS = 60
"""How long the studio waits at its end for training to save."""


@dataclass(frozen=True)
class Job:
    """A training that this studio started."""

    folder: Path
    """The run's, made by the process itself."""
    output: Path
    """What the process said."""
    process: subprocess.Popen[bytes]

    @property
    def name(self) -> str:
        return self.folder.name

    @property
    def is_running(self) -> bool:
        return self.process.poll() is None

    @property
    def last_line(self) -> str:
        """The newest line that it said."""
        if not self.output.exists():
            return ""
        with open(self.output, "rb") as file:
            file.seek(max(0, self.output.stat().st_size - LAST_BYTES))
            lines = file.read().decode("utf-8", "replace").splitlines()
        return next((line.strip() for line in reversed(lines) if line.strip()), "")

    @property
    def failure(self) -> str:
        """The sentence of a training that failed; "" for one that runs, finished or was stopped."""
        if self.is_running or self.process.returncode in (0, -signal.SIGTERM):
            return ""
        said = self.last_line.removeprefix("undiffuse train: ")
        return said or f"Training ended with exit code {self.process.returncode} and said nothing."


class Trainer:
    """Starts `undiffuse train`, for one run at a time.

    Example:
        trainer.start(["--data", "photos.zip", "--size", "32", "--minutes", "10"], Path("runs/photos"))
        trainer.stop()
    """

    def __init__(self, temporary: Path):
        self.temporary = temporary
        self.job: Job | None = None
        self._one_at_a_time = threading.Lock()

    @property
    def is_running(self) -> bool:
        """Whether a training runs now."""
        return self.job is not None and self.job.is_running

    def start(self, words: Sequence[str], folder: Path) -> Job:
        """Starts training with these words of the command line, into `folder`.

        Raises:
            ValueError: another training is still running.
        """
        with self._one_at_a_time:
            if self.job is not None and self.job.is_running:
                raise ValueError(f"{self.job.name} is still training: stop it first, or wait until it is done.")
            self.temporary.mkdir(parents=True, exist_ok=True)
            output = self.temporary / "training.txt"
            with open(output, "wb") as file:
                # A session of its own: Ctrl-C in the terminal reaches the studio alone, which then stops it once.
                process = subprocess.Popen(
                    [sys.executable, "-m", "undiffuse", "train", *words, "--out", str(folder)],
                    stdout=file,
                    stderr=subprocess.STDOUT,
                    stdin=subprocess.DEVNULL,
                    start_new_session=True,
                    env={**os.environ, "PYTHONUNBUFFERED": "1", "COLUMNS": "200"},
                )
            self.job = Job(folder, output, process)
            return self.job

    def stop(self) -> None:
        """Asks the running training to save and end."""
        if self.is_running and self.job is not None:
            self.job.process.terminate()

    def close(self) -> None:
        """Stops it and waits until it has saved."""
        if self.job is None or not self.job.is_running:
            return
        self.stop()
        try:
            self.job.process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self.job.process.kill()


def resume_words(run: Run) -> list[str]:
    """The words of the command line that resume a run, whoever started it.

    Raises:
        ValueError: it cannot be resumed from here.
    """
    config: Config = run.config
    if not config.data_content:
        raise ValueError(f"{run.name} was imported, without the images that training would need.")
    if config.attributes is not None:
        _check_table(run.name, config.attributes)
    data = config.data
    words = ["--data", data.data, "--split", data.split, "--size", size_text(config.network.size), "--fit", data.fit]
    words += ["--channels", str(config.network.image_channels), "--seed", str(config.seed)]
    # What was begun from another run has that run's preset.
    words += ["--preset", config.preset] if config.origin is None else ["--from", config.origin.run]
    words += [] if data.data_root is None else ["--data-root", data.data_root]
    words += [] if config.class_names else ["--unconditional"]
    words += [] if config.condition is None else ["--condition", config.condition]
    groups = ("network", "diffusion", "augmentation", "optimizer", "training", "sampling")
    settings = {name: value for name, value in flat(config).items() if name.partition(".")[0] in groups}
    return [
        *words,
        "--set",
        *(f"{name}={json.dumps(value)}" for name, value in settings.items() if name not in FROM_IMAGES),
    ]


def _check_table(name: str, attributes: AttributesConfig) -> None:
    """Raises ValueError where a run's table is not known, or gone."""
    if attributes.table is None:
        raise ValueError(f"{name} does not say where its table is: resume it once with undiffuse train --condition.")
    if not Path(attributes.table).exists():
        raise ValueError(f"The table of {name} is gone: put {attributes.table} back, and resume it then.")
