"""The table of metrics: classes, spreads, and metrics of the user's own."""

from dataclasses import replace

import numpy as np
import pytest
from helpers.features import context, image_set, random_pixels

from undiffuse.evaluation.feature_sets import FeatureSet
from undiffuse.evaluation.metrics import Measurement, Metric, MetricLike, Value, class_precision, with_own

BRIGHTNESS = {"cats": 40, "dogs": 200, "snow": 250}


def measured(real: FeatureSet, fake: FeatureSet, own: tuple[MetricLike, ...] = ()) -> Measurement:
    (measurement,) = replace(context(), metrics=with_own(own)).measure(fake.images, [real.images])
    return measurement


def classes(names: tuple[str, ...], look_like: tuple[str, ...], each: int = 10, seed: int = 0) -> FeatureSet:
    """`each` images of every class, with the brightness of the class in the same place of `look_like`."""
    rng = np.random.default_rng(seed)
    pixels = [rng.integers(-5, 5, (each, 4, 4, 3)) + BRIGHTNESS[name] for name in look_like]
    labels = np.repeat(np.arange(len(names)), each)
    images = image_set(np.concatenate(pixels).astype(np.uint8), labels=labels, class_names=names)
    return context().feature_set(images)


def test_classes_are_matched_by_name_whatever_their_number() -> None:
    real = classes(("cats", "dogs"), ("cats", "dogs"))
    fake = classes(("dogs", "snow", "cats"), ("dogs", "snow", "dogs"), seed=1)
    rows = {name: (n_real, n_fake, value) for name, n_real, n_fake, value in class_precision(measured(real, fake))}
    assert set(rows) == {"dogs", "cats"}
    assert rows["dogs"][:2] == (10, 10)
    assert rows["dogs"][2] > 0.5
    assert rows["cats"][2] == 0  # They look like dogs.


def test_subsets_that_are_the_whole_set_have_no_spread() -> None:
    cats = ("cats",)
    even = measured(classes(cats, cats), classes(cats, cats, seed=1))
    uneven = measured(classes(cats, cats, each=30), classes(cats, cats, seed=1))
    spreads = [found.spread for each in (even, uneven) if (found := each.find("KD-pixels"))]
    assert spreads[0] is None
    assert spreads[1] is not None
    assert spreads[1] > 0


def test_a_fraction_of_none_or_all_claims_no_certainty() -> None:
    found = measured(classes(("cats",), ("cats",)), classes(("cats",), ("snow",))).find("precision")
    assert found is not None
    assert (found.value, found.spread, found.spread_is) == (0, None, "")


def mean_distance(real: np.ndarray, fake: np.ndarray) -> float:
    return float(np.linalg.norm(real.mean(axis=0) - fake.mean(axis=0)))


def not_finite(real: np.ndarray, fake: np.ndarray) -> float:
    return float("nan")


def norm_ratio(real: FeatureSet, fake: FeatureSet) -> list[Value]:
    norms = [float(np.linalg.norm(each.features)) for each in (real, fake)]
    return [Value("norm ratio", norms[1] / norms[0], spread=0.1, spread_is="a guess", note="1 is best")]


def test_a_function_of_two_arrays_is_a_metric() -> None:
    real, fake = classes(("cats",), ("cats",)), classes(("cats",), ("dogs",), each=12)
    found = measured(real, fake, (mean_distance, Metric("norm ratio", norm_ratio)))
    distance, ratio = found.values[-2:]
    assert (distance.metric, distance.n_real, distance.n_fake) == ("mean_distance", 10, 12)
    assert distance.value == pytest.approx(np.linalg.norm(real.features.mean(axis=0) - fake.features.mean(axis=0)))
    assert (ratio.metric, ratio.spread, ratio.spread_is, ratio.note) == ("norm ratio", 0.1, "a guess", "1 is best")


def test_a_value_that_is_not_finite_is_left_out(notices: pytest.LogCaptureFixture) -> None:
    found = measured(classes(("cats",), ("cats",)), classes(("cats",), ("dogs",)), (not_finite,))
    assert found.find("not_finite") is None
    assert "not_finite is left out: it is nan for these images." in notices.messages


def test_a_metric_needs_a_name_of_its_own() -> None:
    with pytest.raises(ValueError, match="has no name"):
        with_own([lambda real, fake: 0.0])
    with pytest.raises(ValueError, match="Two metrics are called mean_distance"):
        with_own([mean_distance, mean_distance])


def test_too_few_images_leave_out_what_needs_more() -> None:
    real, fake = (context().feature_set(image_set(random_pixels(3, seed))) for seed in (0, 1))
    assert [value.metric for value in measured(real, fake).values] == ["FD-pixels", "KD-pixels"]


def test_errors_of_fractions_are_binomial_in_the_images_that_they_are_fractions_of() -> None:
    """Precision and AuthPct are fractions of the generated images, recall and coverage of the real ones."""
    rng = np.random.default_rng(0)
    real, fake = (
        context().feature_set(image_set(rng.normal(center, 20, (n, 4, 4, 3)).clip(0, 255).astype(np.uint8)))
        for center, n in ((100, 40), (104, 24))
    )
    found = {value.metric: value for value in measured(real, fake).values}
    fractions = {"precision": (1, 24), "recall": (1, 40), "coverage": (1, 40), "AuthPct": (100, 24)}
    for name, (unit, count) in fractions.items():
        p = found[name].value / unit
        assert 0 < p < 1, f"{name} of this test says nothing"
        assert found[name].spread == pytest.approx(unit * (p * (1 - p) / count) ** 0.5)
