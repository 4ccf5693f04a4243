"""Conditions besides the label: what is missing adds nothing, and what comes or goes changes no prediction."""

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from undiffuse.networks.classes import ClassChange
from undiffuse.networks.conditions import NONE_KEPT, KeptColumns
from undiffuse.networks.unet import UNet, UNetConfig
from undiffuse.utils.conditions import NO_MORE, Conditions, ConditionSizes, coordinates, unconditional

SIZES = ConditionSizes(numbers=2, categories=(3, 2), image_channels=3)
GENERATOR = torch.Generator().manual_seed(0)
X = torch.randn(4, 1, 8, 8, generator=GENERATOR)
C_NOISE, LABEL = torch.tensor([0.1, 0.8, 0.3, 0.5]), torch.tensor([0, 2, -1, 1])
NUMBERS = torch.randn(4, 2, generator=GENERATOR)
CATEGORIES = torch.tensor([[0, 1], [2, 0], [1, 1], [2, 1]])
IMAGE = torch.rand(4, 3, 8, 8, generator=GENERATOR) * 2 - 1
TOLD = Conditions(LABEL, numbers=NUMBERS, categories=CATEGORIES, image=IMAGE)
SAME = ClassChange(("a", "b", "c"), ("a", "b", "c"))


@pytest.fixture
def told_network(small_network: UNetConfig, randomized: Callable[[nn.Module], nn.Module]) -> Callable[..., UNet]:
    """A network that takes conditions of these sizes, none of whose parameters is all zero."""

    def make(sizes: ConditionSizes = SIZES, **changes: int) -> UNet:
        torch.manual_seed(0)
        network = UNet(replace(small_network, **changes), sizes=sizes)
        randomized(network)
        return network.eval()

    return make


def predicted(network: UNet, told: Tensor | Conditions | None) -> Tensor:
    with torch.no_grad():
        return network(X, C_NOISE, told)


def fitted(network: UNet, sizes: ConditionSizes, kept: KeptColumns = NONE_KEPT) -> UNet:
    weights = network.config.adapted(network.state_dict(), SAME, sizes, kept)
    other = UNet(network.config, sizes=sizes).eval()
    other.load_state_dict(weights)
    return other


@pytest.mark.parametrize("patch", [1, 2])
def test_each_condition_changes_the_prediction(patch: int, told_network: Callable[..., UNet]) -> None:
    network = told_network(patch=patch)
    everything = predicted(network, TOLD)
    for told in (
        TOLD._replace(numbers=NUMBERS[:, [1, 0]]),
        TOLD._replace(numbers=None),
        TOLD._replace(categories=(CATEGORIES + 1) % 2),
        TOLD._replace(categories=None),
        TOLD._replace(image=IMAGE.flip(3)),
        TOLD._replace(image=None),
    ):
        assert (predicted(network, told) - everything).abs().max() > 1e-4


def test_all_missing_is_not_being_told(told_network: Callable[..., UNet]) -> None:
    network = told_network()
    missing = unconditional(TOLD)
    assert isinstance(missing, Conditions)
    assert torch.equal(predicted(network, missing), predicted(network, torch.full((4,), -1)))
    assert torch.equal(predicted(network, missing), predicted(network, None))


def test_a_missing_value_is_not_the_mean_nor_a_missing_image_gray(told_network: Callable[..., UNet]) -> None:
    network = told_network()
    nothing = predicted(network, Conditions(LABEL))
    for told in (
        Conditions(LABEL, numbers=torch.zeros(4, 2)),
        Conditions(LABEL, categories=torch.zeros(4, 2, dtype=torch.long)),
        Conditions(LABEL, image=torch.zeros(4, 3, 8, 8)),
    ):
        assert (predicted(network, told) - nothing).abs().max() > 1e-4
    half = NUMBERS.clone()
    half[:, 1] = torch.nan
    other = half.clone()
    other[:, 0] += 1
    assert (predicted(network, Conditions(numbers=half)) - predicted(network, Conditions(numbers=other))).any()


