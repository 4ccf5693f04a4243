"""A student from end to end: made from a run, resumed without it, and known to everything that takes a run."""

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers.commands import refused

import undiffuse as ud
from undiffuse.cli import main
from undiffuse.config import Config, Origin, with_settings
from undiffuse.runs.run import Run, open_run
from undiffuse.sampling.model import last
from undiffuse.sampling.options import as_settings, noise_levels
from undiffuse.training import loop
from undiffuse.training.distillation import student_settings

TINY = {"network.channels": 16, "network.groups": 4, "network.dropout": 0.1}


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with runs/teacher and its student in runs/teacher-distilled, made once."""
    folder = tmp_path_factory.mktemp("distilled")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setenv("UNDIFFUSE_CACHE", str(folder / "cache"))
        ud.train(size=8, images=128, batch=64, out="runs/teacher", set=TINY)
        ud.distill("teacher", images=256)
    return folder


@pytest.fixture(autouse=True)
def in_its_folder(trained: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(trained)
    monkeypatch.setenv("UNDIFFUSE_CACHE", str(trained / "cache"))


@pytest.fixture
def student() -> Run:
    return open_run(Path("runs/teacher-distilled"))


def test_a_student_is_a_run_from_its_teacher_s_weights(student: Run) -> None:
    teacher = open_run(Path("runs/teacher"))
    config = student.config
    assert config.origin is not None
    assert (Path(config.origin.run).name, config.origin.images) == ("teacher", 128)
    assert (config.data, config.data_content, config.network) == (
        teacher.config.data,
        teacher.config.data_content,
        teacher.config.network,
    )
    assert config.training.label_dropout == teacher.config.training.label_dropout
    assert config.training.precision == "fp32"
    assert (config.diffusion.objective, config.diffusion.sigma_mean) == ("consistency", -0.7635)
    assert (config.sampling.sampler, config.sampling.steps, config.sampling.guidance) == ("consistency", 2, 1.0)
    assert (student.folder / "previews" / "000000000256-ema.png").is_file()
    assert student.log_lines()[-1]["loss"] > 0


def test_it_is_sampled_in_as_many_evaluations_as_steps() -> None:
    model = ud.load("runs/teacher-distilled")
    two = [step.sigma.item() for step in model.steps(3)]
    assert two == pytest.approx([0.821 * 0.7 / 0.5, 0])
    assert len(list(model.steps(3, steps=1))) == 1
    images = model.sample(3, seed=5)
    assert np.array_equal(images[2], model.sample(1, seed=7, label=2)[0])
    assert not np.array_equal(images, model.sample(3, seed=5, steps=1))
    one, guided = (last(model.steps(3, label=1, guidance=guidance)).x for guidance in (1.0, 3.0))
    assert not torch.equal(one, guided)


def test_a_teacher_can_be_sampled_as_its_student_is() -> None:
    assert len(list(ud.load("runs/teacher").steps(2, sampler="consistency", steps=1))) == 1


def test_a_student_resumes_without_its_teacher(student: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def stopped(*arguments, **named):
        for i, report in enumerate(loop.training_steps(*arguments, **named)):
            if i == 2:
                raise KeyboardInterrupt
            yield report

    with monkeypatch.context() as patch:
        patch.setattr("undiffuse.training.session.training_steps", stopped)
        with pytest.raises(KeyboardInterrupt):
            ud.distill("teacher", images=256, checkpoint_images=64, out=tmp_path / "again")
    shutil.move("runs/teacher", tmp_path / "teacher")
    try:
        again = ud.distill("teacher", images=256, checkpoint_images=64, out=tmp_path / "again")
    finally:
        shutil.move(tmp_path / "teacher", "runs/teacher")
    (one, two) = (run.last_good() for run in (student, again))
    assert one is not None
    assert two is not None
    assert one.digest("ema") == two.digest("ema")


def test_only_vary_needs_no_other_sampler(tmp_path: Path) -> None:
    image = np.zeros((8, 8), np.uint8)
    edited = ud.edit("teacher-distilled", "vary", image=image, count=2, label=3, out=tmp_path / "vary")
    assert edited.measured["nfe"] == 1
    with pytest.raises(ValueError, match=r"jumps to an image .* give the run that it was distilled from, .*teacher"):
        ud.edit("teacher-distilled", "deblur", image=image, blur=1.0)


def test_bits_per_dim_of_a_student_are_not_computed(tmp_path: Path) -> None:
    ud.evaluate("teacher-distilled", features="pixels", count=20, likelihood=2, out=tmp_path)
    assert "a distilled model makes samples" in json.dumps(json.loads((tmp_path / "metrics.json").read_text()))


def test_what_cannot_be_distilled_is_refused(
    capsys: pytest.CaptureFixture, preset_config: Callable[[str], Config]
) -> None:
    with pytest.raises(ValueError, match="one learned the variance of DDPM's steps too"):
        student_settings(preset_config("cifar10-iddpm"), "one")
    assert "either --images or --minutes" in refused(capsys, "distill", "digits", "--images", "1k", "--minutes", "1")
    assert "There is no run at" in refused(capsys, "distill", "nowhere")


@pytest.mark.parametrize("preset", ["cifar10-ddpm", "cifar10-edm", "cifar10-flow"])
def test_any_parametrization_becomes_a_student_on_a_continuum(
    preset: str, preset_config: Callable[[str], Config]
) -> None:
    config = preset_config(preset)
    student = with_settings(config, as_settings(student_settings(config, "one")))
    assert not student.diffusion.is_discrete
    assert student.diffusion.sigma_mean == -1.1
    assert student.diffusion.parametrization == config.diffusion.parametrization
    origin = Origin(run="one", images=1, digest="", learning_rate=config.optimizer.learning_rate)
    assert student_settings(replace(student, origin=origin), "two") == student_settings(config, "one")
    told = noise_levels(student.diffusion, student.sampling).tolist()
    assert told == pytest.approx([80, 0.821, 0])


def test_the_command_passes_everything_on(monkeypatch: pytest.MonkeyPatch, student: Run) -> None:
    given = {}
    monkeypatch.setattr(
        "undiffuse.api.distill.distill", lambda run, **options: given.update(options, run=run) or student
    )
    main(["distill", "teacher", "--images", "5k", "--batch", "32", "--out", "x", "--set", "diffusion.consistency_q=4"])
    assert given["run"] == "teacher"
    assert (given["images"], given["batch"], given["out"]) == ("5k", 32, "x")
    assert given["set"] == ("diffusion.consistency_q=4",)
    assert given["precision"] == "fp32"
