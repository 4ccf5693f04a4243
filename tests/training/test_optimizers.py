"""Muon against the singular value decomposition and its own steps by hand, and state that survives a restart."""

from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from threading import Barrier

import pytest
import safetensors.torch
import torch
from helpers.tensors import normal
from torch import Tensor, nn
from torch.optim import AdamW, Optimizer

from undiffuse.config import OptimizerConfig
from undiffuse.networks.unet import UNet, UNetConfig
from undiffuse.training import optimizers
from undiffuse.training.optimizers import (
    Muon,
    _divided,
    _rounds,
    build_optimizers,
    learning_rate_factor,
    load_optimizer_tensors,
    optimizer_tensors,
    orthogonalized,
    set_learning_rate,
    step_unless,
)
from undiffuse.utils.world import World


def by_singular_values(matrix: Tensor) -> Tensor:
    """What five of Jordan et al.'s quintic steps do to a matrix: they keep its singular vectors."""
    U, S, Vh = torch.linalg.svd(matrix, full_matrices=False)
    s = S / S.square().sum().sqrt()
    for _ in range(5):
        s = 3.4445 * s - 4.7750 * s**3 + 2.0315 * s**5
    return U @ torch.diag(s) @ Vh


@pytest.mark.parametrize("shape", [(12, 12), (12, 40), (40, 12), (1, 9)])
def test_orthogonalizing_evens_out_the_singular_values(shape: tuple[int, int]) -> None:
    matrices = torch.stack([normal(*shape, seed=seed) for seed in range(4)])
    result = orthogonalized(matrices)
    torch.testing.assert_close(result, torch.stack([by_singular_values(m) for m in matrices]), rtol=1e-6, atol=1e-6)


def test_most_singular_values_end_between_0_68_and_1_21() -> None:
    U, V = torch.linalg.qr(normal(64, 64)).Q, torch.linalg.qr(normal(64, 64, seed=1)).Q
    S = torch.logspace(0, -2.5, 64, dtype=torch.float64)
    S = S[S / S.norm() > 0.002]
    U, V = U[:, : len(S)], V[:, : len(S)]
    result = orthogonalized((U @ torch.diag(S) @ V.mT)[None])[0]
    # The singular spaces are kept: in their bases the result is diagonal.
    evened = U.mT @ result @ V
    torch.testing.assert_close(evened, torch.diag(evened.diag()), rtol=0, atol=1e-9)
    assert evened.diag().min() > 0.68
    assert evened.diag().max() < 1.21


@pytest.mark.parametrize("scale", [1e-4, 1e6])
def test_orthogonalizing_does_not_depend_on_the_gradients_size(scale: float) -> None:
    matrix = normal(1, 8, 20)
    torch.testing.assert_close(orthogonalized(scale * matrix), orthogonalized(matrix), rtol=1e-2, atol=0)


@dataclass(frozen=True)
class Threads(World):
    """Processes played by threads: what each gathers is put down for the others to pick up."""

    barrier_of_all: Barrier = field(default_factory=lambda: Barrier(1))
    put_down: dict[int, Tensor] = field(default_factory=dict)

    def gather(self, tensor: Tensor) -> Tensor:
        self.put_down[self.rank] = tensor
        self.barrier_of_all.wait()
        everything = torch.cat([self.put_down[rank] for rank in range(self.size)])
        self.barrier_of_all.wait()
        return everything


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_processes_that_share_the_matrices_take_the_same_step_as_one(dtype: torch.dtype) -> None:
    shapes = [(6, 15), (15, 6), (6, 15), (4, 3, 3, 3), (40, 40)]

    def steps(world: World) -> list[Tensor]:
        weights = [nn.Parameter(normal(*shape, seed=i).float()) for i, shape in enumerate(shapes)]
        muon = Muon(weights, lr=0.1, dtype=dtype, world=world)
        for step in range(2):
            for i, weight in enumerate(weights):
                weight.grad = normal(*weight.shape, seed=10 * step + i).float()
            muon.step()
        return [weight.detach() for weight in weights]

    alone, barrier, put_down = steps(World.alone(torch.device("cpu"))), Barrier(3), {}
    worlds = [Threads(r, 3, torch.device("cpu"), barrier_of_all=barrier, put_down=put_down) for r in range(3)]
    with ThreadPoolExecutor(3) as pool:
        together = list(pool.map(steps, worlds))
    for weights in together:
        for one, many in zip(alone, weights, strict=True):
            # A matrix in another batch may be multiplied in another order.
            torch.testing.assert_close(many, one, rtol=0, atol=1e-6 if dtype == torch.float32 else 4e-3)
    assert all(torch.equal(a, b) for weights in together for a, b in zip(weights, together[0], strict=True))


