"""What a model offers in Python: its denoiser, its steps, its images."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from helpers.sampling import CPU
from helpers.tensors import normal
from torch import nn

from undiffuse.config import Config, SamplingConfig
from undiffuse.data.pixels import to_pixels
from undiffuse.diffusion import noise, samplers
from undiffuse.report.grids import Images
from undiffuse.sampling.model import Model, last, model_of, sample_steps, watched


def test_who_watches_is_told_each_step_as_it_is_made(network: nn.Module, config: Config) -> None:
    told: list[int] = []
    steps = watched(sample_steps(model_of(network, config, CPU), [0], [0], SamplingConfig(steps=3)), told.append)
    for number, _ in enumerate(steps, 1):
        assert told == list(range(1, number + 1))
    assert told == [1, 2, 3]


def test_denoise_takes_numbers_names_arrays_and_tensors(model: Model) -> None:
    x = normal(2, 1, 8, 8, dtype=torch.float32)
    expected = model.predict(x, torch.tensor([3.0, 3.0]), torch.tensor([1, 1])).x0
    for sigma in (3.0, torch.tensor(3.0), torch.tensor([3.0, 3.0]), np.float64(3)):
        for label in (1, "dogs", ["dogs", 1], torch.tensor([1, 1])):
            assert torch.equal(model.denoise(x, sigma, label), expected)
    assert torch.equal(model.denoise(x.numpy(), 3.0, 1), expected)
    assert torch.equal(model.denoise(x, 3.0), model.denoise(x, 3.0, "none"))
    with pytest.raises(ValueError, match="no such class"):
        model.denoise(x, 3.0, "birds")


def test_gradients_flow_through_the_denoiser(model: Model) -> None:
    x = normal(1, 1, 8, 8, dtype=torch.float32).requires_grad_()
    model.denoise(x, 1.0, 0).sum().backward()
    assert x.grad is not None
    assert x.grad.abs().sum() > 0


def test_a_plain_sampler_takes_the_models_denoiser(model: Model) -> None:
    sigmas = noise.karras_sigmas(5, 0.002, 80.0)
    x = normal(2, 1, 8, 8) * 80
    with torch.no_grad():
        done = last(samplers.heun(model.denoise, x, sigmas, torch.tensor([0, 2])))
    assert done.x.shape == x.shape
    assert done.x.isfinite().all()


def test_steps_end_in_the_images_that_sample_makes(model: Model) -> None:
    steps = list(model.steps(3, label="dogs", sampler="heun", steps=4, seed=7))
    assert [float(step.sigma) for step in steps][-1] == 0
    assert len(steps) == 4
    images = model.sample(3, label="dogs", sampler="heun", steps=4, seed=7)
    assert (images.shape, images.dtype) == ((3, 8, 8, 1), np.uint8)
    assert np.array_equal(images, Images(to_pixels(steps[-1].x)))


def test_sampled_images_depend_on_their_seed_not_on_the_batch(model: Model) -> None:
    eight = model.sample(8, steps=3).astype(int)
    assert np.abs(eight - model.sample(8, steps=3, batch=3).astype(int)).max() <= 1
    assert np.abs(eight[5:] - model.sample(3, steps=3, seed=5).astype(int)).max() <= 1


def test_sampling_is_quiet_unless_progress_is_asked_for(model: Model, capsys: pytest.CaptureFixture) -> None:
    model.sample(2, steps=2)
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"count": 0}, "at least 1"),
        ({"seed": -1}, "seed -1"),
        ({"steps": 0}, "steps"),
        ({"sampler": "magic"}, "magic"),
        ({"set": {"wings": 2}}, "wings is not a setting"),
        ({"label": "birds"}, "no such class"),
    ],
)
def test_what_a_model_cannot_do_is_a_value_error(model: Model, options: dict[str, Any], message: str) -> None:
    sample: Any = model.sample
    with pytest.raises(ValueError, match=message):
        sample(**{"count": 1, **options})


def test_guidance_of_nothing_is_refused_and_the_runs_own_is_not_applied(model: Model) -> None:
    strong = replace(model, config=replace(model.config, sampling=replace(model.config.sampling, guidance=4.0)))
    options: list[dict[str, Any]] = [{"guidance": 2.0}, {"set": {"guidance": 2.0}}, {"guidance_interval": (0.001, 100)}]
    for asked in options:
        with pytest.raises(ValueError, match="nothing to strengthen"):
            strong.sample(2, label="none", steps=2, **asked)
    assert np.array_equal(strong.sample(2, label="none", steps=2), model.sample(2, label="none", steps=2))
    assert not np.array_equal(strong.sample(2, label=1, steps=2), model.sample(2, label=1, steps=2))


def test_a_model_that_always_saw_the_label_refuses_to_go_without(model: Model) -> None:
    always = replace(model.config, training=replace(model.config.training, label_dropout=0.0))
    blind = replace(model, config=always)
    for make in (blind.sample, blind.steps):
        with pytest.raises(ValueError, match="label_dropout 0"):
            make(1, label="none")
