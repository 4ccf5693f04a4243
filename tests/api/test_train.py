"""undiffuse.train: options as Python values, plans, networks and observers of one's own, and stopping."""

import os
import signal
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pytest
import torch
from pydantic.dataclasses import dataclass
from torch import Tensor, nn

import undiffuse as ud
from undiffuse.api.train import Plan
from undiffuse.config import Config, flat
from undiffuse.training import cost, previews
from undiffuse.utils.errors import Interrupted

TINY = {"network.channels": 8, "network.groups": 4, "network.patch": 1}


class Convolutions(nn.Module):
    def __init__(self, channels: int, width: int):
        super().__init__()
        self.first = nn.Conv2d(channels + 1, width, 3, padding=1)
        self.norm = nn.BatchNorm2d(width)
        self.hidden = nn.Conv2d(width, width, 3, padding=1)
        self.last = nn.Conv2d(width, channels, 3, padding=1)

    def forward(self, x: Tensor, c_noise: Tensor, label: Tensor | None = None) -> Tensor:
        noise_level = c_noise.to(x).view(-1, 1, 1, 1).expand(-1, 1, *x.shape[2:])
        h = self.norm(self.first(torch.cat([x, noise_level], dim=1)))
        return self.last(torch.relu(self.hidden(torch.relu(h))))

    def edge_parameters(self) -> Sequence[Tensor]:
        return [self.first.weight, self.last.weight]


@dataclass(frozen=True)
class ConvolutionsConfig(ud.NetworkConfig):
    width: int = 8

    def build(self, learned_variance: bool = False) -> nn.Module:
        return Convolutions(self.image_channels, self.width)


@pytest.fixture(autouse=True)
def decoded_once(tmp_path_factory: pytest.TempPathFactory, own_folders: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("UNDIFFUSE_CACHE", str(tmp_path_factory.getbasetemp() / "decoded"))
    monkeypatch.setattr(previews, "PREVIEWS", 0)


def test_options_are_python_values(capsys: pytest.CaptureFixture) -> None:
    run = ud.train(
        "digits", size=(8, 8), images=128, batch=64, out=Path("run"), set=TINY | {"network.multipliers": [1]}
    )
    config = run.config
    assert config.network.size == (8, 8)
    assert flat(config)["network.multipliers"] == [1]
    assert (config.training.total_images, config.training.batch) == (128, 64)
    same = ud.train(
        "digits", size="8x8", images="128", batch=64, out="run", set=[*words(TINY), "network.multipliers=[1]"]
    )
    assert same == run
    assert capsys.readouterr() == ("", ""), "quiet by default"


def words(settings: dict[str, int]) -> list[str]:
    return [f"{name}={value}" for name, value in settings.items()]


def test_progress_shows_notices(capsys: pytest.CaptureFixture) -> None:
    ud.train("digits", size=8, images=64, batch=64, out="run", set=TINY, progress=True)
    assert "1,797 images, 8x8 gray, 10 classes" in capsys.readouterr().out


def test_called_again_it_resumes(notices: pytest.LogCaptureFixture) -> None:
    for images in (64, 128):
        run = ud.train("digits", size=8, images=images, batch=64, out="run", set=TINY)
    assert "Resuming at 64 images." in notices.messages
    assert [checkpoint.images for checkpoint in run.checkpoints()] == [128, 64]


def test_graphs_are_refused_where_gradients_are_accumulated() -> None:
    settings = {**TINY, "training.microbatch": 32}
    with pytest.raises(ValueError, match=r"at once: give --set training\.microbatch=64, or --compile on"):
        ud.train("digits", size=8, images=64, batch=64, out="run", set=settings, compile="graphs")


def test_a_dry_run_for_which_memory_does_not_suffice_says_what_fits(monkeypatch: pytest.MonkeyPatch) -> None:
    measured = cost._measured

    def small_memory(config: Config, device: torch.device, processes: int, microbatch: int, images: int) -> cost.Cost:
        if images > 4:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB.")
        return measured(config, device, processes, microbatch, images)

    settings: dict[str, Any] = {"size": 8, "batch": 16, "set": {**TINY, "training.microbatch": 16}, "dry_run": True}
    enough = ud.train("digits", **settings)
    monkeypatch.setattr(cost, "_measured", small_memory)
    plan = ud.train("digits", **settings)
    assert "--set training.microbatch=4 fits" in str(plan)
    assert isinstance(plan, Plan)
    assert isinstance(enough, Plan)
    assert plan.cost.activation_bytes == pytest.approx(enough.cost.activation_bytes, rel=0.01)
    assert "fits" not in str(enough)


def test_a_dry_run_is_a_plan_and_writes_nothing() -> None:
    plan = ud.train("digits", size=8, images="2M", set=TINY, dry_run=True)
    assert isinstance(plan, Plan)
    assert plan.folder == Path("runs/digits-8x8")
    assert not plan.folder.exists()
    assert plan.config.training.total_images == 2_000_000
    assert plan.cost.parameters == sum(p.numel() for p in plan.config.build_network().parameters())
    assert plan.cost.memory_bytes > 3 * 4 * plan.cost.parameters
    assert 0 < plan.cost.activation_bytes < plan.cost.memory_bytes
    assert plan.cost.seconds_per_image > 0
    assert f"{plan.cost.parameters:,} parameters" in str(plan)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"keep": 0}, "--keep 0"),
        ({"images": 10, "minutes": 1}, "either --images or --minutes"),
        ({"images": 0}, "--images 0 is not a count"),
        ({"preset": "huge"}, "--preset huge does not exist"),
        ({"size": 17}, "choose height and width that are multiples of 4"),
        ({"set": {"network.depth": 3}}, "network.depth"),
        ({"batch": 0}, "training.batch"),
    ],
)
def test_wrong_options_raise_the_commands_sentences(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message) as error:
        ud.train("digits", **options)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("network", [ConvolutionsConfig(width=12), ConvolutionsConfig], ids=["config", "class"])