def test_the_costliest_matrices_go_to_different_processes() -> None:
    owners = _divided([1, 100, 2, 90, 3, 80], 3)
    assert len({owners[1], owners[3], owners[5]}) == 3
    assert set(owners[::2]) == {owners[5]}, "the cheap ones go to the process that has least to do"
    assert _divided([5, 4, 3, 3, 3], 2) == [0, 1, 1, 0, 1], "5 + 3 and 4 + 3 + 3"


def test_only_matrices_that_are_split_are_taken_in_rounds(monkeypatch: pytest.MonkeyPatch) -> None:
    """So that not too many of them are whole at once; one that is too large by itself has a round of its own."""
    monkeypatch.setattr(optimizers, "ELEMENTS_AT_ONCE", 10)
    params = [torch.zeros(size) for size in (4, 4, 4, 6, 20, 1)]
    assert [[p.numel() for p in each] for each in _rounds(params)] == [[4, 4, 4, 6, 20, 1]]
    monkeypatch.setattr(optimizers, "is_sharded", lambda p: True)
    assert [[p.numel() for p in each] for each in _rounds(params)] == [[4, 4], [4, 6], [20], [1]]


@pytest.mark.parametrize("muon", [True, False])
def test_a_step_that_is_called_off_changes_nothing(muon: bool) -> None:
    network = UNetConfig(size=(8, 8), channels=8, multipliers=(1,), groups=4, attention_resolutions=()).build()
    optimizers = build_optimizers(network, OptimizerConfig(muon=muon), torch.float32)

    def take(flag: bool, value: float) -> None:
        for parameter in network.parameters():
            parameter.grad = torch.full_like(parameter, value)
        for optimizer in optimizers:
            step_unless(torch.tensor(flag), optimizer)

    take(False, 0.1)
    state = {name: value.clone() for name, value in optimizer_tensors(optimizers).items()}
    weights = [parameter.detach().clone() for parameter in network.parameters()]
    take(True, float("nan"))
    assert all(torch.equal(value, state[name]) for name, value in optimizer_tensors(optimizers).items())
    assert all(torch.equal(a, b) for a, b in zip(network.parameters(), weights, strict=True))
    take(False, 0.1)
    assert not any(torch.equal(a, b) for a, b in zip(network.parameters(), weights, strict=True))


def test_a_zero_gradient_gives_a_zero_update() -> None:
    assert torch.equal(orthogonalized(torch.zeros(2, 3, 4)), torch.zeros(2, 3, 4))


def test_matrices_in_a_batch_do_not_influence_each_other() -> None:
    matrices = torch.stack([10.0**seed * normal(6, 15, seed=seed) for seed in range(3)])
    alone = torch.cat([orthogonalized(matrix[None]) for matrix in matrices])
    torch.testing.assert_close(orthogonalized(matrices), alone, rtol=1e-9, atol=1e-12)


