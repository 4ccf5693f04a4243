"""undiffuse export: a run becomes a folder that diffusers opens."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from helpers.foreign import open_pipeline

from undiffuse.cli import main
from undiffuse.config import Config, SamplingConfig, TrainingConfig
from undiffuse.diffusion.recipe import DiffusionConfig
from undiffuse.networks.unet import UNetConfig
from undiffuse.runs.run import create_run


@pytest.fixture
def make_run(preset_config: Callable[[str], Config], small_network: UNetConfig, random_unet: Callable) -> Callable:
    """Makes runs/one with a small network of three classes, whose two sets of weights differ."""

    def make(**changes: object) -> dict[str, torch.Tensor]:
        config = replace(
            preset_config("cifar10-ddpm"),
            class_names=("cats", "dogs", "snow"),
            network=small_network,
            diffusion=DiffusionConfig(parametrization="eps", draw="discrete_uniform"),
            training=TrainingConfig(label_dropout=0.1),
            sampling=SamplingConfig(guidance=1.5),
        )
        config = replace(config, **changes)
        average = random_unet(config.network).state_dict()
        network = {name: tensor + 0.01 for name, tensor in average.items()}
        create_run(Path("runs/one"), config).save(500, {"network": network, "average": average}, {}, keep=1)
        return average

    return make


def refused(capsys: pytest.CaptureFixture, *words: str) -> str:
    with pytest.raises(SystemExit) as end:
        main(["export", *words])
    assert end.value.code == 2
    said = capsys.readouterr().err.strip()
    assert not Path("out").exists()
    return said


def test_a_class_is_exported_by_name(make_run: Callable, random_unet: Callable, small_network: UNetConfig) -> None:
    make_run()
    main(["export", "one", "--to", "diffusers", "out", "--label", "dogs"])
    x, ours = torch.randn(2, 1, 8, 8), random_unet(small_network)
    with torch.no_grad():
        expected = ours(x, torch.tensor([3.0, 500.0]), torch.tensor([1, 1]))
        torch.testing.assert_close(
            open_pipeline("out").unet(x, torch.tensor([3, 500])).sample, expected, rtol=1e-5, atol=1e-5
        )


def test_a_model_with_classes_keeps_them_and_says_how_they_are_told(
    make_run: Callable, capsys: pytest.CaptureFixture
) -> None:
    make_run()
    main(["export", "one", "--to", "diffusers", "out"])
    said = capsys.readouterr().out
    assert str(Path("out").absolute()) in said
    assert "call its unet with class_labels" in said
    assert "The guidance of this run, 1.5" in said
    assert open_pipeline("out").unet.config.num_class_embeds == 4


@pytest.mark.parametrize(("weights", "moved"), [("average", 0.0), ("network", 0.01)])
def test_either_set_of_weights_can_be_exported(weights: str, moved: float, make_run: Callable) -> None:
    average = make_run()
    main(["export", "one", "--to", "diffusers", "out", "--weights", weights])
    torch.testing.assert_close(
        open_pipeline("out").unet.state_dict()["conv_in.weight"], average["input.weight"] + moved
    )


def test_an_exported_run_can_be_imported_again(make_run: Callable) -> None:
    make_run()
    main(["export", "one", "--to", "diffusers", "out"])
    main(["import", "out", "--out", "runs/two"])
    main(["sample", "two", "--label", "snow", "--guidance", "2", "--count", "1", "--steps", "2", "--out", "images"])
    assert Path("images/000000.png").exists()


def test_what_cannot_be_exported_is_refused_by_name(make_run: Callable, capsys: pytest.CaptureFixture) -> None:
    make_run(diffusion=DiffusionConfig(parametrization="flow", draw="logit_normal"))
    said = refused(capsys, "one", "--to", "diffusers", "out")
    assert "in the way of flow" in said
    assert str(Path("runs/one").absolute()) in said


def test_a_wrong_command_is_answered(make_run: Callable, capsys: pytest.CaptureFixture) -> None:
    make_run(training=TrainingConfig(label_dropout=0.0))
    to = ["--to", "diffusers", "out"]
    assert "no run at" in refused(capsys, "none", *to)
    assert "no such class" in refused(capsys, "one", *to, "--label", "birds")
    assert "always saw the class" in refused(capsys, "one", *to, "--label", "none")
    assert "onnx" in refused(capsys, "one", "--to", "onnx", "out")
    assert "--to" in refused(capsys, "one")
    (checkpoint,) = Path("runs/one/checkpoints").iterdir()
    (checkpoint / "average.safetensors").write_bytes(b"")
    assert "has no whole checkpoint" in refused(capsys, "one", *to)
    Path("taken").mkdir()
    Path("taken/thesis.txt").write_text("")
    make_run_again = ["export", "one", "--to", "diffusers", "taken"]
    with pytest.raises(SystemExit):
        main(make_run_again)
    assert [path.name for path in Path("taken").iterdir()] == ["thesis.txt"]
