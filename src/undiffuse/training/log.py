"""The log of training: log.jsonl and TensorBoard's curves, without gaps or repetitions over restarts."""

import json
import os
import time
from typing import Any

from torch.utils.tensorboard.writer import SummaryWriter

from undiffuse.report import style
from undiffuse.report.curves import held_out_curves
from undiffuse.runs.run import Run
from undiffuse.training.held_out import HeldOut
from undiffuse.training.observers import Event, Observer
from undiffuse.training.state import StepReport, TrainingState
from undiffuse.utils.files import write_atomically

DRAWING_FRACTION = 0.02
"""Of the time of training, at most about so much goes into drawing curves.png."""

NOTHING_PENDING = {"batches": 0, "finite": 0, "loss": 0.0, "gradient_norm": 0.0}


class Log(Observer):
    """Writes one line every `log_batches` batches: means over the batches since the line before.

    A line is also written whenever the loss on held-out images was measured; curves.png is drawn again then if enough
    time has passed, and at the end. `pending` is what is known of the next line: kept in the checkpoint, it makes a
    line that spans a restart the same as without one.
    """

    key = "pending"

    def __init__(self, held_out: HeldOut):
        self.held_out = held_out

    def begin(self, run: Run, state: TrainingState) -> None:
        self.run, self.every, self.pending = run, run.config.training.log_batches, dict(NOTHING_PENDING)
        self.unread: list[StepReport] = []
        self.undrawn, self.draw_from = False, 0.0
        # A run that was killed may have logged steps that its last checkpoint does not have.
        kept = [json.dumps(line) + "\n" for line in run.log_lines() if line["images"] <= state.images]
        write_atomically(run.log_file, "".join(kept))
        self.file = open(run.log_file, "a", encoding="utf-8")  # noqa: SIM115
        self.curves = SummaryWriter(str(run.folder / "tensorboard"), purge_step=state.images + 1)

    def resume(self, saved: dict[str, Any]) -> None:
        self.pending = dict(saved)

    def step(self, event: Event) -> None:
        self.unread.append(event.report)
        self._read(but=1)  # A GPU is not kept waiting for its last step.
        measured = self.held_out.take()
        if self.pending["batches"] + len(self.unread) == self.every or measured:
            self._read()
            self._write(event, measured)
        if self.undrawn and (event.ends or time.monotonic() >= self.draw_from):
            self._draw()

    def _read(self, but: int = 0) -> None:
        """Adds the steps that are not among the pending ones yet, or all but the last `but` of them."""
        pending = self.pending
        while len(self.unread) > but:
            report = self.unread.pop(0)
            pending["batches"] += 1
            if not report.skipped:
                pending["finite"] += 1
                pending["loss"] += report.loss
                pending["gradient_norm"] += report.gradient_norm

    def _write(self, event: Event, measured: dict[str, Any]) -> None:
        event.state.settle()
        pending, finite = self.pending, self.pending["finite"]
        line: dict[str, Any] = {
            "images": event.images,
            "loss": pending["loss"] / finite if finite else None,
            "gradient_norm": pending["gradient_norm"] / finite if finite else None,
            "learning_rate": event.learning_rate,
            "skipped_batches": event.state.skipped,
            "seconds": round(event.seconds, 3),
            **measured,
        }
        self.file.write(json.dumps(line) + "\n")
        self.file.flush()
        for name in ("loss", "held_out_loss", "gradient_norm", "learning_rate", "skipped_batches"):
            if line.get(name) is not None:
                self.curves.add_scalar(name, line[name], event.images)
        for sigma, loss in zip(line.get("sigmas", ()), line.get("held_out_losses", ()), strict=True):
            self.curves.add_scalar(f"held_out_loss at sigma/{sigma:g}", loss, event.images)
        self.undrawn = self.undrawn or bool(measured)
        self.pending = dict(NOTHING_PENDING)

    def _draw(self) -> None:
        began = time.monotonic()
        png = style.png(lambda: held_out_curves(self.run.log_lines()), style.LIGHT)
        write_atomically(self.run.folder / "curves.png", png)
        ended = time.monotonic()
        self.undrawn, self.draw_from = False, ended + (ended - began) / DRAWING_FRACTION

    def checkpoint_state(self) -> dict[str, Any]:
        """Everything written so far reaches the disk before the checkpoint that builds on it."""
        self._read()
        self.file.flush()
        os.fsync(self.file.fileno())
        self.curves.flush()
        return self.pending

    def end(self) -> None:
        self.file.close()
        self.curves.close()
