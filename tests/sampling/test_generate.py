"""Where samples are kept, what a bar shows while they are made, and the grid and the film of them."""

from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from torch import nn

from undiffuse.config import Config, SamplingConfig
from undiffuse.data.given_images import GivenImages
from undiffuse.report import grids
from undiffuse.runs.gallery import Gallery
from undiffuse.runs.run import create_run
from undiffuse.sampling.attributes import Stated
from undiffuse.sampling.generate import default_folder, fill, gallery_in, save_film, save_grid
from undiffuse.sampling.loading import load_model
from undiffuse.sampling.model import Model
from undiffuse.utils.terminal import progress_to

TWO_STEPS = SamplingConfig(sampler="euler", steps=2)


@pytest.fixture
def model(network: nn.Module, config: Config) -> Model:
    """Loaded from a run."""
    run, ema = create_run(Path("runs/one"), config), network.state_dict()
    run.save(500, {"network": {name: 2 * each for name, each in ema.items()}, "ema": ema}, {}, keep=1)
    return load_model(run)


def folder(
    model: Model,
    *settings: str,
    labels: tuple[int, ...] | None = None,
    attributes: Stated | None = None,
    given: GivenImages | None = None,
    **options: Any,
) -> str:
    """The name of the folder of samples that are made with these options."""
    sampling = SamplingConfig(**({"sampler": "euler", "steps": 3, "precision": "fp32"} | options))
    found = default_folder(model, sampling, settings, labels, attributes or {}, given)
    assert found.parent == model.origin[0].output_folder / "samples"
    return found.name


def test_a_folder_is_named_after_the_options(model: Model) -> None:
    assert folder(model) == "euler-3-ema-500-guidance-1"
    assert folder(model, "s_churn=5", sampler="heun", s_churn=5.0) == "heun-3-ema-500-s_churn-5-guidance-1"
    assert folder(model, "sigmas=karras", sigmas="karras") == "euler-3-ema-500-sigmas-karras-guidance-1"
    in_interval = folder(model, guidance=1.5, guidance_interval=(0.2, 3.0))
    assert in_interval == "euler-3-ema-500-guidance-1.5-0.2-3"
    guided = model.guided_by(load_model(model.origin[0], weights="network"))
    assert folder(guided, guidance=2.0) == "euler-3-ema-500-guidance-2-by-one-500"
    assert folder(model, precision="bf16") == "euler-3-ema-500-guidance-1-bf16"
    assert folder(model, labels=(1, 1, 2)) == "euler-3-ema-500-guidance-1-label-1x2-2"


def test_what_is_too_long_for_a_name_has_a_digest_there(model: Model) -> None:
    levels, given = (80.0, 9.0, 1.0), GivenImages(("a",), torch.zeros(1, 1, 4, 4, dtype=torch.uint8))
    ways: list[dict[str, Any]] = [
        {},
        {"sigmas": levels},
        {"sigmas": (80.0, 9.0, 2.0)},
        {"labels": tuple(range(3)) * 20},
        {"labels": tuple(range(3)) * 30},
        {"attributes": {"age": (30.0,)}},
        {"attributes": {"age": (31.0,)}},
        {"given": given},
    ]
    names = [folder(model, **way) for way in ways]
    assert len(set(names)) == len(ways)
    assert max(map(len, names)) < 60
    assert folder(model, f"sigmas={list(levels)}", sigmas=levels) == names[1], "one name, however they were given"


@pytest.fixture
def filled(model: Model) -> Gallery:
    """Of six samples."""
    gallery = gallery_in(Path("out"), model, TWO_STEPS)
    fill(gallery, model, range(6), batch=4)
    return gallery


def test_the_bar_begins_at_none_of_the_missing_images_and_ends_at_all(filled: Gallery, model: Model) -> None:
    seen: list[float] = []
    for seed in (0, 2, 4):
        filled.path(seed).unlink()
    with progress_to(lambda what, fraction: seen.append(fraction)):
        fill(filled, model, range(6), batch=2)
    # Batches of two and one of three missing images, in two steps each.
    assert seen == pytest.approx([0, 1 / 3, 2 / 3, 5 / 6, 1])


@pytest.mark.parametrize(
    ("labels", "columns"), [(None, 3), ((1, 2), 2), ((1, 1, 2, 0), 4), ((1,), None), ((0, 1, 2) * 6, None)]
)
def test_a_grid_has_a_column_for_each_label_that_comes_in_turn(
    labels: tuple[int, ...] | None, columns: int | None, filled: Gallery
) -> None:
    gallery = Gallery(filled.folder, filled.shape, filled.class_names, TWO_STEPS, labels)
    with Image.open(save_grid(gallery, range(6))) as found:
        assert found.size == grids.grid(gallery.pixels(range(6)), columns).size


def test_a_film_has_a_frame_for_each_step(filled: Gallery, model: Model) -> None:
    strip, animation = save_film(filled, model, range(2))
    assert (strip, animation) == (Path("out/film.png"), Path("out/film.gif"))
    with Image.open(animation) as film, Image.open(strip) as still:
        assert film.n_frames == 2  # ty: ignore[missing-attribute]
        assert still.mode == "L"
