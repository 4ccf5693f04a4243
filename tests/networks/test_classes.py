"""Label embeddings fitted to other classes: what is kept is kept to the bit."""

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from undiffuse.networks.classes import ClassChange
from undiffuse.networks.network import NetworkConfig
from undiffuse.networks.unet import UNet, UNetConfig

X = torch.randn(1, 1, 8, 8, generator=torch.Generator().manual_seed(0))


def output(network: UNet, label: int) -> Tensor:
    with torch.no_grad():
        return network(X, torch.ones(1), torch.tensor([label]))


def adapted(network: UNet, change: ClassChange) -> UNet:
    config = replace(network.config, classes=len(change.after))
    fitted = UNet(config).eval()
    fitted.load_state_dict(config.adapted(network.state_dict(), change))
    return fitted


def test_each_row_is_the_one_of_its_name() -> None:
    table = torch.arange(8.0).view(4, 2)
    change = ClassChange(("rose", "tulip", "lily"), ("iris", "lily", "rose"))
    assert change.table(table).tolist() == [[6, 7], [4, 5], [0, 1], [6, 7]]
    assert str(change) == "2 classes kept, 1 new, 1 dropped"
    untrained = replace(change, trained_unlabeled=False)
    assert untrained.table(table).tolist() == [[2, 3], [4, 5], [0, 1], [6, 7]]


@pytest.mark.parametrize(
    ("after", "words"),
    [(("b", "a"), "2 classes kept"), (("b",), "1 class kept, 1 dropped"), ((), "0 classes kept, 2 dropped")],
)
def test_it_says_what_becomes_of_the_classes(after: tuple[str, ...], words: str) -> None:
    assert str(ClassChange(("a", "b"), after)) == words


def test_known_classes_and_no_label_predict_the_same_bits(small_network: UNetConfig, random_unet: Callable) -> None:
    network = random_unet(small_network)
    fitted = adapted(network, ClassChange(("a", "b", "c"), ("new", "c", "newer", "a")))
    for before, after in {2: 1, 0: 3, -1: -1}.items():
        assert torch.equal(output(network, before), output(fitted, after))
    # A new class starts as what is made without a label, which differs from every known class.
    assert torch.equal(output(fitted, 0), output(network, -1))
    assert torch.equal(output(fitted, 2), output(network, -1))
    assert not torch.equal(output(network, -1), output(network, 0))


def test_a_first_table_changes_nothing_until_it_is_trained(small_network: UNetConfig, random_unet: Callable) -> None:
    network = random_unet(replace(small_network, classes=0))
    fitted = adapted(network, ClassChange((), ("a", "b")))
    for label in (-1, 0, 1):
        assert torch.equal(output(fitted, label), output(network, -1))
    output_of_a = fitted(X, torch.ones(1), torch.tensor([0]))
    output_of_a.sum().backward()
    assert fitted.embed_label is not None
    gradient = fitted.embed_label.weight.grad
    assert gradient is not None
    assert gradient[0].abs().min() > 0
    assert not gradient[1:].any()


@pytest.mark.parametrize("trained_unlabeled", [True, False])
def test_without_classes_it_predicts_what_it_did_without_a_label(
    trained_unlabeled: bool, small_network: UNetConfig, random_unet: Callable
) -> None:
    network = random_unet(small_network)
    fitted = adapted(network, ClassChange(("a", "b", "c"), (), trained_unlabeled))
    if not trained_unlabeled:  # There the row means nothing: the mean of the classes takes its place.
        with torch.no_grad():
            network.embed_label.weight[-1] = network.embed_label.weight[:-1].mean(dim=0)
    torch.testing.assert_close(output(fitted, -1), output(network, -1), rtol=1e-5, atol=1e-6)


def test_a_network_of_ones_own_keeps_its_classes_or_says_how() -> None:
    weights = {"weight": torch.ones(2)}
    assert NetworkConfig().adapted(weights, ClassChange(("a",), ("a",))) == weights
    with pytest.raises(
        ValueError, match=r"NetworkConfig does not say how .*add a method adapted\(weights, classes, sizes, kept\)"
    ):
        NetworkConfig().adapted(weights, ClassChange(("a", "b"), ("b", "a")))
