"""Hostile weights, diffusers folders and run folders."""

import hashlib
import json
import pickle
import shutil
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from helpers.hostile.case import Case
from undiffuse.config import SamplingConfig
from undiffuse.features.weights import read_weights
from undiffuse.interop.sources import Overrides, read_model
from undiffuse.interop.weights import read_tensors
from undiffuse.runs.find import SHIPPED
from undiffuse.runs.gallery import Gallery, open_gallery
from undiffuse.runs.run import open_run
from undiffuse.sampling.loading import load_model

DAMAGED = "is damaged, or not a safetensors file"
MORE = "holds more than weights"
NOT_OURS = "is not the config of a run"


def weights(name: str, file: str, make: bytes | Callable[[Path], object], sentence: str) -> Case:
    def write() -> None:
        if isinstance(make, bytes):
            Path(file).write_bytes(make)
        else:
            make(Path(file))

    return Case(name, write, lambda: f"read: {len(read_tensors(Path(file)))} tensors", sentence)


def safetensors(header: Any, content: bytes = bytes(64)) -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + content


def tensor(shape: list[int], begin: int = 0, end: int = 64, dtype: str = "F32") -> dict[str, Any]:
    return {"dtype": dtype, "shape": shape, "data_offsets": [begin, end]}


def many_tensors(path: Path) -> None:
    path.write_bytes(safetensors({f"layer.{i}.weight": tensor([16]) for i in range(200_000)}))


def holed(start: bytes, size: int) -> Callable[[Path], None]:
    def write(path: Path) -> None:
        with open(path, "wb") as file:
            file.write(start)
            file.truncate(size)

    return write


class Asks:
    """Unpickled, it asks for a gigabyte of bytes, 100 times."""

    def __reduce__(self) -> tuple[type, tuple[int]]:
        return bytearray, (2**36,)


class Runs:
    def __reduce__(self) -> tuple[Callable[[str], object], tuple[str]]:
        return eval, ("open('executed', 'w')",)


def torch_file(content: Any, compressed: bool = False) -> Callable[[Path], None]:
    def write(path: Path) -> None:
        torch.save(content, path)
        if compressed:
            with zipfile.ZipFile(path) as stored:
                members = {name: stored.read(name) for name in stored.namelist()}
            with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as packed:
                for name, member in members.items():
                    packed.writestr(name, member)

    return write


def nested_pickle(path: Path) -> None:
    path.write_bytes(b"\x80\x02" + b"]" * 1_000_000 + b"a" * 999_999 + b".")


UNET = {
    "_class_name": "UNet2DModel",
    "sample_size": 32,
    "in_channels": 3,
    "out_channels": 3,
    "block_out_channels": [32, 64],
    "down_block_types": ["DownBlock2D", "DownBlock2D"],
    "up_block_types": ["UpBlock2D", "UpBlock2D"],
    "layers_per_block": 1,
    "norm_num_groups": 8,
}
SCHEDULER = {"_class_name": "DDPMScheduler", "num_train_timesteps": 1000}


def pipeline(
    name: str, sentence: str, unet: Any = None, scheduler: Any = None, files: dict[str, Any] | None = None
) -> Case:
    """A diffusers folder: with these settings in place of good ones, and these files besides."""

    def write() -> None:
        content = {"config.json": UNET | (unet or {}), "scheduler_config.json": SCHEDULER | (scheduler or {})}
        content["diffusion_pytorch_model.safetensors"] = safetensors({"conv_in.weight": tensor([16])})
        for file, value in (content | (files or {})).items():
            path = Path("model") / file
            path.parent.mkdir(exist_ok=True)
            if callable(value):
                value(path)
            else:
                path.write_bytes(value if isinstance(value, bytes) else json.dumps(value).encode())

    return Case(name, write, lambda: f"read: {read_model('model', Overrides()).network}", sentence)


def run(name: str, sentence: str, change: Callable[[Path], object]) -> Case:
    """The run folder of the digits that come with the package, changed."""

    def write() -> None:
        shutil.copytree(SHIPPED / "digits", "run")
        change(Path("run"))

    return Case(
        name,
        write,
        lambda: _sampled(),
        sentence,
    )


def _sampled() -> str:
    """Opens a run as `sample` and the page of runs do."""
    opened = open_run(Path("run"))
    model, lines = load_model(opened), opened.log_lines()
    made = opened.checkpoints()[0]
    return (
        f"read: {model}, {len(lines)} lines, {', '.join(opened.config.class_names)}; {made.ema_length}, {made.ema_of}"
    )


def setting(**settings: Any) -> Callable[[Path], None]:
    """Changes settings of config.json, of its network where they are the network's."""

    def change(folder: Path) -> None:
        file = folder / "config.json"
        config = json.loads(file.read_text())
        for name, value in settings.items():
            (config["network"] if name in config["network"] else config)[name] = value
        file.write_text(json.dumps(config))

    return change


