"""evaluate, measure and compare in Python: what they take and what they give back."""

from pathlib import Path

import numpy as np
import pytest
import torch

import undiffuse as ud
from undiffuse.evaluation.metrics import Value
from undiffuse.features.networks import FeatureNetwork

TINY = {"network.channels": 8, "network.groups": 4, "network.patch": 1}


@pytest.fixture
def run() -> ud.Run:
    return ud.train("digits", size=8, images=128, out="runs/tiny", set=TINY)


def random_images(count: int, seed: int, side: int = 8) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (count, side, side, 3), np.uint8)


def test_arrays_tensors_images_and_files_give_the_same_values() -> None:
    real, fake = random_images(30, seed=0), random_images(20, seed=1)
    np.save("fake.npy", fake)
    kinds = [fake, torch.from_numpy(fake).permute(0, 3, 1, 2), ud.Images(fake), "fake.npy", Path("fake.npy")]
    values = {ud.measure(real, kind, features="pixels")["FD-pixels"].value for kind in kinds}
    assert len(values) == 1


def test_sequences_with_labels_have_precision_by_class() -> None:
    def labeled(seed: int) -> list[tuple[np.ndarray, str]]:
        return [(image, ("a", "b")[i % 2]) for i, image in enumerate(random_images(24, seed))]

    evaluation = ud.measure(labeled(0), labeled(1), features="pixels")
    assert [row["class"] for row in evaluation.to_dict()["precision_by_class"]] == ["a", "b"]


def test_measure_and_compare_write_only_where_told(run: ud.Run) -> None:
    before = sorted(Path.cwd().glob("*"))
    images = random_images(12, seed=0)
    ud.measure(images, images, features="pixels")
    ud.compare(run, steps=[2], count=6, features="pixels", real_count=40)
    assert sorted(Path.cwd().glob("*")) == before
    assert not Path("runs/comparison").exists()
    ud.measure(images, images, features="pixels", out="out")
    ud.compare(run, steps=[2], count=6, features="pixels", real_count=40, out="out")
    assert {path.name for path in Path("out").iterdir()} == {
        *("report.html", "metrics.json", "comparison.html", "comparison.json", "comparison.png")
    }


def test_a_model_a_run_a_folder_and_a_name_are_the_same(run: ud.Run) -> None:
    ways = [ud.load(run), run, run.folder, "tiny", None]
    evaluations = [ud.evaluate(way, features="pixels", count=8, steps=2) for way in ways]
    assert len({evaluation["FD-pixels"].value for evaluation in evaluations}) == 1
    assert Path("runs/tiny/evaluation/report.html").exists()


def test_a_models_own_weights_are_evaluated(run: ud.Run) -> None:
    evaluation = ud.evaluate(ud.load(run, weights="network"), features="pixels", count=8, steps=2)
    assert (evaluation.made_by["weights"], evaluation.made_by["ema"]) == ("network", False)


def test_memorization_is_checked_if_real_is_what_it_was_trained_on(run: ud.Run) -> None:
    known = ud.evaluate(run, real="digits", features="pixels", count=8, steps=2).to_dict()
    assert len(known["memorization"]) == 1
    other = ud.evaluate(run, real=random_images(30, seed=0), features="pixels", count=8, steps=2).to_dict()
    assert "is not known" in other["skipped"]["memorization"]


def test_features_and_metrics_of_ones_own_are_measured_and_written(run: ud.Run) -> None:
    network = FeatureNetwork("mean-color", lambda images: images.float().mean(dim=(2, 3)))

    def gap(real: np.ndarray, fake: np.ndarray) -> float:
        return float(abs(real.mean() - fake.mean()))

    size = ud.Metric("sizes", lambda real, fake: [Value("size ratio", len(fake) / len(real), note="exact")])
    evaluation = ud.evaluate(run, features=network, metrics=[gap, size], count=8, steps=2, real_count=40)
    assert evaluation["FD-mean-color"].value > 0
    assert evaluation["gap"].value > 0
    assert evaluation["size ratio"].value == 0.2
    names = [value["metric"] for value in evaluation.to_dict()["metrics"]]
    assert names[-2:] == ["gap", "size ratio"]
    report = Path("runs/tiny/evaluation/report.html").read_text()
    assert all(name in report for name in ("FD-mean-color", "gap", "size ratio"))
    comparison = ud.compare(run, features=network, metrics=[gap], count=8, steps=[2], real_count=40)
    assert comparison.rows[0]["gap"] > 0


def test_a_comparison_has_rows_and_a_best(run: ud.Run) -> None:
    comparison = ud.compare([run, "tiny"], samplers=["euler", "heun"], steps=[2], count=8, features="pixels")
    assert [(row["run"], row["sampler"], row["NFE"]) for row in comparison.rows] == [
        ("tiny", "euler", 4),
        ("tiny", "heun", 6),
    ]
    assert comparison.best.value("FD-pixels") == min(row["FD-pixels"] for row in comparison.rows)
    assert "tiny, heun, 2 steps: FD-pixels" in str(comparison)


def test_options_out_of_range_are_refused() -> None:
    images = random_images(4, seed=0)
    with pytest.raises(ValueError, match="--batch 0 is too small"):
        ud.measure(images, images, batch=0)
    with pytest.raises(ValueError, match="There are no features called vgg"):
        ud.measure(images, images, features="vgg")
    with pytest.raises(ValueError, match="--count many is not a count"):
        ud.evaluate(count="many")
    with pytest.raises(ValueError, match="give uint8 of shape"):
        ud.measure(images.astype(np.float32), images, features="pixels")
