"""Attributes as users state them: in turn, so many times each, and only what the table had."""

from dataclasses import replace

import pytest
import torch

from undiffuse.config import Config
from undiffuse.data.columns import AttributesConfig, CategoryColumn, NumberColumn
from undiffuse.sampling.attributes import Attributes, conditions_of, find_attributes
from undiffuse.sampling.conditions import stated_for
from undiffuse.utils.conditions import Conditions

AGE = NumberColumn("age", mean=40.0, deviation=10.0, low=18.0, high=80.0)
HAIR = CategoryColumn("hair", ("black", "black*2", "blond", "red"))
KNOWN = AttributesConfig((AGE, HAIR), content="")


@pytest.mark.parametrize(
    ("attributes", "stated"),
    [
        (("age=30",), {"age": (30.0,)}),
        (("age=20*3, 30",), {"age": (20.0, 20.0, 20.0, 30.0)}),
        (("age=20*2,none", "hair=red"), {"age": (20.0, 20.0, None), "hair": ("red",)}),
        (("hair=black*2",), {"hair": ("black*2",)}),  # Which is a word of the table.
        (("hair=red*2,blond",), {"hair": ("red", "red", "blond")}),
        ({"age": 30, "hair": ["red", None]}, {"age": (30.0,), "hair": ("red", None)}),
        ((), {}),
    ],
)
def test_values_come_in_turn_and_so_many_times_each(attributes: Attributes, stated: dict[str, tuple]) -> None:
    assert find_attributes(KNOWN, attributes) == stated


@pytest.mark.parametrize(
    ("attributes", "message"),
    [
        (("age=20*0",), r"--attribute age=20\*0: write how often after each value, as in 20\*4,30, with at most"),
        (("age=20*x",), "write how often after each value"),
        (("age=20*60000,30*60000",), "write how often after each value"),
        (("age",), "--attribute age: write NAME=VALUE, each name once"),
        (("age=20", "age=30"), "each name once"),
        (("hair=blonde",), "did you mean blond"),
        (("height=170",), "this model was not told of that; choose age, hair"),
        ({"age": []}, "--attribute age: the list is empty"),
    ],
)
def test_what_cannot_be_stated_is_refused_in_a_sentence(attributes: Attributes, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        find_attributes(KNOWN, attributes)


def test_the_network_is_told_standardized_numbers_and_places_in_the_list_of_words(config: Config) -> None:
    stated = find_attributes(KNOWN, ("age=20*2,none", "hair=red,none"))
    told = conditions_of(replace(config, attributes=KNOWN), None, stated, [3, 4, 5, 6])
    assert isinstance(told, Conditions)
    assert told.numbers is not None
    assert told.categories is not None
    numbers = torch.tensor([[-2.0], [-2.0], [torch.nan], [-2.0]])
    torch.testing.assert_close(told.numbers, numbers, equal_nan=True)
    assert told.categories.tolist() == [[-1], [3], [-1], [3]]


def test_a_list_has_a_value_for_each_image_whatever_its_seed(config: Config) -> None:
    config, seeds = replace(config, attributes=KNOWN), range(7, 10)
    stated = stated_for(config, {"age": [20, 30, 40], "hair": "red,blond"}, seeds)
    assert [stated["age"][seed % 3] for seed in seeds] == [20, 30, 40]
    assert stated["hair"] == ("red", "blond"), "in turn by seed"
    with pytest.raises(ValueError, match="2 values of age for 3 images: give one, or one for each image"):
        stated_for(config, {"age": [20, 30]}, seeds)
