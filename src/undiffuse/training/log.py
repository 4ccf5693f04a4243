"""The log of training: log.jsonl and TensorBoard's curves, without gaps or repetitions over restarts."""

import json
import os
from typing import Any

from torch.utils.tensorboard.writer import SummaryWriter

from undiffuse.runs.run import Run
from undiffuse.training.loop import TrainingState
from undiffuse.training.observers import Event, Observer
from undiffuse.utils.files import write_atomically

NOTHING_PENDING = {"batches": 0, "finite": 0, "loss": 0.0, "gradient_norm": 0.0}


class Log(Observer):
    """Writes one line every `log_batches` batches: means over the batches since the line before.

    `pending` is what is known of the next line. Kept in the checkpoint, it makes a line that spans a restart the same
    as without one.
    """

    key = "pending"

    def begin(self, run: Run, state: TrainingState) -> None:
        self.every, self.pending = run.config.training.log_batches, dict(NOTHING_PENDING)
        # A run that was killed may have logged steps that its last checkpoint does not have.
        kept = [json.dumps(line) + "\n" for line in run.log_lines() if line["images"] <= state.images]
        write_atomically(run.log_file, "".join(kept))
        self.file = open(run.log_file, "a", encoding="utf-8")  # noqa: SIM115
        self.curves = SummaryWriter(str(run.folder / "tensorboard"), purge_step=state.images + 1)

    def resume(self, saved: dict[str, Any]) -> None:
        self.pending = dict(saved)

    def step(self, event: Event) -> None:
        pending = self.pending
        pending["batches"] += 1
        if not event.skipped:
            pending["finite"] += 1
            pending["loss"] += event.loss
            pending["gradient_norm"] += event.gradient_norm
        if pending["batches"] == self.every:
            self._write(event)

    def _write(self, event: Event) -> None:
        pending, finite = self.pending, self.pending["finite"]
        line = {
            "images": event.images,
            "loss": pending["loss"] / finite if finite else None,
            "gradient_norm": pending["gradient_norm"] / finite if finite else None,
            "learning_rate": event.learning_rate,
            "skipped_batches": event.state.skipped,
            "seconds": round(event.seconds, 3),
        }
        self.file.write(json.dumps(line) + "\n")
        self.file.flush()
        for name in ("loss", "gradient_norm", "learning_rate", "skipped_batches"):
            if line[name] is not None:
                self.curves.add_scalar(name, line[name], event.images)
        self.pending = dict(NOTHING_PENDING)

    def checkpoint_state(self) -> dict[str, Any]:
        """Everything written so far reaches the disk before the checkpoint that builds on it."""
        self.file.flush()
        os.fsync(self.file.fileno())
        self.curves.flush()
        return self.pending

    def end(self) -> None:
        self.file.close()
        self.curves.close()