def replaced(name: str, make: bytes | Callable[[Path], object]) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        path = next(iter(folder.rglob(name)), folder / name)
        path.unlink(missing_ok=True)
        if isinstance(make, bytes):
            path.write_bytes(make)
        else:
            make(path)

    return change


def with_digest(make: bytes | Callable[[Path], object]) -> Callable[[Path], None]:
    """Replaces the weights, and the digest that checkpoint.json has of them."""

    def change(folder: Path) -> None:
        replaced("ema.safetensors", make)(folder)
        file = next(folder.rglob("checkpoint.json"))
        index = json.loads(file.read_text())
        index["parts"]["ema"] = hashlib.sha256(next(folder.rglob("ema.safetensors")).read_bytes()).hexdigest()
        file.write_text(json.dumps(index))

    return change


def stated(**values: Any) -> Callable[[Path], None]:
    """Changes checkpoint.json."""

    def change(folder: Path) -> None:
        file = next(folder.rglob("checkpoint.json"))
        file.write_text(json.dumps(json.loads(file.read_text()) | values))

    return change


def samples(name: str, make: bytes | Callable[[Path], object], sentence: str) -> Case:
    """A folder of samples that `sample` goes on with, and its samples.json."""

    def write() -> None:
        Path("samples").mkdir()
        replaced("samples.json", make)(Path("samples"))

    gallery = Gallery(Path("samples"), (1, 16, 16), (), SamplingConfig(), None)
    return Case(name, write, lambda: f"read: {open_gallery(gallery, {}).folder}", sentence)


DEEP = b"[" * 200_000 + b"]" * 200_000
MARKUP = "<img src=x onerror=alert(1)>\n\x1b[31m"

