"""Diffusers folders: read in every layout, written so that the library opens them, and trusted in nothing."""

import inspect
import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from helpers.foreign import DDIMScheduler, DDPMScheduler, UNet2DModel, open_pipeline, random_unet2d
from torch import Tensor

from undiffuse.api.train import train
from undiffuse.config import Config, SamplingConfig, TrainingConfig
from undiffuse.data.store import DataConfig
from undiffuse.diffusion.recipe import DiffusionConfig
from undiffuse.interop import pipelines
from undiffuse.interop.imported import ImportedModel, config_of, save_run
from undiffuse.interop.pipelines import read_pipeline, write_pipeline
from undiffuse.networks.network import NetworkConfig
from undiffuse.networks.unet import UNet, UNetConfig
from undiffuse.runs.run import open_run
from undiffuse.sampling.loading import load_model

Saved = Callable[..., Path]
WEIGHTS = "diffusion_pytorch_model"


def read(folder: Path) -> ImportedModel:
    return read_pipeline(folder, str(folder), None)


def our_output(model: ImportedModel, label: Tensor | None = None) -> Tensor:
    """The imported network's output for a fixed image."""
    network = UNet(model.network, model.diffusion.learned_variance).eval()
    network.load_state_dict(model.tensors)
    with torch.no_grad():
        return network(image(), torch.tensor([3.0, 500.0]), label)


def their_output(network: UNet2DModel, label: Tensor | None = None) -> Tensor:
    with torch.no_grad():
        return network(image(), torch.tensor([3, 500]), class_labels=label).sample


def image() -> Tensor:
    return torch.randn(2, 1, 8, 8, generator=torch.Generator().manual_seed(3))


def same(one: Tensor, other: Tensor) -> bool:
    return torch.allclose(one, other, rtol=1e-5, atol=1e-5)


def edited(folder: Path, name: str, **changes: Any) -> Path:
    """A copy of the folder with one JSON file changed; ... leaves a value out."""
    copy = Path(shutil.copytree(folder, "copy"))
    values = json.loads((copy / name).read_text()) | changes
    (copy / name).write_text(json.dumps({key: value for key, value in values.items() if value is not ...}))
    return copy


@pytest.fixture
def plain(saved: Saved) -> Path:
    return saved()


@pytest.fixture
def config(plain: Path) -> Config:
    """The config of a model with three classes that can be exported."""
    config = config_of(read(plain))
    return replace(
        config,
        class_names=("cats", "dogs", "snow"),
        network=replace(config.network, classes=3),
        training=TrainingConfig(label_dropout=0.1),
    )


def test_a_saved_pipeline_is_read(saved: Saved) -> None:
    scheduler = DDPMScheduler(variance_type="learned_range", beta_schedule="squaredcos_cap_v2")
    model = read(saved(scheduler, out_channels=2, num_class_embeds=4))
    assert model.diffusion.learned_variance
    assert (model.diffusion.schedule, model.sampling.variance) == ("cosine", "learned")
    assert model.class_names == ("0", "1", "2", "3")
    assert not model.trained_unlabeled
    labels = torch.tensor([3, 1])
    assert same(our_output(model, labels), their_output(random_unet2d(out_channels=2, num_class_embeds=4), labels))


def test_a_ddim_pipeline_is_read(saved: Saved) -> None:
    folder = saved(DDIMScheduler(prediction_type="v_prediction", clip_sample=False))
    model = read(edited(folder, "model_index.json", _class_name="DDIMPipeline"))
    assert (model.diffusion.parametrization, model.sampling.sampler, model.sampling.clip) == ("v", "ddim", False)


@pytest.mark.parametrize("index", [True, False])
@pytest.mark.parametrize("suffix", [".safetensors", ".bin"])
def test_a_model_in_one_folder_with_its_scheduler_is_read(plain: Path, index: bool, suffix: str) -> None:
    # The layout of google/ddpm-cifar10-32 on the Hub.
    flat = Path("flat")
    flat.mkdir()
    shutil.copy(plain / "unet" / "config.json", flat)
    shutil.copy(plain / "scheduler" / "scheduler_config.json", flat)
    if index:
        shutil.copy(plain / "model_index.json", flat)
    weights = safetensors.torch.load_file(plain / "unet" / f"{WEIGHTS}.safetensors")
    save: Callable = safetensors.torch.save_file if suffix == ".safetensors" else torch.save
    save(weights, flat / f"{WEIGHTS}{suffix}")
    assert same(our_output(read(flat)), our_output(read(plain)))


