"""Conditions: what is dropped, and what guidance finds to leave out."""

import torch
from torch import Tensor

from undiffuse.utils.conditions import (
    Condition,
    Conditions,
    as_conditions,
    dropped,
    is_told,
    joined,
    says_something,
    simplest,
    unconditional,
)

FIELDS = ("label", "numbers", "categories", "image")
TOLD = Conditions(
    label=torch.tensor([3, 1]),
    augmentation=torch.ones(2, 9),
    numbers=torch.tensor([[0.5, torch.nan], [1.0, 2.0]]),
    categories=torch.tensor([[0], [-1]]),
    image=torch.zeros(2, 1, 4, 4),
)


def field(condition: Condition, name: str) -> Tensor:
    """What is told, with 9 for NaN, which equals nothing."""
    tensor = getattr(as_conditions(condition), name)
    return tensor.nan_to_num(9) if tensor.is_floating_point() else tensor


def test_unconditional_leaves_the_augmentation_alone() -> None:
    missing = unconditional(TOLD)
    assert [field(missing, name).unique().tolist() for name in FIELDS] == [[-1], [9], [-1], [9]]
    assert torch.equal(field(missing, "augmentation"), field(TOLD, "augmentation"))
    assert torch.equal(field(unconditional(torch.tensor([4])), "label"), torch.tensor([-1]))
    assert unconditional(None) is None


def test_all_conditions_of_an_image_are_dropped_together() -> None:
    some = dropped(TOLD, torch.tensor([False, True]))
    for name in FIELDS:
        assert torch.equal(field(some, name)[0], field(TOLD, name)[0]), name
        assert torch.equal(field(some, name)[1], field(unconditional(TOLD), name)[1]), name
    assert torch.equal(field(some, "augmentation"), field(TOLD, "augmentation"))
    label = dropped(torch.tensor([4, 5]), torch.tensor([True, False]))
    assert torch.equal(field(label, "label"), torch.tensor([-1, 5]))


def test_what_guidance_can_leave_out() -> None:
    assert says_something(TOLD)
    assert not says_something(unconditional(TOLD))
    assert not says_something(torch.tensor([-1, -1]))
    assert says_something(torch.tensor([-1, 0]))
    assert not says_something(None)
    assert is_told(unconditional(TOLD))
    assert not is_told(Conditions(augmentation=TOLD.augmentation))
    assert not is_told(None)


def test_batches_are_joined_and_split() -> None:
    both = as_conditions(joined(TOLD, unconditional(TOLD)))
    first, second = both.split(2)
    for name in FIELDS:
        assert torch.equal(field(first, name), field(TOLD, name)), name
        assert torch.equal(field(second, name), field(unconditional(TOLD), name)), name
    assert torch.equal(field(joined(torch.tensor([1]), torch.tensor([2])), "label"), torch.tensor([1, 2]))


def test_a_label_alone_stays_a_label() -> None:
    assert simplest(Conditions(TOLD.label)) is TOLD.label
    assert simplest(Conditions()) is None
    assert simplest(TOLD) is TOLD
    assert torch.equal(field(as_conditions([1, 2]), "label"), torch.tensor([1, 2]))