def test_muon_orthogonalizes_and_scales_nesterov_momentum() -> None:
    weight = nn.Parameter(normal(6, 15))
    muon = Muon([weight], lr=0.02, momentum=0.95, weight_decay=0.1, dtype=torch.float64)
    by_hand, momentum = weight.detach().clone(), torch.zeros(6, 15, dtype=torch.float64)
    for seed in range(1, 4):
        gradient = normal(6, 15, seed=seed)
        weight.grad = gradient.clone()
        muon.step()
        momentum = 0.95 * momentum + 0.05 * gradient
        update = by_singular_values(0.95 * momentum + 0.05 * gradient)
        # Liu et al. 2025, Eq. 4: 0.2 sqrt(max(rows, columns)) gives the update the size of AdamW's.
        by_hand = (1 - 0.02 * 0.1) * by_hand - 0.02 * 0.2 * 15**0.5 * update
        torch.testing.assert_close(weight.detach(), by_hand, rtol=1e-6, atol=1e-6)
        assert torch.equal(weight.grad, gradient), "the gradient must stay as it was"


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("shape", [(6, 5, 3, 3), (32, 3, 3, 3), (6, 5, 1, 1)])
def test_a_convolution_moves_as_its_flattened_matrix(
    shape: tuple[int, ...], memory_format: torch.memory_format
) -> None:
    start, gradients = normal(*shape), [normal(*shape, seed=seed) for seed in (1, 2)]
    conv = nn.Parameter(start.clone(memory_format=memory_format))
    matrix = nn.Parameter(start.flatten(1).clone())
    for parameter in (conv, matrix):
        muon = Muon([parameter], lr=0.02, dtype=torch.float64)
        for gradient in gradients:
            parameter.grad = gradient.reshape(parameter.shape).clone()
            muon.step()
    torch.testing.assert_close(conv.detach().flatten(1), matrix.detach(), rtol=1e-12, atol=1e-12)


def test_parameters_of_one_muon_move_as_they_would_in_their_own() -> None:
    shapes = [(4, 9), (4, 9), (4, 1, 3, 3), (9, 4), (5, 5)]

    def moved(group: list[int]) -> dict[int, Tensor]:
        parameters = {i: nn.Parameter(normal(*shapes[i], seed=i)) for i in group}
        muon = Muon(parameters.values(), lr=0.1, dtype=torch.float64)
        for i, parameter in parameters.items():
            parameter.grad = None if i == 4 else normal(*shapes[i], seed=10 + i)
        muon.step()
        return {i: parameter.detach() for i, parameter in parameters.items()}

    together = moved([0, 1, 2, 3, 4])
    assert torch.equal(together[4], normal(5, 5, seed=4)), "without a gradient a parameter must stay"
    for i, parameter in together.items():
        torch.testing.assert_close(parameter, moved([i])[i], rtol=1e-12, atol=1e-12)


@pytest.fixture
def network(small_network: UNetConfig, random_unet: Callable[[UNetConfig], UNet]) -> UNet:
    return random_unet(small_network).to(memory_format=torch.channels_last)


@pytest.mark.parametrize("muon", [True, False])
def test_every_parameter_is_in_exactly_one_optimizer(muon: bool, network: nn.Module) -> None:
    network.get_parameter("embed.0.bias").requires_grad_(False)
    optimizers = build_optimizers(network, OptimizerConfig(muon=muon), torch.float32)
    held = [id(p) for optimizer in optimizers for group in optimizer.param_groups for p in group["params"]]
    assert sorted(held) == sorted(id(p) for p in network.parameters() if p.requires_grad)
    assert [type(optimizer) for optimizer in optimizers] == ([AdamW, Muon] if muon else [AdamW])


def test_muon_has_the_hidden_matrices_and_adamw_the_rest(network: nn.Module) -> None:
    config = OptimizerConfig(weight_decay=0.03)
    adamw, muon = build_optimizers(network, config, torch.float32)
    for_muon = {id(p) for p in muon.param_groups[0]["params"]}
    for name, p in network.named_parameters():
        edge = name.split(".")[0] in ("input", "output", "embed_label")
        assert (id(p) in for_muon) == (p.ndim >= 2 and not edge), name
    assert adamw.param_groups[0]["betas"] == config.betas
    assert [each.param_groups[0]["weight_decay"] for each in (adamw, muon)] == [0.03, 0.03]