def test_a_config_without_a_size_needs_the_option(saved: Saved, plain: Path) -> None:
    sizeless = saved(sample_size=None)
    with pytest.raises(ValueError, match="has no sample_size: give the images' size with --size"):
        read(sizeless)
    assert read_pipeline(sizeless, "x", (8, 16)).network.size == (8, 16)
    assert read_pipeline(plain, "x", (8, 8)).network.size == (8, 8)
    with pytest.raises(ValueError, match="8x8: leave out --size"):
        read_pipeline(plain, "x", (16, 16))


def test_an_imported_run_rebuilds_the_model(plain: Path) -> None:
    model = read(plain)
    run = open_run(save_run(model, Path("runs/one")).folder)
    assert run.config == config_of(model)
    data = DataConfig(str(plain), split="all", size=(8, 8), channels=1)
    assert (run.config.preset, run.config.data) == ("imported", data)
    (checkpoint,) = run.checkpoints()
    assert checkpoint.images == 0
    for part in ("network", "ema"):
        tensors = checkpoint.tensors(part)
        run.config.build_network().load_state_dict(tensors)
        assert all(torch.equal(tensors[name], model.tensors[name]) for name in model.tensors)
    with pytest.raises(ValueError, match="already exists"):
        save_run(model, Path("runs/one"))


@pytest.mark.parametrize("num_class_embeds", [None, 4])
def test_an_imported_model_is_trained_further(num_class_embeds: int | None, saved: Saved) -> None:
    scheduler = DDPMScheduler(variance_type="learned_range", beta_schedule="squaredcos_cap_v2")
    theirs = save_run(read(saved(scheduler, out_channels=2, num_class_embeds=num_class_embeds)), Path("theirs"))
    run = train("digits", from_run=theirs, images=200, batch=100, out="run")
    last, first = run.checkpoints()
    assert (last.images, first.images, run.config.network.classes) == (200, 0, 10)
    before, started, ended = (c.tensors("ema") for c in (*theirs.checkpoints(), first, last))
    kept = [name for name in before if not name.startswith("embed_label")]
    assert all(torch.equal(before[name], started[name]) for name in kept)
    assert sum(torch.equal(started[name], ended[name]) for name in kept) == 0
    if num_class_embeds is not None:
        assert torch.equal(before["embed_label.weight"][:4], started["embed_label.weight"][:4])
        assert torch.equal(before["embed_label.weight"][:4].mean(dim=0), started["embed_label.weight"][7])
    assert load_model(run).sample(2, steps=2).shape == (2, 8, 8, 1)


def test_a_failed_write_leaves_nothing(plain: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*arguments: object, **options: object) -> None:
        raise OSError(28, "No space left on device")

    model, config = read(plain), config_of(read(plain))
    monkeypatch.setattr(safetensors.torch, "save", fail)
    monkeypatch.setattr(safetensors.torch, "save_file", fail)
    with pytest.raises(OSError, match="No space"):
        save_run(model, Path("runs/one"))
    with pytest.raises(OSError, match="No space"):
        write_pipeline(Path("out/one"), config, model.tensors, None, Path("run"))
    assert list(Path("runs").iterdir()) == list(Path("out").iterdir()) == []


def test_an_exported_model_opens_and_samples(config: Config, random_unet: Callable) -> None:
    network = random_unet(replace(config.network, classes=0))
    unlabeled = replace(config, network=network.config, class_names=())
    write_pipeline(Path("out"), unlabeled, network.state_dict(), None, Path("run"))
    opened = open_pipeline("out")
    assert type(opened).__name__ == "DDPMPipeline"
    scheduler = json.loads(Path("out/scheduler/scheduler_config.json").read_text())
    written = {name for name in scheduler if not name.startswith("_")}
    assert written <= inspect.signature(DDPMScheduler.__init__).parameters.keys(), "no other is ignored with a warning"
    with torch.no_grad():
        assert same(their_output(opened.unet), network(image(), torch.tensor([3.0, 500.0])))
    opened.scheduler.set_timesteps(4)
    assert opened.scheduler.timesteps.tolist() == [999, 749, 499, 249]  # Starts at the noisiest level.
    samples = opened(num_inference_steps=2, generator=torch.Generator().manual_seed(0), output_type="np").images
    assert samples.shape == (1, 8, 8, 1)
    assert samples.std() > 0
    assert sorted(str(path.relative_to("out")) for path in Path("out").rglob("*.*")) == [
        *("model_index.json", "scheduler/scheduler_config.json", "unet/config.json", f"unet/{WEIGHTS}.safetensors")
    ]


