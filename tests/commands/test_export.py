"""`undiffuse export` and `undiffuse.export`: a run becomes a folder that diffusers opens."""

import inspect
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from helpers.foreign import open_pipeline

from undiffuse.api.exchange import export
from undiffuse.cli import main
from undiffuse.config import Config, SamplingConfig, TrainingConfig
from undiffuse.data.augmentation import AugmentationConfig
from undiffuse.data.nonleaky import NUMBERS
from undiffuse.diffusion.recipe import DiffusionConfig
from undiffuse.networks.unet import UNetConfig
from undiffuse.runs.run import create_run, open_run
from undiffuse.sampling.loading import load_model


@pytest.fixture
def make_run(preset_config: Callable[[str], Config], small_network: UNetConfig, random_unet: Callable) -> Callable:
    """Makes runs/one with a small network of three classes, whose two sets of weights differ."""

    def make(**changes: object) -> dict[str, torch.Tensor]:
        config = replace(
            preset_config("cifar10-ddpm"),
            class_names=("cats", "dogs", "snow"),
            network=small_network,
            diffusion=DiffusionConfig(parametrization="eps", sigma_sampler="discrete_uniform"),
            training=TrainingConfig(label_dropout=0.1),
            sampling=SamplingConfig(guidance=1.5),
        )
        config = replace(config, **changes)
        ema = random_unet(config.network).state_dict()
        network = {name: tensor + 0.01 for name, tensor in ema.items()}
        create_run(Path("runs/one"), config).save(500, {"network": network, "ema": ema}, {}, keep=1)
        return ema

    return make


def refused(capsys: pytest.CaptureFixture, *words: str) -> str:
    with pytest.raises(SystemExit) as end:
        main(["export", *words])
    assert end.value.code == 2
    assert not Path("out").exists()
    return capsys.readouterr().err.strip()


def test_a_class_is_exported_by_name(make_run: Callable, random_unet: Callable, small_network: UNetConfig) -> None:
    make_run()
    main(["export", "one", "--to", "diffusers", "out", "--label", "dogs"])
    x, ours = torch.randn(2, 1, 8, 8), random_unet(small_network)
    with torch.no_grad():
        expected = ours(x, torch.tensor([3.0, 500.0]), torch.tensor([1, 1]))
        torch.testing.assert_close(
            open_pipeline("out").unet(x, torch.tensor([3, 500])).sample, expected, rtol=1e-5, atol=1e-5
        )


def test_what_a_network_is_told_of_augmentation_is_left_out(
    make_run: Callable, random_unet: Callable, small_network: UNetConfig
) -> None:
    ema = make_run(augmentation=AugmentationConfig(nonleaky=0.12))
    told = ema | {"embed_augmentation.weight": torch.ones(4 * small_network.channels, NUMBERS)}
    open_run(Path("runs/one")).save(600, {"network": told, "ema": told}, {}, keep=1)
    main(["export", "one", "--to", "diffusers", "out", "--label", "dogs"])
    x, ours = torch.randn(2, 1, 8, 8), random_unet(small_network)
    with torch.no_grad():
        expected = ours(x, torch.tensor([3.0, 500.0]), torch.tensor([1, 1]))
        theirs = open_pipeline("out").unet(x, torch.tensor([3, 500])).sample
    torch.testing.assert_close(theirs, expected, rtol=1e-5, atol=1e-5)


def test_a_run_that_trained_on_patches_is_refused(make_run: Callable, capsys: pytest.CaptureFixture) -> None:
    make_run(augmentation=AugmentationConfig(patches=0.5))
    with pytest.raises(SystemExit):
        main(["export", "one", "--to", "diffusers", "out"])
    assert "trained on patches" in capsys.readouterr().err
    assert not Path("out").exists()