def test_new_conditions_change_nothing_until_they_are_trained(
    small_network: UNetConfig, random_unet: Callable[..., UNet]
) -> None:
    network = random_unet(small_network)
    told = fitted(network, SIZES)
    assert torch.equal(predicted(told, TOLD), predicted(network, LABEL))
    told(X, C_NOISE, TOLD).square().sum().backward()
    learning = {name for name, p in told.named_parameters() if p.grad is not None and p.grad.any()}
    assert learning >= {"embed_numbers.last.weight", "embed_categories.table.weight", "input_image.conv.weight"}
    # Nor is a network trained from scratch told anything at first, but the label.
    fresh = UNet(small_network, sizes=SIZES)
    new = {name: p for name, p in fresh.named_parameters() if name.startswith(("embed_n", "embed_c", "input_image"))}
    assert [name for name, p in new.items() if p.any()] == ["embed_numbers.first.weight"]


@pytest.mark.parametrize("patch", [1, 2])
def test_coordinates_come_without_effect_and_stay(
    patch: int, small_network: UNetConfig, random_unet: Callable[..., UNet]
) -> None:
    network = random_unet(replace(small_network, patch=patch))
    sizes = ConditionSizes(coordinates=True)
    told = Conditions(LABEL, coordinates=coordinates(8, 8).expand(4, -1, -1, -1))
    after = fitted(network, sizes)
    assert torch.equal(predicted(after, told), predicted(network, LABEL))
    assert after.input_coordinates is not None
    nn.init.normal_(after.input_coordinates.conv.weight)
    assert torch.equal(predicted(fitted(after, sizes), told), predicted(after, told))
    with pytest.raises(ValueError, match="trained on patches and need the coordinates of pixels"):
        fitted(after, NO_MORE)


def test_conditions_go_as_if_they_were_missing(told_network: Callable[..., UNet]) -> None:
    network = told_network()
    assert torch.equal(predicted(fitted(network, NO_MORE), LABEL), predicted(network, Conditions(LABEL)))


def test_columns_that_stay_predict_what_they_did(told_network: Callable[..., UNet]) -> None:
    """The numbers change places with a new one between them; one category goes, the other has a new value first."""
    network = told_network()
    sizes = SIZES._replace(numbers=3, categories=(4,))
    after = fitted(network, sizes, KeptColumns((1, -1, 0), (-1, 0, 2, 1)))
    numbers = torch.stack([NUMBERS[:, 1], torch.ones(4), NUMBERS[:, 0]], dim=1)
    place = torch.tensor([1, 3, 2])  # Of values 0, 1, 2 among the new ones.
    told = TOLD._replace(numbers=numbers, categories=place[CATEGORIES[:, :1]])
    before = CATEGORIES.clone()
    before[:, 1] = -1
    torch.testing.assert_close(predicted(after, told), predicted(network, TOLD._replace(categories=before)))
    new = torch.zeros(4, 1, dtype=torch.long)
    nothing = TOLD._replace(categories=None)
    torch.testing.assert_close(predicted(after, told._replace(categories=new)), predicted(network, nothing))


def test_another_kind_of_image_is_as_if_there_had_been_none(told_network: Callable[..., UNet]) -> None:
    network = told_network()
    after = fitted(network, SIZES, KeptColumns((0, 1), tuple(range(sum(SIZES.categories))), image=False))
    assert torch.equal(predicted(after, TOLD), predicted(network, TOLD._replace(image=None)))


def test_adamw_trains_all_of_them(told_network: Callable[..., UNet]) -> None:
    network = told_network()
    edges = {id(parameter) for parameter in network.edge_parameters()}
    ours = {n for n, p in network.named_parameters() if n.startswith(("embed_n", "embed_c", "input_image"))}
    assert len(ours) == 4
    assert ours == {name for name, p in network.named_parameters() if name in ours and id(p) in edges}
