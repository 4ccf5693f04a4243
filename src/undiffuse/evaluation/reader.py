"""A reader of digits: a classifier that never saw a sample says whether samples are what was asked for."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Int, UInt8
from sklearn.model_selection import train_test_split
from sklearn.svm import SVC

HELD_OUT_SHARE = 0.25


@dataclass(frozen=True)
class Reading:
    """What the reader makes of the samples, and how far it can be trusted."""

    samples: int
    read_as_asked: float
    """Share of samples that are read as the class they were asked to be."""
    held_out: int
    held_out_accuracy: float
    """Share of held-out real images that are read right."""
    confusion: Int[np.ndarray, "classes classes"]
    """Row: class asked for; column: class read; entry: samples."""


def read_samples(
    real: UInt8[np.ndarray, "n h w c"],
    real_labels: Int[np.ndarray, " n"],
    samples: UInt8[np.ndarray, "m h w c"],
    asked: Int[np.ndarray, " m"],
) -> Reading:
    """Trains a support vector machine on three quarters of the real images, tries it on the rest, reads the samples.

    Real images and samples come as the same uint8 pixels of the same size.
    """
    known, held_out, known_labels, held_out_labels = train_test_split(
        _vectors(real), real_labels, test_size=HELD_OUT_SHARE, random_state=0, stratify=real_labels
    )
    machine = SVC(C=10).fit(known, known_labels)
    read = machine.predict(_vectors(samples))
    classes = int(real_labels.max()) + 1
    confusion = np.zeros((classes, classes), dtype=np.int64)
    np.add.at(confusion, (asked, read), 1)
    return Reading(
        samples=len(samples),
        read_as_asked=float((read == asked).mean()),
        held_out=len(held_out),
        held_out_accuracy=float(machine.score(held_out, held_out_labels)),
        confusion=confusion,
    )


def _vectors(pixels: np.ndarray) -> np.ndarray:
    return pixels.reshape(len(pixels), -1) / 255
