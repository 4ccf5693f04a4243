"""A classifier of digits that never saw a sample tells whether the samples are what they should be."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Int, UInt8
from sklearn.model_selection import train_test_split
from sklearn.svm import SVC

HELD_OUT_FRACTION = 0.25


@dataclass(frozen=True)
class Reading:
    """What the classifier makes of the samples, and how far it can be trusted."""

    samples: int
    correct: float
    """Fraction of the samples that are read as the class they were conditioned on."""
    held_out: int
    held_out_accuracy: float
    """Fraction of held-out real images that are read correctly."""
    confusion: Int[np.ndarray, "classes classes"]
    """Row: class conditioned on; column: class read; entry: samples."""


def read_samples(
    real: UInt8[np.ndarray, "n h w c"],
    real_labels: Int[np.ndarray, " n"],
    samples: UInt8[np.ndarray, "m h w c"],
    sample_labels: Int[np.ndarray, " m"],
) -> Reading:
    """Trains a support vector machine on three quarters of the real images, tests it on the rest, reads the samples.

    Real images and samples are uint8 pixels of the same size.
    """
    train, held_out, train_labels, held_out_labels = train_test_split(
        _vectors(real), real_labels, test_size=HELD_OUT_FRACTION, random_state=0, stratify=real_labels
    )
    machine = SVC(C=10).fit(train, train_labels)
    read = machine.predict(_vectors(samples))
    classes = int(real_labels.max()) + 1
    confusion = np.zeros((classes, classes), dtype=np.int64)
    np.add.at(confusion, (sample_labels, read), 1)
    return Reading(
        samples=len(samples),
        correct=float((read == sample_labels).mean()),
        held_out=len(held_out),
        held_out_accuracy=float(machine.score(held_out, held_out_labels)),
        confusion=confusion,
    )


def _vectors(pixels: np.ndarray) -> np.ndarray:
    return pixels.reshape(len(pixels), -1) / 255
