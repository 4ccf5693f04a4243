"""What held-out losses say: whether more training would help, and whether the model memorizes."""

import math
from dataclasses import dataclass
from typing import Any

from jaxtyping import Float64
from torch import Tensor

CLEAR = 2.0
"""A change counts from this many standard errors."""

MEMORIZING = 0.05
"""From this relative change on, what training images have gained on held-out ones counts as memorization."""


@dataclass(frozen=True)
class Change:
    """A relative change of a loss, or the difference of two."""

    value: float
    """-0.05: 5% less."""
    standard_error: float

    @property
    def is_clear(self) -> bool:
        return abs(self.value) > CLEAR * self.standard_error

    def __str__(self) -> str:
        return f"{abs(self.value):.1%} (± {self.standard_error:.1%})"


Losses = Float64[Tensor, " n"]
"""One for each image."""


def change(before: Losses, now: Losses) -> Change:
    """How the loss of the same images changed. Image by image, since some are much harder than others."""
    ratios = (now / before).log()
    return Change(float(ratios.mean()), float(ratios.std()) / math.sqrt(len(ratios)))


def memorization_gap(before: tuple[Losses, Losses], now: tuple[Losses, Losses]) -> Change:
    """How much further the loss of training images has fallen than that of held-out ones; each pair is (held out,
    training).
    """
    held_out, training = (change(*pair) for pair in zip(before, now, strict=True))
    return Change(held_out.value - training.value, math.hypot(held_out.standard_error, training.standard_error))


def finding(line: dict[str, Any]) -> str:
    """A sentence or two about the last measurement in the log; "" where it is too early for one."""
    if "held_out_change" not in line:
        return ""
    recent, gap = Change(*line["held_out_change"]), Change(*line["memorization_gap"])
    loss, memorizes = line["held_out_loss"], gap.is_clear and gap.value > MEMORIZING
    told = f"Loss on images held out from training: {loss:.4f}, "
    if recent.is_clear and recent.value > 0:
        told += f"and it rose by {recent} at the end: more training makes it worse."
    elif recent.is_clear:
        told += f"still falling, by {recent} at the end: a larger budget would help."
    else:
        told += f"no longer changing clearly, by {recent} at the end: a larger budget alone would help little."
    if memorizes:
        told += (
            f" The loss on training images has fallen {gap} further than on those: the model has begun to memorize. "
            "More images, a smaller network or augmentation (--set augmentation.flip=true where mirrored images are as "
            "good) help; more training does not."
        )
    else:
        told += f" Training images have not clearly gained more than {MEMORIZING:.0%} on them: no sign of memorization."
    return told
