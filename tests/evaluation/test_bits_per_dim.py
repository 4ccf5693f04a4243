"""Which model and which randomness the two estimates get: the numbers themselves are tested where they are computed."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from undiffuse.config import Config
from undiffuse.data.store import DataConfig, Store, open_store
from undiffuse.diffusion import reverse
from undiffuse.diffusion.denoiser import Prediction
from undiffuse.diffusion.flow_likelihood import FlowLikelihood, FlowProtocol
from undiffuse.diffusion.likelihood import VLB, VLBProtocol
from undiffuse.diffusion.recipe import DiffusionConfig
from undiffuse.evaluation import bits_per_dim
from undiffuse.networks.unet import UNetConfig
from undiffuse.sampling.model import Model
from undiffuse.utils.terminal import progress_to
from undiffuse.utils.world import World

CPU = torch.device("cpu")


@pytest.fixture
def model(preset_config: Callable[[str], Config], small_network: UNetConfig) -> Model:
    """Predicts images that are far too bright."""
    config = replace(
        preset_config("small"), network=replace(small_network, classes=10), class_names=tuple("0123456789")
    )
    return Model(lambda x, sigma, label: Prediction(torch.full_like(x, 3.0), None), config, CPU)


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("UNDIFFUSE_CACHE", str(tmp_path_factory.mktemp("store")))
        return open_store(DataConfig(size=(8, 8)))


def asked(
    model: Model, store: Store, monkeypatch: pytest.MonkeyPatch, batch: int = 3
) -> tuple[dict[str, Any], list[dict[str, Any]], list[dict[str, Any]]]:
    """What comes out for 5 images, and what the bound and the flow were asked for, batch by batch."""
    bounds: list[dict[str, Any]] = []
    flows: list[dict[str, Any]] = []

    def vlb(predict: Callable, x0: Tensor, sigmas: Tensor, label: Tensor, **more: Any) -> VLB:
        terms = list(more["watch"](iter(range(len(sigmas) - 1))))
        bounds.append({"predict": predict, "x0": x0, "sigmas": sigmas, "label": label, "terms": terms, **more})
        each = x0.mean(dim=(1, 2, 3))
        return VLB(each, x0[:, 0, 0], x0[:, 0, 1], x0[:, 0, 2], VLBProtocol(1, 1.0, "", ""))

    def flow(denoise: Callable, x0: Tensor, low: float, high: float, label: Tensor, **more: Any) -> FlowLikelihood:
        more["watch"](1.0)
        flows.append({"denoise": denoise, "x0": x0, "range": (low, high), "label": label, **more})
        return FlowLikelihood(x0.mean(dim=(1, 2, 3)), FlowProtocol("", 1, low, high, 0))

    monkeypatch.setattr(bits_per_dim.likelihood, "vlb", vlb)
    monkeypatch.setattr(bits_per_dim.flow_likelihood, "flow_likelihood", flow)
    return bits_per_dim.bits_per_dim(model, store, 5, 7, batch, World.alone(CPU)), bounds, flows


def test_the_bound_clips_and_the_flow_does_not(model: Model, store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """The bound as Improved DDPM has it; a clipped flow would be no ODE with a density."""
    _, bounds, flows = asked(model, store, monkeypatch)
    for bound, flow in zip(bounds, flows, strict=True):
        at = bound["x0"], torch.ones(len(bound["x0"]), dtype=torch.float64), None
        assert (bound["predict"](*at).x0 == 1).all()
        assert (flow["denoise"](*at) == 3).all()
        assert flow["range"] == model.diffusion.sigma_range()
        assert torch.equal(bound["label"], flow["label"])


def test_probes_are_rademachers_and_dequantization_is_uniform(
    model: Model, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, bounds, flows = asked(model, store, monkeypatch)
    probes, uniform, noise = (
        torch.cat(each)
        for each in zip(
            *[(f["probe"], f["uniform"], b["noise"]()) for f, b in zip(flows, bounds, strict=True)], strict=True
        )
    )
    assert set(probes.flatten().tolist()) == {-1.0, 1.0}
    n = probes.numel()
    assert abs(probes.mean()) < 4 / n**0.5  # Standard errors: 1 / sqrt(n), and 1 / sqrt(12 n) below.
    assert 0 < uniform.min() < 0.05
    assert 0.95 < uniform.max() < 1
    assert abs(uniform.mean() - 0.5) < 4 / (12 * n) ** 0.5
    assert abs(noise.std() - 1) < 4 / (2 * n) ** 0.5


def test_an_image_has_its_randomness_whatever_the_batch(
    model: Model, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    found, bounds, flows = asked(model, store, monkeypatch, batch=3)
    again, more_bounds, more_flows = asked(model, store, monkeypatch, batch=2)
    assert found == again
    assert [len(each["x0"]) for each in bounds] == [3, 2]
    for name in ("x0", "probe", "uniform", "label"):
        assert torch.equal(*(torch.cat([each[name] for each in every]) for every in (flows, more_flows)))
    assert found["VLB"]["split"] == store.split
    images = torch.cat([each["x0"] for each in flows])
    assert found["VLB"]["images"] == found["probability flow"]["images"] == len(images) == 5
    assert found["probability flow"]["bits_per_dim"] == images.mean(dim=(1, 2, 3)).mean().item()
    assert torch.equal(*(torch.cat([each["noise"]() for each in every]) for every in (bounds, more_bounds)))


@pytest.mark.parametrize("learned", [False, True])
def test_the_levels_are_the_models_own_or_250_and_the_variance_is_its(
    learned: bool, model: Model, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    if learned:
        diffusion = DiffusionConfig(
            parametrization="eps",
            objective="hybrid",
            sigma_sampler="discrete_uniform",
            schedule="cosine",
            num_timesteps=9,
        )
        model = replace(model, config=replace(model.config, diffusion=diffusion))
    _, bounds, _ = asked(model, store, monkeypatch)
    expected = model.diffusion.discrete_sigmas(9) if learned else model.diffusion.log_snr_sigmas(250)
    assert torch.equal(bounds[0]["sigmas"], expected)
    assert bounds[0]["variance"] is (reverse.learned if learned else reverse.small)
    assert len(bounds[0]["terms"]) == len(expected) - 1


def test_the_bar_moves_steadily_from_none_to_all_images(
    model: Model, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[float] = []
    with progress_to(lambda what, fraction: seen.append(fraction)):
        asked(model, store, monkeypatch)
    steps = len(model.diffusion.log_snr_sigmas(250)) - 1
    # Batches of 3 and 2 images; half of the time of each goes to the bound, step by step, and half to the flow.
    assert seen == sorted(seen)
    assert (seen[0], seen[-1]) == (0, 1)
    assert seen[steps // 2] == pytest.approx(0.15, abs=0.01)
    assert seen[steps + 1] == pytest.approx(0.6), "the end of the first batch's flow"
