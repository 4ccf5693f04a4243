"""Non-leaky augmentation: what the network is told is what was done, and zeros mean that nothing was."""

import math

import pytest
import torch
from helpers.tensors import normal
from torch import Tensor

from undiffuse.data import nonleaky as module
from undiffuse.data.nonleaky import NUMBERS, SCALE, TRANSLATION, nonleaky

HEIGHT, WIDTH = 48, 64


def blob(x: float, y: float) -> Tensor:
    """A bright spot, `(1, 1, h, w)` in [-1, 1], so far from the center in pixels to the right and down."""
    rows = torch.arange(HEIGHT)[:, None] + 0.5 - HEIGHT / 2 - y
    columns = torch.arange(WIDTH)[None] + 0.5 - WIDTH / 2 - x
    return (2 * torch.exp(-(rows**2 + columns**2) / 18) - 1)[None, None]


def center(image: Tensor) -> tuple[float, float]:
    """Where the spot is."""
    weight = (image[0, 0] + 1).clamp(min=0.2) - 0.2
    rows, columns = torch.meshgrid(torch.arange(HEIGHT) + 0.5, torch.arange(WIDTH) + 0.5, indexing="ij")
    total = weight.sum()
    return float((weight * columns).sum() / total) - WIDTH / 2, float((weight * rows).sum() / total) - HEIGHT / 2


def changed(image: Tensor, monkeypatch: pytest.MonkeyPatch, **told: float) -> Tensor:
    names = ["x_flip", "y_flip", "scale", "cosine", "sine", "along", "across", "right", "down"]
    row = torch.tensor([told.get(name, 0.0) for name in names])
    monkeypatch.setattr(module, "_drawn", lambda *_: row)
    found, numbers = nonleaky(image, 1.0, 0, [0])
    assert numbers.tolist() == [row.tolist()]
    return found


TURN = 0.7


@pytest.mark.parametrize(
    ("told", "expected"),
    [
        ({"x_flip": 1.0}, (-9.0, 5.0)),
        ({"y_flip": 1.0}, (9.0, -5.0)),
        ({"x_flip": 1.0, "y_flip": 1.0}, (-9.0, -5.0)),
        ({"scale": 1.5}, (9 * 2 ** (1.5 * SCALE), 5 * 2 ** (1.5 * SCALE))),
        ({"scale": -1.0}, (9 * 2**-SCALE, 5 * 2**-SCALE)),
        (
            {"cosine": math.cos(TURN) - 1, "sine": math.sin(TURN)},
            (9 * math.cos(TURN) - 5 * math.sin(TURN), 9 * math.sin(TURN) + 5 * math.cos(TURN)),
        ),
        ({"along": 1.0}, (9 * 2**SCALE, 5 * 2**-SCALE)),
        ({"across": 1.0}, (9 * 2**-SCALE, 5 * 2**SCALE)),
        ({"right": 1.0}, (9 + TRANSLATION * WIDTH, 5.0)),
        ({"down": -0.8}, (9.0, 5 - 0.8 * TRANSLATION * HEIGHT)),
        ({"y_flip": 1.0, "right": 0.5}, (9 + 0.5 * TRANSLATION * WIDTH, -5.0)),
    ],
)
def test_what_is_told_is_what_was_done(
    told: dict[str, float], expected: tuple[float, float], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert center(changed(blob(9, 5), monkeypatch, **told)) == pytest.approx(expected, abs=0.25)


def test_an_image_that_is_only_mirrored_keeps_its_pixels(monkeypatch: pytest.MonkeyPatch) -> None:
    image = normal(1, 3, 8, 6).clamp(-1, 1)
    assert torch.equal(changed(image, monkeypatch), image)
    assert torch.equal(changed(image, monkeypatch, x_flip=1.0), image.flip(-1))


def test_an_image_is_changed_the_same_in_any_batch() -> None:
    images = normal(6, 3, 8, 8).clamp(-1, 1).float()
    together, told = nonleaky(images, 0.5, 3, range(10, 16))
    alone = [nonleaky(images[i : i + 1], 0.5, 3, [10 + i]) for i in range(6)]
    torch.testing.assert_close(together, torch.cat([image for image, _ in alone]))
    assert torch.equal(told, torch.cat([numbers for _, numbers in alone]))
    assert not torch.equal(told, nonleaky(images, 0.5, 4, range(10, 16))[1])


@pytest.mark.parametrize("probability", [0.0, 0.12, 1.0])
def test_each_change_happens_with_its_probability(probability: float) -> None:
    n = 2000
    told = nonleaky(torch.zeros(1, 1, 4, 4).expand(n, -1, -1, -1), probability, 0, range(n))[1]
    assert told.shape == (n, NUMBERS)
    happens = (told != 0).double().mean(dim=0)
    # Flips happen half of the times that they may.
    expected = torch.tensor([0.5, probability / 2, *(7 * [probability])], dtype=torch.float64)
    four_errors = 4 * (expected * (1 - expected) / n).sqrt()
    assert ((happens - expected).abs() <= four_errors).all()