class NoEdges(nn.Module):
    """A network that does not say which of its matrices are hidden."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(4, 8), nn.Linear(8, 8), nn.Linear(8, 4))


class WithEdges(NoEdges):
    def edge_parameters(self) -> Iterable[nn.Parameter]:
        yield from (self.layers[0].weight, self.layers[2].weight)


def test_the_network_tells_muon_which_matrices_are_hidden() -> None:
    network = WithEdges()
    _, muon = build_optimizers(network, OptimizerConfig(), torch.float32)
    assert [id(p) for p in muon.param_groups[0]["params"]] == [id(network.layers[1].weight)]


def test_adamw_trains_networks_that_name_no_edges_and_says_so(notices: pytest.LogCaptureFixture) -> None:
    optimizers = build_optimizers(NoEdges(), OptimizerConfig(), torch.float32)
    assert [type(optimizer) for optimizer in optimizers] == [AdamW]
    assert any("NoEdges has no edge_parameters()" in sentence for sentence in notices.messages)


def steps(network: nn.Module, optimizers: list[Optimizer], numbers: range) -> None:
    for number in numbers:
        x = normal(4, 1, 8, 8, seed=number).float()
        network.zero_grad()
        network(x, torch.arange(4.0), torch.tensor([0, 1, 2, -1])).square().mean().backward()
        for optimizer in optimizers:
            optimizer.step()


@pytest.mark.parametrize(
    "config", [OptimizerConfig(weight_decay=0.01), OptimizerConfig(muon=False)], ids=["muon", "adamw"]
)
def test_saved_and_loaded_optimizers_continue_to_the_last_bit(
    config: OptimizerConfig, network: nn.Module, small_network: UNetConfig
) -> None:
    optimizers = build_optimizers(network, config, torch.float32)
    steps(network, optimizers, range(3))
    saved = [
        safetensors.torch.save({name: tensor.detach().contiguous() for name, tensor in tensors.items()})
        for tensors in (network.state_dict(), optimizer_tensors(optimizers))
    ]
    steps(network, optimizers, range(3, 6))

    again = UNet(small_network).to(memory_format=torch.channels_last)
    weights, state = (safetensors.torch.load(content) for content in saved)
    again.load_state_dict(weights)
    optimizers_again = build_optimizers(again, config, torch.float32)
    load_optimizer_tensors(optimizers_again, state.items())
    before, after = optimizer_tensors(optimizers), optimizer_tensors(optimizers_again)
    assert {name: tensor.stride() for name, tensor in after.items()} == {n: t.stride() for n, t in before.items()}
    steps(again, optimizers_again, range(3, 6))

    for ours, expected in (
        (again.state_dict(), network.state_dict()),
        (optimizer_tensors(optimizers_again), optimizer_tensors(optimizers)),
    ):
        assert ours.keys() == expected.keys()
        assert all(torch.equal(tensor, expected[name]) for name, tensor in ours.items())


def test_both_optimizers_make_the_loss_fall(network: nn.Module) -> None:
    optimizers = build_optimizers(network, OptimizerConfig(learning_rate=1e-3), torch.float32)
    x, c_noise = normal(8, 1, 8, 8).float(), torch.arange(8.0)
    losses = []
    for _ in range(30):
        network.zero_grad()
        loss = (network(x, c_noise) - x).square().mean()
        loss.backward()
        losses.append(loss.item())
        for optimizer in optimizers:
            optimizer.step()
    assert losses[-1] < 0.5 * losses[0]


def test_the_learning_rate_warms_up_and_decays() -> None:
    config = OptimizerConfig(warmup_images=1000, decay_fraction=0.25)
    # (images seen, fraction of the budget spent) and the factor there.
    expected = {
        (0, 0.0): 0.001,
        (249, 0.01): 0.25,
        (999, 0.1): 1.0,
        (1000, 0.1): 1.0,
        (5000, 0.75): 1.0,
        (8000, 0.875): 0.5,
        (9000, 1.0): 0.0,
        (9100, 1.01): 0.0,
        (499, 0.875): 0.25,  # A budget shorter than the warm-up: both at once.
    }
    for (images, progress), factor in expected.items():
        assert learning_rate_factor(images, progress, config) == pytest.approx(factor), (images, progress)


def test_without_warmup_and_decay_the_learning_rate_stays() -> None:
    config = OptimizerConfig(warmup_images=0, decay_fraction=0.0)
    assert [learning_rate_factor(n, p, config) for n, p in ((0, 0.0), (10**9, 1.0), (10**9, 1.1))] == [1.0] * 3


def test_the_learning_rate_is_set_in_every_parameter_group() -> None:
    first, second = AdamW([nn.Parameter(normal(2))]), Muon([nn.Parameter(normal(2, 2))])
    first.add_param_group({"params": [nn.Parameter(normal(3))]})
    set_learning_rate([first, second], 0.125)
    assert [group["lr"] for o in (first, second) for group in o.param_groups] == [0.125] * 3