@pytest.mark.parametrize("trained_unlabeled", [True, False])
def test_an_exported_model_keeps_its_classes_and_comes_back(
    trained_unlabeled: bool, config: Config, random_unet: Callable
) -> None:
    network = random_unet(config.network)
    labeled = replace(config, training=TrainingConfig(label_dropout=0.1 if trained_unlabeled else 0.0))
    write_pipeline(Path("out"), labeled, network.state_dict(), None, Path("run"))
    opened = open_pipeline("out")
    assert opened.unet.config.num_class_embeds == 3 + trained_unlabeled
    for labels in ([0, 2], [1, 1], *([[2, 3]] if trained_unlabeled else [])):
        ours = torch.tensor([label if label < 3 else -1 for label in labels])  # Their last row is our "no label".
        with torch.no_grad():
            expected = network(image(), torch.tensor([3.0, 500.0]), ours)
        assert same(their_output(opened.unet, torch.tensor(labels)), expected)
    again = config_of(read(Path("out")))
    assert again.class_names == ("cats", "dogs", "snow")
    assert (again.training.label_dropout > 0) == trained_unlabeled
    assert again.network == labeled.network
    assert again.diffusion == labeled.diffusion


@pytest.mark.parametrize("label", [2, -1])
def test_an_exported_class_is_sampled_without_labels(label: int, config: Config, random_unet: Callable) -> None:
    network = random_unet(config.network)
    write_pipeline(Path("out"), config, network.state_dict(), label, Path("run"))
    opened = open_pipeline("out")
    assert opened.unet.config.num_class_embeds is None
    with torch.no_grad():
        expected = network(image(), torch.tensor([3.0, 500.0]), torch.tensor([label, label]))
    assert same(their_output(opened.unet), expected)
    assert read(Path("out")).class_names == ()


def test_what_diffusers_lacks_is_not_written(config: Config, random_unet: Callable) -> None:
    tensors = random_unet(config.network).state_dict()
    for changes, message in (
        ({"network": replace(config.network, patch=2)}, "network.patch 2"),
        ({"diffusion": DiffusionConfig(parametrization="edm")}, "the parametrization edm"),
    ):
        with pytest.raises(ValueError, match=message) as refusal:
            write_pipeline(Path("out"), replace(config, **changes), tensors, None, Path("run"))
        assert str(Path("run").absolute()) in str(refusal.value)
    assert not Path("out").exists()


def test_only_undiffuses_own_network_is_exported(config: Config) -> None:
    own = replace(config, network=NetworkConfig(size=(8, 8), image_channels=1, classes=3))
    with pytest.raises(ValueError, match="has the network NetworkConfig, which diffusers does not have"):
        write_pipeline(Path("out"), own, {}, None, Path("run"))
    assert not Path("out").exists()


def test_a_folder_with_content_is_not_overwritten(config: Config, random_unet: Callable) -> None:
    tensors = random_unet(config.network).state_dict()
    Path("out").mkdir()
    Path("out/thesis.txt").write_text("years of work")
    with pytest.raises(ValueError, match="already exists"):
        write_pipeline(Path("out"), config, tensors, None, Path("run"))
    assert [path.name for path in Path("out").iterdir()] == ["thesis.txt"]
    Path("out/thesis.txt").unlink()
    write_pipeline(Path("out"), config, tensors, None, Path("run"))


@pytest.mark.parametrize(
    ("name", "changes", "message"),
    [
        ("model_index.json", {"_class_name": "StableDiffusionPipeline"}, 'has the class "StableDiffusionPipeline"'),
        ("model_index.json", {"vae": ["diffusers", "AutoencoderKL"]}, 'has a "vae" besides its network'),
        ("model_index.json", {"unet": ["diffusers", "UNet2DConditionModel"]}, "as its unet"),
        ("model_index.json", {"unet": ["../../elsewhere", "UNet2DModel"]}, "as its unet"),
        ("model_index.json", {"unet": ["os", "system"]}, "as its unet"),
        ("model_index.json", {"unet": "/etc"}, "as its unet"),
        ("model_index.json", {"unet": ...}, "names None as its unet"),
        ("model_index.json", {"scheduler": ["diffusers", "PNDMScheduler"]}, "as its scheduler"),
        ("model_index.json", {"../secret": ["a", "b"]}, 'has a "../secret" besides its network'),
        ("unet/config.json", {"_class_name": "UNet1DModel"}, 'has the class "UNet1DModel"'),
        ("unet/config.json", {"_class_name": ...}, "has the class None"),
        ("unet/config.json", {"layers_per_block": "two"}, "wrong layers_per_block: Input should be a valid integer"),
        ("unet/config.json", {"block_out_channels": 16}, "wrong block_out_channels"),
        ("unet/config.json", {"block_out_channels": [16, None]}, r"wrong block_out_channels.1"),
        ("unet/config.json", {"layers_per_block": 10**30}, "blocks .* less than or equal to 1024"),
        ("unet/config.json", {"sample_size": [8, 8, 8]}, "wrong sample_size"),
        (
            "unet/config.json",
            {"mixture_of_experts": 8},
            'has "mixture_of_experts", a setting that undiffuse does not know',
        ),
        ("unet/config.json", {"in_channels": 2, "out_channels": 2}, "shape"),
        ("scheduler/scheduler_config.json", {"_class_name": "EulerDiscreteScheduler"}, "EulerDiscreteScheduler"),
        ("scheduler/scheduler_config.json", {"final_sigmas_type": "zero"}, 'has "final_sigmas_type", a setting that'),
        ("scheduler/scheduler_config.json", {"trained_betas": ["a"]}, "wrong trained_betas"),
        ("scheduler/scheduler_config.json", {"num_train_timesteps": 1e9}, "num_train_timesteps 1000000000, which"),
    ],
)
def test_a_file_with_unsupported_content_is_refused(
    plain: Path, name: str, changes: dict[str, Any], message: str
) -> None:
    folder = edited(plain, name, **changes)
    with pytest.raises(ValueError, match=message) as refusal:
        read(folder)
    assert str(folder.absolute()) in str(refusal.value)
    assert "\n" not in str(refusal.value)