def test_a_model_keeps_its_classes_with_a_notice(make_run: Callable, capsys: pytest.CaptureFixture) -> None:
    make_run()
    main(["export", "one", "--to", "diffusers", "out"])
    output = capsys.readouterr().out
    assert f"Exported the ema weights at 500 images to {Path('out').absolute()}" in output
    assert "call its unet with class_labels" in output
    assert "The run's guidance, 1.5, was left out" in output
    assert 'DiffusionPipeline.from_pretrained("out")' in output
    assert open_pipeline("out").unet.config.num_class_embeds == 4


@pytest.mark.parametrize(("weights", "offset"), [("ema", 0.0), ("average", 0.0), ("network", 0.01)])
def test_either_set_of_weights_can_be_exported(weights: str, offset: float, make_run: Callable) -> None:
    ema = make_run()
    main(["export", "one", "--to", "diffusers", "out", "--weights", weights])
    torch.testing.assert_close(open_pipeline("out").unet.state_dict()["conv_in.weight"], ema["input.weight"] + offset)


def test_an_exported_run_can_be_imported_again(make_run: Callable) -> None:
    make_run()
    main(["export", "one", "--to", "diffusers", "out"])
    main(["import", "out", "--out", "runs/two"])
    main(["sample", "two", "--label", "snow", "--guidance", "2", "--count", "1", "--steps", "2", "--out", "images"])
    assert Path("images/000000.png").exists()


def test_an_unsupported_model_is_refused_by_name(make_run: Callable, capsys: pytest.CaptureFixture) -> None:
    make_run(diffusion=DiffusionConfig(parametrization="flow", sigma_sampler="logit_normal"))
    message = refused(capsys, "one", "--to", "diffusers", "out")
    assert "has the parametrization flow" in message
    assert str(Path("runs/one").absolute()) in message


def test_a_wrong_command_is_refused(make_run: Callable, capsys: pytest.CaptureFixture) -> None:
    make_run(training=TrainingConfig(label_dropout=0.0))
    to = ["--to", "diffusers", "out"]
    assert "no run at" in refused(capsys, "none", *to)
    assert "no such class" in refused(capsys, "one", *to, "--label", "birds")
    assert "always saw the class" in refused(capsys, "one", *to, "--label", "none")
    assert "--to pickle is not a format: choose diffusers, onnx, web." in refused(
        capsys, "one", "--to", "pickle", "out"
    )
    assert "--to" in refused(capsys, "one")
    (checkpoint,) = Path("runs/one/checkpoints").iterdir()
    (checkpoint / "ema.safetensors").write_bytes(b"")
    assert "has no whole checkpoint" in refused(capsys, "one", *to)
    Path("taken").mkdir()
    Path("taken/thesis.txt").write_text("")
    with pytest.raises(SystemExit):
        main(["export", "one", "--to", "diffusers", "taken"])
    assert [path.name for path in Path("taken").iterdir()] == ["thesis.txt"]


def test_the_function_takes_a_run_or_a_model_and_is_quiet(make_run: Callable, capsys: pytest.CaptureFixture) -> None:
    ema = make_run()
    run = open_run(Path("runs/one"))
    assert export(run, target="by_run", label=1) == Path("by_run")
    export(load_model(run, torch.device("cpu")), "diffusers", "by_model", label="dogs")
    assert export("one") == Path("exported/one")
    assert capsys.readouterr() == ("", "")
    by_run, by_model = (open_pipeline(folder).unet.state_dict() for folder in ("by_run", "by_model"))
    assert torch.equal(by_run["conv_in.weight"], ema["input.weight"])
    assert all(torch.equal(by_run[name], by_model[name]) for name in by_run)
    assert open_pipeline("exported/one").unet.config.num_class_embeds == 4


def test_the_functions_errors_are_the_commands(make_run: Callable) -> None:
    make_run()
    unchecked = inspect.unwrap(export)  # Annotations are only enforced in the tests.
    with pytest.raises(ValueError, match="--to pickle is not a format: choose diffusers, onnx, web"):
        unchecked("one", to="pickle")
    with pytest.raises(ValueError, match="--weights best does not exist: choose ema or network"):
        unchecked("one", weights="best")
    with pytest.raises(ValueError, match="no such class"):
        export("one", label="birds")
    assert not Path("exported").exists()
