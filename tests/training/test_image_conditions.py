"""Training where the network is told another image: the one that belongs to what it sees, and an exact resume."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers.tensors import normal

from undiffuse.config import Config
from undiffuse.data.augmentation import AugmentationConfig
from undiffuse.data.batches import ImageStream
from undiffuse.data.conditioned import conditioned
from undiffuse.data.low_resolution import low_resolution
from undiffuse.data.pairs import open_pairs
from undiffuse.data.store import DataConfig, Store, open_store
from undiffuse.diffusion.denoiser import per_image
from undiffuse.runs.run import Run, open_run
from undiffuse.sampling.loading import load_model
from undiffuse.training import loop, previews, session
from undiffuse.training.checkpoints import CheckpointOptions
from undiffuse.training.session import begin_or_resume, train_run
from undiffuse.training.signals import StopRequest
from undiffuse.training.start import Start, weights_for
from undiffuse.utils.conditions import NO_LABEL, Conditions
from undiffuse.utils.world import World

ALONE = World(0, 1, torch.device("cpu"))
FULL = AugmentationConfig(flip=True, crop_scale=0.5, nonleaky=0.5)


def trained(name: str, config: Config, store: Store) -> Run:
    """A run in a folder of this name, begun or resumed."""
    assert store.image_condition
    config = replace(config, image_condition=store.image_condition.config)
    run = begin_or_resume(Path(name), config, len(store), ALONE)
    with StopRequest() as stop:
        assert train_run(run, store, ALONE, stop, CheckpointOptions())
    return open_run(Path(name))


@pytest.fixture
def low_res(store: Store) -> Store:
    return conditioned(store, "low-res:4", DataConfig())


@pytest.fixture
def pairs(store: Store) -> Store:
    """Each digit is paired with itself, but the first sixty with nothing."""
    pixels = store.read(range(300))
    images = open_store(DataConfig("sequence:ndarray", size=(8, 8)), data=pixels)
    partners = open_pairs(images, DataConfig(), pixels)
    partner = np.where(partners.partner < 60, -1, partners.partner)
    return replace(images, image_condition=replace(partners, partner=partner))


def test_low_resolution_is_that_of_what_the_network_sees(low_res: Store) -> None:
    batch = ImageStream(low_res, FULL, 0.0, 0).__getitems__(list(range(64)))
    assert torch.equal(batch.image, low_resolution(batch.x0, 4))
    assert isinstance(batch.condition, Conditions)
    x0 = ImageStream(low_res, FULL, 0.0, 0).__getitems__([5]).x0
    assert torch.equal(batch.x0[5:6], x0)


def test_partners_change_as_their_images_do(pairs: Store) -> None:
    batch = ImageStream(pairs, FULL, 0.0, 0).__getitems__(list(range(300)))
    missing = batch.image.isnan().flatten(1)
    assert missing.any(dim=1).sum() == 60  # Each image once.
    assert torch.equal(missing.any(dim=1), missing.all(dim=1))
    assert torch.equal(batch.x0[~missing[:, 0]], batch.image[~missing[:, 0]])
    plain = ImageStream(pairs, AugmentationConfig(), 0.0, 0).__getitems__(list(range(300)))
    assert (plain.x0 != batch.x0).flatten(1).any(dim=1).float().mean() > 0.9


def test_the_images_are_those_of_training_without_a_condition(low_res: Store, pairs: Store) -> None:
    for with_condition in (low_res, pairs):
        without = replace(with_condition, image_condition=None)
        batches = [ImageStream(each, FULL, 0.1, 0).__getitems__(list(range(50))) for each in (with_condition, without)]
        assert all(torch.equal(getattr(batches[0], name), getattr(batches[1], name)) for name in ("x0", "u", "eps"))


def test_image_and_label_are_dropped_together_and_labels_alone_too(low_res: Store) -> None:
    batch = ImageStream(low_res, AugmentationConfig(), 0.4, 0).__getitems__(list(range(1000)))
    image, label = ~batch.image.isnan().flatten(1).any(dim=1), batch.label != NO_LABEL
    assert 0.5 < image.float().mean() < 0.7
    assert not label[~image].any()
    assert 0.1 < (~label)[image].float().mean() < 0.5


def test_held_out_images_are_told_as_they_are(low_res: Store, pairs: Store) -> None:
    indices = np.array([3, 100, 250])
    for images in (low_res, pairs):
        told = images.condition(indices)
        assert isinstance(told, Conditions)
        assert told.image is not None
        x0 = torch.from_numpy(images.read(indices)).permute(0, 3, 1, 2) / 127.5 - 1
        expected = low_resolution(x0, 4) if images is low_res else x0
        torch.testing.assert_close(told.image[1:], expected[1:], rtol=0, atol=1e-6)
        assert bool(told.image[0].isnan().all()) == (images is pairs)


@pytest.mark.parametrize("kind", ["low_res", "pairs"])
def test_it_resumes_to_the_same_bits(
    kind: str, tiny: Config, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    images: Store = request.getfixturevalue(kind)
    config = replace(tiny, augmentation=FULL, training=replace(tiny.training, total_images=400))
    if kind == "pairs":
        config = replace(config, class_names=(), network=replace(config.network, classes=0))
    monkeypatch.setattr(previews, "PREVIEWS", 1)
    monkeypatch.setattr(previews, "STEPS", 2)

    def stop(*arguments, **named):
        for i, report in enumerate(loop.training_steps(*arguments, **named)):
            if i == 2:
                raise KeyboardInterrupt
            yield report

    with monkeypatch.context() as patch:
        patch.setattr(session, "training_steps", stop)
        with pytest.raises(KeyboardInterrupt):
            trained("halves", config, images)
    halves, whole = trained("halves", config, images), trained("whole", config, images)
    assert halves.checkpoints()[0].digest("network") == whole.checkpoints()[0].digest("network")
    assert whole.checkpoints()[0].tensors("network")["input_image.conv.weight"].any()
    assert len(list((whole.folder / "previews").iterdir())) == 2


def test_other_partners_are_not_resumed_with_but_moved_ones_are(tiny: Config, pairs: Store) -> None:
    config = replace(tiny, class_names=(), network=replace(tiny.network, classes=0))
    run = trained("run", replace(config, training=replace(tiny.training, total_images=100)), pairs)
    condition = run.config.image_condition
    assert condition
    moved = replace(run.config, image_condition=replace(condition, pairs="/elsewhere"))
    assert begin_or_resume(run.folder, moved, len(pairs), ALONE).config == moved
    changed = replace(run.config, image_condition=replace(condition, content="other"))
    with pytest.raises(ValueError, match=r"The images in .* are not those that .* was told of in training"):
        begin_or_resume(run.folder, changed, len(pairs), ALONE)
    with pytest.raises(ValueError, match="was trained with --condition /elsewhere: give that again"):
        begin_or_resume(run.folder, replace(run.config, image_condition=None), len(pairs), ALONE)
    low_res = replace(condition, low_res=2, pairs=None, content="")
    with pytest.raises(ValueError, match="was trained with --condition /elsewhere: give that again"):
        begin_or_resume(run.folder, replace(run.config, image_condition=low_res), len(pairs), ALONE)


def test_a_run_may_be_told_of_images_from_now_on(
    tiny: Config, store: Store, low_res: Store, run_training: Callable[..., bool]
) -> None:
    """It predicts what it did, to the bit, until it learns."""
    run_training(Path("source"), replace(tiny, training=replace(tiny.training, total_images=400)))
    source = open_run(Path("source"))
    checkpoint = source.last_good()
    assert checkpoint
    start = Start(source, checkpoint)
    assert low_res.image_condition
    config = start.configure(low_res, source.config.data, 0, True)
    config = replace(config, image_condition=low_res.image_condition.config)
    network = config.build_network().eval()
    network.load_state_dict(weights_for(config, start))
    before = load_model(source, ALONE.device)
    x, label = normal(4, 1, 8, 8).float(), torch.tensor([3, 1, -1, 0])
    told = Conditions(label, image=low_resolution(x.clamp(-1, 1), 4))
    assert before.network is not None
    with torch.no_grad():
        assert torch.equal(
            network(x, per_image(torch.tensor(0.3), x), told), before.network(x, torch.full((4,), 0.3), label)
        )
