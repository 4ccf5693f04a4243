"""Training where the network is told more of an image than its label."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from undiffuse.config import Config
from undiffuse.data.batches import ImageStream
from undiffuse.data.store import Store
from undiffuse.networks.network import NetworkConfig
from undiffuse.runs.run import open_run
from undiffuse.sampling.loading import load_model
from undiffuse.training import loop, session
from undiffuse.training.state import new_state
from undiffuse.utils.world import World

ALONE = World(0, 1, torch.device("cpu"))


@pytest.fixture
def augmented(tiny: Config) -> Config:
    """Half as long, every other change is made to each image, and half of the steps train on patches."""
    augmentation = replace(tiny.augmentation, nonleaky=0.5, patches=0.5)
    return replace(tiny, augmentation=augmentation, training=replace(tiny.training, total_images=1000))


def test_an_augmented_run_resumes_exactly_and_makes_images(
    augmented: Config, run_training: Callable[..., bool], monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(*arguments, **named):
        for i, report in enumerate(loop.training_steps(*arguments, **named)):
            if i == 5:
                raise KeyboardInterrupt
            yield report

    with monkeypatch.context() as patch:
        patch.setattr(session, "training_steps", stop)
        with pytest.raises(KeyboardInterrupt):
            run_training(Path("halves"), augmented)
    assert run_training(Path("halves"), augmented)
    assert run_training(Path("whole"), augmented)
    whole, halves = (open_run(Path(name)).checkpoints()[0] for name in ("whole", "halves"))
    assert whole.digest("network") == halves.digest("network")
    learned = whole.tensors("network")
    assert learned["embed_augmentation.weight"].any()
    assert learned["input_coordinates.conv.weight"].any()
    assert load_model(open_run(Path("whole")), ALONE.device).sample(2, steps=3).shape == (2, 8, 8, 1)


@pytest.mark.parametrize(("first", "size"), [(200, 8), (100, 4)])
def test_microbatches_are_told_of_their_own_images(first: int, size: int, augmented: Config, store: Store) -> None:
    batch = ImageStream(store, augmented.augmentation, 0.0, 0, batch=100).__getitems__(list(range(first, first + 100)))
    assert batch.x0.shape[2:] == (size, size)
    losses = []
    for microbatch in (100, 30):
        config = replace(augmented, network=replace(augmented.network, dropout=0.0))
        config = replace(config, training=replace(config.training, microbatch=microbatch))
        state = new_state(config, ALONE.device)
        for parameter in state.network.parameters():
            torch.nn.init.normal_(parameter, std=0.3, generator=torch.Generator().manual_seed(0))
        report = next(loop.training_steps(state, config, iter([batch]), lambda: 0.0, ALONE))
        losses.append(report.loss)
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)
    told = batch._replace(augmentation=torch.zeros_like(batch.augmentation))
    state = new_state(augmented, ALONE.device)
    for parameter in state.network.parameters():
        torch.nn.init.normal_(parameter, std=0.3, generator=torch.Generator().manual_seed(0))
    other = next(loop.training_steps(state, augmented, iter([told]), lambda: 0.0, ALONE))
    assert abs(other.loss - losses[0]) > 1e-3 * losses[0]


class OwnConfig(NetworkConfig):
    def build(self, learned_variance: bool = False) -> torch.nn.Module:
        return torch.nn.Identity()


def test_a_network_of_ones_own_refuses_what_it_cannot_be_told(augmented: Config) -> None:
    config = replace(augmented, network=OwnConfig(size=(8, 8), image_channels=1, classes=10))
    with pytest.raises(ValueError, match=r"OwnConfig cannot be told .* set augmentation\.nonleaky to 0"):
        config.build_network()
    patches = replace(config, augmentation=replace(config.augmentation, nonleaky=0.0))
    with pytest.raises(ValueError, match=r"OwnConfig cannot be told .* set augmentation\.patches to 0"):
        patches.build_network()


def test_patches_that_the_network_cannot_take_are_refused(augmented: Config) -> None:
    network = replace(augmented.network, patch=2)
    with pytest.raises(ValueError, match=r"augmentation\.patches .* set it to 0, or choose .* \(2x2 does not\)"):
        replace(augmented, network=network)
