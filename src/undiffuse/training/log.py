"""What training leaves to read: log.jsonl and TensorBoard's curves, without gap or repetition over restarts."""

import json
import os
from typing import Any

from torch.utils.tensorboard.writer import SummaryWriter

from undiffuse.runs.run import Run
from undiffuse.training.loop import StepReport, TrainingState
from undiffuse.utils.files import write_atomically

NOTHING_PENDING = {"batches": 0, "finite": 0, "loss": 0.0, "gradient_norm": 0.0}


class TrainingLog:
    """Writes one line every `log_batches` batches: means over the batches since the last line.

    `pending` is the part of the next line that is known; kept in the checkpoint, it makes a line that spans a restart
    the same as without.
    """

    def __init__(self, run: Run, images: int, pending: dict[str, Any] | None = None):
        self.every = run.config.training.log_batches
        self.pending = pending or dict(NOTHING_PENDING)
        # A run that was killed may have logged steps that its last checkpoint does not have.
        kept = [json.dumps(line) + "\n" for line in run.log_lines() if line["images"] <= images]
        write_atomically(run.log, "".join(kept))
        self.file = open(run.log, "a", encoding="utf-8")  # noqa: SIM115
        self.curves = SummaryWriter(str(run.folder / "tensorboard"), purge_step=images + 1)

    def add(self, report: StepReport, state: TrainingState) -> None:
        pending = self.pending
        pending["batches"] += 1
        if not report.skipped:
            pending["finite"] += 1
            pending["loss"] += report.loss
            pending["gradient_norm"] += report.gradient_norm
        if pending["batches"] == self.every:
            self._write(report, state)

    def _write(self, report: StepReport, state: TrainingState) -> None:
        pending, finite = self.pending, self.pending["finite"]
        line = {
            "images": state.images,
            "loss": pending["loss"] / finite if finite else None,
            "gradient_norm": pending["gradient_norm"] / finite if finite else None,
            "learning_rate": report.learning_rate,
            "skipped_batches": state.skipped,
            "seconds": round(state.seconds, 3),
        }
        self.file.write(json.dumps(line) + "\n")
        self.file.flush()
        for name in ("loss", "gradient_norm", "learning_rate", "skipped_batches"):
            if line[name] is not None:
                self.curves.add_scalar(name, line[name], state.images)
        self.pending = dict(NOTHING_PENDING)

    def sync(self) -> None:
        """Everything written so far reaches the disk: before a checkpoint that builds on it."""
        self.file.flush()
        os.fsync(self.file.fileno())
        self.curves.flush()

    def close(self) -> None:
        self.file.close()
        self.curves.close()