def test_a_network_of_ones_own_trains_resumes_and_samples(
    network: ud.NetworkConfig | type[ud.NetworkConfig], notices: pytest.LogCaptureFixture
) -> None:
    width = 8 if isinstance(network, type) else 12
    for images in (128, 256):
        run = ud.train("digits", size=8, images=images, batch=64, network=network)
    assert run.folder == Path("runs/digits-convolutions-8x8")
    assert run.config.network == ConvolutionsConfig(size=(8, 8), image_channels=1, classes=10, width=width)
    assert "Resuming at 128 images." in notices.messages
    model = ud.load(run, network=ConvolutionsConfig)
    assert model.sample(2, steps=2).shape == (2, 8, 8, 1)
    ema, weights = (run.checkpoints()[0].tensors(part) for part in ("ema", "network"))
    assert ema["norm.running_mean"].equal(weights["norm.running_mean"])
    assert run.config.network.size != ud.NetworkConfig().size


def test_a_sequence_of_images_and_labels_trains_and_resumes(notices: pytest.LogCaptureFixture) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (40, 16, 16, 3), np.uint8)
    data = [(image, "even" if i % 2 == 0 else "odd") for i, image in enumerate(pixels)]
    for images in (64, 128):
        run = ud.train(data, images=images, batch=32, out="run", set=TINY)
    assert run.config.class_names == ("even", "odd")
    assert run.config.network.size == (16, 16)
    assert "Resuming at 64 images." in notices.messages


def test_one_table_serves_all_splits(notices: pytest.LogCaptureFixture) -> None:
    names = [f"{split}/{kind}/{i}.png" for split in ("train", "test") for kind in ("a", "b") for i in range(4)]
    for i, name in enumerate(names):
        Path("photos", name).parent.mkdir(parents=True, exist_ok=True)
        PIL.Image.new("L", (8, 8), 10 * i).save(Path("photos", name))
    Path("all.csv").write_text("\n".join(["file,level", *(f"{name},{10 * i}" for i, name in enumerate(names))]))
    options: dict[str, Any] = {"batch": 8, "images": 16, "set": TINY, "dry_run": True}
    plan = ud.train("photos", condition="all.csv", **options)
    assert plan.config.data.split == "train"
    assert plan.config.attributes
    assert plan.config.attributes.numbers[0].high == 70
    assert "8 rows of all.csv are of images in other splits." in notices.messages


def test_observers_are_functions_or_objects() -> None:
    losses: list[float] = []

    class Counter(ud.Observer):
        steps = 0

        def step(self, event: object) -> None:
            self.steps += 1

    counter = Counter()
    observers = [counter, lambda event: losses.append(event.loss)]
    ud.train("digits", size=8, images=256, batch=64, out="run", set=TINY, observers=observers)
    assert counter.steps == len(losses) == 4


def interrupt_at(images: int):
    return lambda event: os.kill(os.getpid(), signal.SIGINT) if event.images == images else None


def test_ctrl_c_saves_and_raises_keyboard_interrupt() -> None:
    usual = signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt, match=r"Saved\. Run the same again to resume: /.*/run") as stop:
        ud.train("digits", size=8, images=6400, batch=64, out="run", set=TINY, observers=[interrupt_at(128)])
    assert isinstance(stop.value, Interrupted)
    assert signal.getsignal(signal.SIGINT) is usual
    run = ud.train("digits", size=8, images=6400, batch=64, out="run", set=TINY, dry_run=True)
    saved = run.last_good()
    assert saved is not None
    assert saved.images in (128, 192)  # The signal may arrive a step late.


def test_it_trains_outside_the_main_thread_too() -> None:
    runs: list[ud.Run] = []
    options: dict[str, Any] = {"size": 8, "images": 64, "batch": 64, "out": "run", "set": TINY}
    thread = threading.Thread(target=lambda: runs.append(ud.train("digits", **options)))
    thread.start()
    thread.join(timeout=60)
    assert runs[0].checkpoints()[0].images == 64
