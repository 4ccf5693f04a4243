"""Weights that are split over processes (FSDP2): the same training as with whole ones, and checkpoints for everyone.

Two processes train the same run in several ways, one after another, and so does one process; the tests compare.
"""

import os
import shutil
import signal
from dataclasses import replace
from functools import partial
from pathlib import Path

import pydantic
import pytest
import safetensors.torch
import torch
from helpers.forking import forked
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

import undiffuse
from undiffuse.config import Config
from undiffuse.data.store import Store
from undiffuse.networks.network import NetworkConfig
from undiffuse.runs.run import Checkpoint, Run, open_run
from undiffuse.training import loop, previews
from undiffuse.training.checkpoints import CheckpointOptions
from undiffuse.training.cost import measure_cost, whole_bytes
from undiffuse.training.observers import Event, Observer
from undiffuse.training.session import begin_or_resume, train_run
from undiffuse.training.signals import StopRequest
from undiffuse.training.state import LossScale
from undiffuse.utils.world import World, init_distributed

pytestmark = pytest.mark.forks

IMAGES, HALF = 400, 200
"""In batches of 100, each of them in two microbatches of 25 in each of two processes."""

SCALE_TOO_HIGH = 2.0**18
"""Of the loss in fp16: gradients overflow in the first steps."""


def with_training(config: Config, **changes: object) -> Config:
    return replace(config, training=replace(config.training, **changes))


class Watcher(Observer):
    """Looks at the networks after every second step."""

    def __init__(self) -> None:
        self.seen: dict[str, Tensor] = {}

    def step(self, event: Event) -> None:
        if event.images % HALF == 0:
            for name, network in (("network", event.network), ("ema", event.ema)):
                self.seen |= {f"{event.images}.{name}.{key}": value for key, value in network.state_dict().items()}
                assert not any(isinstance(tensor, DTensor) for tensor in network.parameters())
                assert all(float(buffer) == 0.25 for buffer in network.buffers())

    def end(self) -> None:
        safetensors.torch.save_file({name: tensor.contiguous() for name, tensor in self.seen.items()}, "seen")


def train(name: str, config: Config, store: Store, world: World, images: int = IMAGES) -> None:
    config = with_training(config, total_images=images)
    run = world.on_main(partial(begin_or_resume, Path(name), config, len(store), world))
    options, observers = CheckpointOptions(keep=9, checkpoint_images=HALF), [Watcher()] if name == "sharded" else []
    with StopRequest() as stop:
        assert train_run(run, store, world, stop, options, observers)


def halved(source: str, name: str) -> None:
    """The source's run as it was after half of the images, under another name."""
    shutil.copytree(source, name)
    shutil.rmtree(Path(name) / "checkpoints" / str(IMAGES))


class Block(nn.Module):
    def __init__(self, width: int):
        super().__init__()
        self.norm, self.conv = nn.GroupNorm(2, width), nn.Conv2d(width, width, 3, padding=1)

    def forward(self, h: Tensor, shift: Tensor) -> Tensor:
        return h + self.conv(torch.relu(self.norm(h) + shift[:, :, None, None]))


class Own(nn.Module):
    """Two blocks between two convolutions, and a constant that checkpoints do not hold."""

    def __init__(self, config: "OwnConfig"):
        super().__init__()
        self.input = nn.Conv2d(config.image_channels, config.width, 3, padding=1)
        self.shift = nn.Linear(1, config.width)
        self.first, self.second = Block(config.width), Block(config.width)
        self.output = nn.Conv2d(config.width, config.image_channels, 3, padding=1)
        self.register_buffer("factor", torch.tensor(0.25), persistent=False)

    def forward(self, x: Tensor, c_noise: Tensor, label: Tensor | None = None) -> Tensor:
        shift = self.factor * self.shift(c_noise[:, None].float())
        return self.output(self.second(self.first(self.input(x), shift), shift))

    def blocks(self) -> list[nn.Module]:
        return [self.first, self.second]

    def edge_parameters(self) -> list[Tensor]:
        return [self.input.weight, self.output.weight]


