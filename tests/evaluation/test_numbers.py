"""Values as pages write them."""

from undiffuse.evaluation.numbers import flat


def test_nested_values_become_rows_in_the_readers_words() -> None:
    protocol = {"clip": False, "ema": True, "guidance_interval": None, "references": [{"images": 1, "split": "all"}]}
    assert flat(protocol) == [
        ("clip", "no"),
        ("ema", "yes"),
        ("guidance interval", "none"),
        ("references 1 images", 1),
        ("references 1 split", "all"),
    ]
