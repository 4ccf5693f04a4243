"""All figures of a comparison: what they say of classes, and of spreads that are none."""

import numpy as np
import torch

from undiffuse.evaluation.feature_sets import FeatureSet
from undiffuse.evaluation.metrics import class_precision, compare
from undiffuse.features.cache import Share, features_of
from undiffuse.features.image_sets import ImageSet
from undiffuse.features.networks import pixels_net

net = pixels_net()
BRIGHTNESS = {"cats": 40, "dogs": 200, "snow": 250}


def side(name: str, classes: tuple[str, ...], drawn_as: tuple[str, ...], each: int = 10) -> FeatureSet:
    """`each` images a class, of the brightness of the class in the same place of `drawn_as`."""
    rng = np.random.default_rng(len(name))
    pixels = np.concatenate([rng.integers(-5, 5, (each, 4, 4, 3)) + BRIGHTNESS[c] for c in drawn_as]).astype(np.uint8)
    labels = np.repeat(np.arange(len(classes)), each)
    n = len(pixels)
    images = ImageSet(name, "all", name, (4, 4), "none", n, labels, classes, lambda i: pixels[np.asarray(i)])
    return FeatureSet(images, features_of(pixels_net(), images, 64, Share()), torch.device("cpu"))


def test_a_class_is_the_one_of_the_same_name_whatever_its_number() -> None:
    real = side("real", ("cats", "dogs"), ("cats", "dogs"))
    fake = side("fakes", ("dogs", "snow", "cats"), ("dogs", "snow", "dogs"))
    rows = {name: (n_real, n_fake, value) for name, n_real, n_fake, value in class_precision(compare(net, real, fake))}
    assert set(rows) == {"dogs", "cats"}
    assert rows["dogs"][:2] == (10, 10)
    assert rows["dogs"][2] > 0.5
    assert rows["cats"][2] == 0  # They were drawn as dogs.


def test_subsets_that_are_the_whole_have_no_spread() -> None:
    even = compare(net, side("real", ("cats",), ("cats",)), side("fakes", ("cats",), ("cats",)))
    uneven = compare(net, side("many", ("cats",), ("cats",), each=30), side("fakes", ("cats",), ("cats",)))
    spreads = [next(f.spread for f in found.values if f.metric == "KD-pixels") for found in (even, uneven)]
    assert spreads[0] is None
    assert spreads[1] is not None
    assert spreads[1] > 0


def test_shares_of_none_or_all_claim_no_certainty() -> None:
    real = side("real", ("cats",), ("cats",))
    found = {figure.metric: figure for figure in compare(net, real, side("fakes", ("cats",), ("snow",))).values}
    assert found["precision"].value == 0
    assert found["precision"].spread is None
    assert found["precision"].spread_is == ""