CASES: list[Case] = [
    weights(
        "safetensors whose header claims 2**60 bytes", "a.safetensors", struct.pack("<Q", 2**60) + bytes(64), DAMAGED
    ),
    weights("safetensors with 200,000 tensors on one place", "a.safetensors", many_tensors, DAMAGED),
    weights("safetensors whose header is nested 200,000 deep", "a.safetensors", safetensors(DEEP), DAMAGED),
    weights(
        "safetensors whose tensor claims 4 TB", "a.safetensors", safetensors({"a": tensor([2**20, 2**20])}), DAMAGED
    ),
    weights(
        "safetensors whose tensor lies beyond its end",
        "a.safetensors",
        safetensors({"a": tensor([16], 2**40, 2**40 + 64)}),
        DAMAGED,
    ),
    weights(
        "safetensors of 300 GB with holes",
        "a.safetensors",
        holed(safetensors({"a": tensor([16])}), 300 * 2**30),
        "holds 322,122,547,200 bytes of weights, more than 512 MiB",
    ),
    weights(
        "safetensors with markup in a name",
        "a.safetensors",
        safetensors({MARKUP: tensor([16], dtype="I32")}),
        r'"<img src=x onerror=alert\(1\)>\ufffd\ufffd\[31m"',
    ),
    weights("safetensors that is empty", "a.safetensors", b"", DAMAGED),
    weights("pickle that runs code", "a.pt", torch_file({"a": Runs()}), MORE),
    weights("pickle that asks for 64 GiB of bytes", "a.pt", torch_file({"a": Asks()}), MORE),
    weights("pickle that asks for 64 GiB of bytes, without an archive", "a.bin", pickle.dumps({"a": Asks()}, 2), MORE),
    weights("pickle of 1,000,000 lists in each other", "a.pt", nested_pickle, MORE),
    weights("pickle named .pkl", "a.pkl", pickle.dumps({}), "is a pickle, which can run its author's code"),
    weights("torch file of zeros, compressed", "a.pt", torch_file({"a": torch.zeros(2**22)}, True), "is compressed"),
    weights(
        "torch file whose tensor repeats one number 2**40 times",
        "a.pt",
        torch_file({"a": torch.zeros(1).expand(2**40)}),
        "claims more numbers than it holds",
    ),
    weights("torch file of a number", "a.pt", torch_file({"a": 1}), "is not a tensor"),
    weights("torch file that is cut off", "a.pt", b"PK\3\4" + bytes(64), MORE),
    pipeline(
        "diffusers folder whose weights lie elsewhere",
        "has its weights in several files",
        files={"diffusion_pytorch_model.safetensors.index.json": {"weight_map": {"a": "../../etc/passwd"}}},
    ),
    pipeline(
        "diffusers folder of 65,536 channels",
        "has too few weights for the network",
        unet={"block_out_channels": [2**16, 2**16]},
    ),
    pipeline("diffusers folder of 2**40 channels", "cannot build", unet={"block_out_channels": [2**40, 2**40]}),
    pipeline("diffusers folder of 10**9 layers", "cannot build|supports|support", unet={"layers_per_block": 10**9}),
    pipeline(
        "diffusers folder of 10**9 x 10**9 pixels", "has too few weights for the network", unet={"sample_size": 10**9}
    ),
    pipeline(
        "diffusers folder of 10**12 timesteps",
        "num_timesteps|timesteps|support",
        scheduler={"num_train_timesteps": 10**12},
    ),
    pipeline("diffusers folder of NaN betas", "beta|support", scheduler={"beta_start": float("nan")}),
    pipeline("diffusers folder with a class of its own", "has the class", unet={"_class_name": MARKUP}),
    pipeline("diffusers folder with an unknown setting", "a setting that undiffuse does not know", unet={MARKUP: 1}),
    pipeline(
        "diffusers folder whose config is nested 200,000 deep",
        "nested too deeply|not JSON",
        files={"config.json": DEEP},
    ),
    pipeline(
        "diffusers folder whose config has 300 GB with holes",
        "is longer than",
        files={"config.json": holed(b"{", 300 * 2**30)},
    ),
    pipeline(
        "diffusers folder whose config has a number of 10,000 digits",
        "is not JSON",
        files={"config.json": b'{"sample_size": ' + b"9" * 10_000 + b"}"},
    ),
    pipeline(
        "diffusers folder with a safety checker of its own",
        'has a "other" besides its network',
        files={
            "model_index.json": {
                "_class_name": "DDPMPipeline",
                "unet": ["diffusers", "UNet2DModel"],
                "scheduler": ["diffusers", "DDPMScheduler"],
                "other": ["os", "system"],
            }
        },
    ),
    run(
        "run whose config has 300 GB with holes",
        NOT_OURS + ".*longer",
        replaced("config.json", holed(b"{", 300 * 2**30)),
    ),
    run("run whose config is nested 200,000 deep", NOT_OURS + ".*nested too deeply", replaced("config.json", DEEP)),
    run("run whose config is no text", NOT_OURS, replaced("config.json", b"\xff\xfe\0\x80")),
    run("run of 65,536 channels", "does not fit its weights", setting(channels=2**16, groups=32)),
    run("run of 2**40 channels", NOT_OURS, setting(channels=2**40)),
    run("run of 10**9 blocks", NOT_OURS, setting(blocks=10**9)),
    run("run of other weights", "does not fit its weights", setting(blocks=3)),
    run("run with an unknown setting", NOT_OURS + ".*unknown setting", setting(**{MARKUP: 1})),
    run(
        "run with classes that hold markup",
        r"<img src=x onerror=alert\(1\)>\ufffd\ufffd\[31m",
        setting(class_names=[MARKUP] * 10),
    ),
    run(
        "run whose checkpoint states 300 GB",
        "has no whole checkpoint",
        replaced("checkpoint.json", holed(b"{", 300 * 2**30)),
    ),
    run("run whose checkpoint is nested 200,000 deep", "has no whole checkpoint", replaced("checkpoint.json", DEEP)),
    run("run whose weights are a pickle", "has no whole checkpoint", replaced("ema.safetensors", pickle.dumps(Runs()))),
    run("run whose log has 300 GB with holes", "longer than", replaced("log.jsonl", holed(b"{}", 300 * 2**30))),
    run(
        "run whose weights have 300 GB with holes",
        "has no whole checkpoint",
        replaced("ema.safetensors", holed(safetensors({"a": tensor([16])}), 300 * 2**30)),
    ),
    run(
        "run whose weights claim 1 TB, with their digest",
        "is not a safetensors file",
        with_digest(safetensors({"a": tensor([2**38], 0, 2**40)})),
    ),
    run("run whose weights are no weights, with their digest", "is not a safetensors file", with_digest(bytes(4096))),
    run(
        "run whose weights have other names, with their digest",
        "does not fit its weights",
        with_digest(safetensors({MARKUP: tensor([16])})),
    ),
    run("run whose checkpoint has a list for a state", "has no whole checkpoint", stated(state=[MARKUP])),
    run(
        "run whose checkpoint names parts elsewhere", "has no whole checkpoint", stated(parts={"../../../../ema": "0"})
    ),
    run("run whose checkpoint has a list of parts", "has no whole checkpoint", stated(parts=["ema"])),
    Case(
        "weights of a feature network of 300 GB with holes",
        lambda: holed(b"PK", 300 * 2**30)(Path("weights.pth")),
        lambda: f"read: {read_weights(Path('weights.pth'), None).sha256}",
        "more than the weights of any feature network",
    ),
    run(
        "run whose checkpoint has a list for an EMA length",
        "read: .* None, None",
        stated(state={"ema_length": [MARKUP], "ema_of": [MARKUP]}),
    ),
    samples("samples.json of 300 GB with holes", holed(b"{", 300 * 2**30), "is damaged .it is longer than"),
    samples("samples.json nested 200,000 deep", DEEP, "is damaged .it is nested too deeply"),
    samples("samples.json with markup in a name", json.dumps({MARKUP: 1}).encode(), "holds samples made with"),
]