@pydantic.dataclasses.dataclass(frozen=True)
class OwnConfig(NetworkConfig):
    width: int = 6

    def build(self, learned_variance: bool = False) -> nn.Module:
        return Own(self)


@pytest.fixture(scope="module", params=["own", pytest.param("unet", marks=pytest.mark.slow)])
def base(request: pytest.FixtureRequest, tiny: Config) -> Config:
    """A run with a network of few tensors, since each is expensive here, or with the U-Net."""
    unet = replace(tiny.network, multipliers=(1,), attention_resolutions=(8,), dropout=0.0)
    network = OwnConfig(size=(8, 8), image_channels=1, classes=10) if request.param == "own" else unet
    optimizer = replace(tiny.optimizer, decay_fraction=0.0, warmup_images=0)
    return with_training(replace(tiny, network=network, optimizer=optimizer), microbatch=25)


@pytest.fixture(scope="module")
def trained(base: Config, store: Store, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of all runs."""
    folder = tmp_path_factory.mktemp("sharding")
    sharded, alone = with_training(base, shard_weights=True), World.alone(torch.device("cpu"))

    def work(rank: int) -> None:
        patch = pytest.MonkeyPatch()  # Of this process, which then ends.
        patch.setattr(previews, "PREVIEWS", 1)
        with init_distributed() as world:
            train("whole", base, store, world)
            train("sharded", sharded, store, world)
            patch.setattr(previews, "PREVIEWS", 0)
            world.on_main(partial(halved, "sharded", "resumed"))
            train("resumed", with_training(sharded, activation_checkpointing=True), store, world)
            train("to-sharded", sharded, store, world)

    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setattr(previews, "PREVIEWS", 0)
        train("one", base, store, alone)
        halved("one", "to-sharded")
        codes, said = forked(folder, 2, work)
        assert codes == [0, 0], said
        halved("sharded", "from-sharded")
        train("from-sharded", base, store, alone)
    return folder


def opened(folder: Path) -> Run:
    return open_run(folder, OwnConfig)


def last(folder: Path) -> Checkpoint:
    found = opened(folder).last_good()
    assert found is not None
    return found


def losses(folder: Path) -> list[float]:
    return [line["loss"] for line in opened(folder).log_lines()]


def difference(ours: Checkpoint, theirs: Checkpoint, part: str) -> float:
    """The largest, of tensors that must have the same names and shapes."""
    found, expected = ours.tensors(part), theirs.tensors(part)
    assert {name: tensor.shape for name, tensor in found.items()} == {n: t.shape for n, t in expected.items()}
    return max(float((found[name] - expected[name]).abs().max()) for name in found)


def test_sharded_weights_are_trained_like_whole_ones(trained: Path) -> None:
    sharded, whole = losses(trained / "sharded"), losses(trained / "whole")
    assert sharded == pytest.approx(whole, abs=1e-5)
    ours, theirs = last(trained / "sharded"), last(trained / "whole")
    assert ours.parts == theirs.parts
    for part in ("network", "ema", "optimizer"):  # Found: at most 6e-8, after four steps.
        assert difference(ours, theirs, part) < 1e-6


def test_a_sharded_run_resumes_to_the_same_bits_also_when_activations_are_computed_again(trained: Path) -> None:
    ours, theirs = last(trained / "resumed"), last(trained / "sharded")
    assert {part: ours.digest(part) for part in ours.parts} == {part: theirs.digest(part) for part in theirs.parts}


@pytest.mark.parametrize("name", ["from-sharded", "to-sharded"])
def test_one_process_and_sharded_ones_resume_each_other(trained: Path, name: str) -> None:
    assert losses(trained / name) == pytest.approx(losses(trained / "one"), abs=1e-5)
    assert difference(last(trained / name), last(trained / "one"), "ema") < 1e-5


def test_one_process_samples_from_a_sharded_run(trained: Path) -> None:
    ours, theirs = (
        undiffuse.load(trained / name, network=OwnConfig).sample(2, seed=0) for name in ("sharded", "whole")
    )
    assert ours.shape == (2, 8, 8, 1)
    assert abs(ours.astype(int) - theirs.astype(int)).max() <= 1


def test_observers_see_whole_networks(trained: Path) -> None:
    seen = safetensors.torch.load_file(trained / "seen")
    for checkpoint in opened(trained / "sharded").checkpoints():
        for part in ("network", "ema"):
            for name, tensor in checkpoint.tensors(part).items():
                assert torch.equal(seen[f"{checkpoint.images}.{part}.{name}"], tensor)
    assert len(list((trained / "sharded" / "previews").iterdir())) == 2


def test_a_dry_run_says_what_each_process_needs(base: Config) -> None:
    sharded, cpu = with_training(base, shard_weights=True), torch.device("cpu")
    assert measure_cost(sharded, cpu, 1).memory_bytes == measure_cost(base, cpu, 1).memory_bytes
    whole, split = measure_cost(base, cpu, 2), measure_cost(sharded, cpu, 2)
    network = base.build_network()
    for_state = whole.memory_bytes - whole.activation_bytes
    assert split.memory_bytes - split.activation_bytes == for_state // 2 + whole_bytes(network)
    assert whole_bytes(network) <= 2 * sum(4 * p.numel() for p in network.parameters())


def test_only_the_weights_of_two_blocks_are_whole_at_once() -> None:
    third = Block(6)

    class Longer(Own):
        def blocks(self) -> list[nn.Module]:
            return [*super().blocks(), third]

    network = Longer(OwnConfig(size=(8, 8), image_channels=1))
    network.third = third
    whole = sum(p.numel() for p in network.parameters())
    assert whole_bytes(network) == 8 * (whole - sum(p.numel() for p in third.parameters()))


@pytest.mark.slow
def test_fp16_skips_the_same_batches(base: Config, store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    usual, fp16 = LossScale.__init__, with_training(base, precision="fp16")

    def too_high(self: LossScale, device: torch.device) -> None:
        usual(self, device)
        self.value.fill_(SCALE_TOO_HIGH)

    def work(rank: int) -> None:
        with init_distributed() as world:
            train("whole", fp16, store, world, images=800)
            train("sharded-fp16", with_training(fp16, shard_weights=True), store, world, images=800)

    monkeypatch.setattr(LossScale, "__init__", too_high)
    monkeypatch.setattr(previews, "PREVIEWS", 0)
    codes, said = forked(Path(), 2, work)
    assert codes == [0, 0], said
    ours, theirs = last(Path("sharded-fp16")), last(Path("whole"))
    assert ours.state["skipped"] == theirs.state["skipped"]
    assert 0 < ours.state["skipped"] < 8
    assert difference(ours, theirs, "loss_scale") == 0
    assert difference(ours, theirs, "network") < 5e-3  # Muon computes in fp16 too.
    assert losses(Path("sharded-fp16"))[-1] == pytest.approx(losses(Path("whole"))[-1], rel=0.01)


@pytest.mark.parametrize("killed", [pytest.param(False, marks=pytest.mark.slow), True])
def test_all_end_when_one_fails(base: Config, store: Store, tmp_path: Path, killed: bool) -> None:
    def failing(*arguments: object) -> Tensor:
        if os.environ["RANK"] == "0":
            return torch.tensor(1.0)
        if killed:
            os.kill(os.getpid(), signal.SIGKILL)
        raise OSError(28, "No space left on device", "disk")

    def work(rank: int) -> None:
        pytest.MonkeyPatch().setattr(loop, "clip_grad_norm_", failing)
        with init_distributed() as world:
            train("run", with_training(base, shard_weights=True), store, world)

    codes, said = forked(tmp_path, 2, work, seconds=60)
    assert codes == [1, -signal.SIGKILL if killed else 1]
    assert ("it was killed" if killed else "No space left on device") in " ".join(said.split())
