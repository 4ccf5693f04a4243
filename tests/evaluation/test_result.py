"""An evaluation's values, in Python, in a notebook and in files."""

import json
from pathlib import Path

import pytest
from helpers.features import context, image_set, random_pixels

from undiffuse.evaluation.evaluate import evaluate_images
from undiffuse.evaluation.references import References
from undiffuse.evaluation.result import Evaluation
from undiffuse.utils.errors import Skipped


@pytest.fixture
def evaluation() -> Evaluation:
    real = image_set(random_pixels(20, seed=0), "<b>real</b>")
    return evaluate_images("<i>title</i>", image_set(random_pixels(12, seed=1)), References((real,), None), context())


def test_a_value_is_found_by_name_and_split(evaluation: Evaluation) -> None:
    assert evaluation["FD-pixels"].value > 0
    assert evaluation["FD-pixels", "all"] == evaluation["FD-pixels"]
    assert evaluation["precision"].n_fake == 12


@pytest.mark.parametrize("name", ["FID", ("FD-pixels", "test")])
def test_a_missing_value_names_those_there_are(evaluation: Evaluation, name: str | tuple[str, str]) -> None:
    with pytest.raises(KeyError, match="there are FD-pixels, KD-pixels, precision"):
        evaluation[name]


def test_it_shows_itself_as_a_table(evaluation: Evaluation) -> None:
    assert "FD-pixels " in repr(evaluation)
    assert "12 samples against 20 of split all" in str(evaluation)
    table = evaluation._repr_html_()
    assert "<td>FD-pixels</td>" in table
    assert "<i>" not in table


def test_files_hold_the_same_and_nothing_is_written_unasked(evaluation: Evaluation) -> None:
    assert list(Path.cwd().glob("*.html")) == []
    report = evaluation.write("out")
    assert "&lt;b&gt;real" in report.read_text()
    written = json.loads((report.parent / "metrics.json").read_text())
    assert written == json.loads(json.dumps(evaluation.to_dict()))
    assert written["version"] == 2
    assert written["skipped"] == {"bits_per_dim": "Not computed: that takes a model."}


def test_the_report_is_there_before_bits_per_dim_is() -> None:
    real, fake = image_set(random_pixels(20, seed=0)), image_set(random_pixels(12, seed=1))

    def interrupted() -> dict:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        evaluate_images(
            "title", fake, References((real,), Skipped("Unknown.")), context(), bits=interrupted, folder=Path("out")
        )
    written = json.loads(Path("out/metrics.json").read_text())
    assert "Not computed yet" in written["skipped"]["bits_per_dim"]
    assert written["skipped"]["memorization"] == "Unknown."


def test_without_values_it_is_empty_and_writes_nothing() -> None:
    empty = Evaluation("title", ())
    assert (empty.metrics, empty.warnings, empty.to_dict()) == ([], [], {})
    assert not empty.write("out").exists()
    with pytest.raises(KeyError, match="there are none"):
        empty["FID"]