def test_an_overlong_config_is_not_read(plain: Path) -> None:
    folder = Path(shutil.copytree(plain, "copy"))
    with (folder / "unet" / "config.json").open("a") as file:
        file.write(" " * 2**20)  # Still JSON.
    with pytest.raises(ValueError, match=r"is longer than 1,048,576 bytes, so it is not a config"):
        read(folder)


def test_unknown_settings_may_be_none_or_comments(plain: Path) -> None:
    read(edited(plain, "unet/config.json", encoder_hid_dim=None, _name_or_path="../../x"))


@pytest.mark.parametrize(
    "content", [b"", b"{", b"[1]", b"3", b"\xff\xfe", b"[" * 500_000, b'{"a":' * 100_000, b"{} " * 10]
)
@pytest.mark.parametrize("name", ["model_index.json", "unet/config.json", "scheduler/scheduler_config.json"])
def test_a_file_without_a_json_object_is_refused(plain: Path, name: str, content: bytes) -> None:
    folder = Path(shutil.copytree(plain, "copy"))
    (folder / name).write_bytes(content)
    with pytest.raises(ValueError, match=r"is not JSON|does not hold a JSON object|nested too deeply") as refusal:
        read(folder)
    assert str((folder / name).absolute()) in str(refusal.value)


@pytest.mark.parametrize("name", ["unet/config.json", "scheduler/scheduler_config.json", f"unet/{WEIGHTS}.safetensors"])
def test_a_missing_file_is_named(plain: Path, name: str) -> None:
    folder = Path(shutil.copytree(plain, "copy"))
    (folder / name).unlink()
    with pytest.raises(FileNotFoundError, match=Path(name).name):
        read(folder)


def test_weights_in_several_files_are_refused(plain: Path) -> None:
    folder = Path(shutil.copytree(plain, "copy"))
    (folder / "unet" / f"{WEIGHTS}.safetensors.index.json").write_text('{"weight_map": {"a": "../../secret"}}')
    with pytest.raises(ValueError, match="in several files"):
        read(folder)


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        ({"class_names": ["a"]}, "names 1 classes, which do not fit the 3 rows"),
        ({"class_names": ["a", "b", "c"], "no_label": True}, "do not fit the 3 rows"),
        ({"class_names": "abc"}, "wrong class_names"),
        ({"class_names": ["a", "b", "c"], "run": "rm"}, 'has "run", a setting'),
    ],
)
def test_labels_of_another_model_are_refused(saved: Saved, labels: dict[str, Any], message: str) -> None:
    folder = saved(num_class_embeds=3)
    (folder / pipelines.LABELS_FILE).write_text(json.dumps(labels))
    with pytest.raises(ValueError, match=message):
        read(folder)


def test_control_characters_in_class_names_become_visible(saved: Saved) -> None:
    folder = saved(num_class_embeds=2)
    (folder / pipelines.LABELS_FILE).write_text(json.dumps({"class_names": ["a\x1b[2J", "b"]}))
    assert read(folder).class_names == ("a\N{REPLACEMENT CHARACTER}[2J", "b")


def test_images_of_two_channels_are_refused(small_network: UNetConfig) -> None:
    network = replace(small_network, image_channels=2)
    model = ImportedModel("somewhere", network, DiffusionConfig(), SamplingConfig(), {}, (), False)
    with pytest.raises(ValueError, match=r"somewhere makes images that undiffuse does not support: .*2"):
        save_run(model, Path("run"))
    assert not Path("run").exists()
