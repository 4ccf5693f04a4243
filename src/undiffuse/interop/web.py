"""A folder with a page that runs the model in the visitor's browser, from any static host.

The noise levels of every number of steps, and the noise of the first seeds, go with it, so that its images are those of
`undiffuse sample`; the sampler's steps alone are written twice, in `page/samplers.js` too.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import jinja2
import torch

from undiffuse.config import Config, SamplingConfig
from undiffuse.interop.onnx_runtime_web import WASM
from undiffuse.sampling.model import Model, seeded_noise
from undiffuse.sampling.options import noise_levels, sampling_config
from undiffuse.utils.files import atomic_path
from undiffuse.utils.text import size_text

PAGE = Path(__file__).parent / "page"


@dataclass(frozen=True)
class PageSampler:
    """One of the samplers that the page has."""

    name: str
    steps: tuple[int, ...]
    """The numbers of steps to choose from, besides the run's own."""
    draws: int = 1
    """How much noise of each seed it takes: the start and, for a sampler that adds noise, one for each further step."""


BEST = PageSampler("ipndm", (2, 4, 6, 8, 12, 18, 35))
"""Best for few steps, deterministic, and ten lines."""

FOR_STUDENTS = PageSampler("consistency", (1, 2, 4), draws=4)
"""For distilled models."""

MOST_STEPS = 100
"""Of the run's own, for a browser."""

SEEDS = 64
"""So many seeds' noise goes with the page."""

MOST_NOISE = 2**24
"""Bytes of noise: large images have fewer seeds."""

COPIED = {
    **{name: name for name in ("page.js", "worker.js", "samplers.js", "noise.js", "README.txt")},
    "ort/LICENSE.txt": "ort-license.txt",
}


def write_web(
    folder: Path, model: Model, name: str, onnx: bytes, card: str, runtime: Mapping[str, bytes]
) -> dict[str, int]:
    """Writes the page whole or not at all, and returns the bytes of each file.

    `runtime` is onnxruntime-web (`onnx_runtime_web.runtime_files`), `card` a text about the model, or "".

    Raises:
        OSError: writing failed.
    """
    sampler = FOR_STUDENTS if model.diffusion.jumps else BEST
    seeds = min(SEEDS, max(1, MOST_NOISE // (4 * sampler.draws * _pixels(model))))
    draw = seeded_noise(model, range(seeds))
    noise = torch.stack([draw() for _ in range(sampler.draws)], dim=1)
    files = {
        **runtime,
        "model.onnx": onnx,
        "noise.bin": noise.numpy().astype("<f4").tobytes(),
        **{target: (PAGE / source).read_bytes() for target, source in COPIED.items()},
        "style.css": (PAGE.parents[1] / "report" / "tokens.css").read_bytes() + (PAGE / "style.css").read_bytes(),
        "index.html": _index(model, name).encode(),
    }
    sizes = {file: len(files[file]) for file in ("model.onnx", "noise.bin", WASM)}
    files["model.json"] = json.dumps(_settings(model.config, sampler, name, seeds, sizes, card), indent=1).encode()
    files["offline.js"] = _offline(name, files).encode()
    with atomic_path(folder) as temporary:
        for file, content in files.items():
            (temporary / file).parent.mkdir(parents=True, exist_ok=True)
            (temporary / file).write_bytes(content)
    return {file: len(content) for file, content in files.items()}


def _settings(
    config: Config, sampler: PageSampler, name: str, seeds: int, sizes: dict[str, int], card: str
) -> dict[str, object]:
    own = config.sampling.steps if config.sampling.steps <= MOST_STEPS else SamplingConfig().steps
    if sampler.draws > 1:
        own = min(own, sampler.draws)  # There is no noise for more.
    sampling = {steps: sampling_config(config, sampler.name, steps) for steps in sorted({*sampler.steps, own})}
    return {
        "name": name,
        "shape": [config.network.image_channels, *config.network.size],
        "class_names": config.class_names,
        "unlabeled": bool(config.class_names) and config.training.label_dropout > 0,
        "guidance": sampling[own].guidance,
        "guidance_interval": sampling[own].guidance_interval,
        "clip": sampling[own].clip,
        "order": sampling[own].order,
        "sampler": sampler.name,
        "draws": sampler.draws,
        "steps": own,
        "sigmas": {steps: noise_levels(config.diffusion, each).tolist() for steps, each in sampling.items()},
        "seeds": seeds,
        "bytes": sizes,
        "card": card,
    }


def _index(model: Model, name: str) -> str:
    config = model.config
    parameters = sum(weights.numel() for weights in model.network.parameters()) if model.network else 0
    height, width = config.network.size
    kind = "gray" if config.network.image_channels == 1 else "color"
    about = f"A diffusion model, {size_text(config.network.size)} in {kind}, {parameters / 1e6:.1f} million weights"
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(PAGE), autoescape=True, undefined=jinja2.StrictUndefined
    )
    return environment.get_template("index.html").render(title=name, about=about, width=width, height=height)


def _offline(name: str, files: dict[str, bytes]) -> str:
    """The service worker, which keeps the page's files for visits without a network."""
    digest = hashlib.sha256(b"".join(files[file] for file in sorted(files))).hexdigest()[:16]
    kept = ["./", *(file for file in sorted(files) if not file.endswith(".txt"))]
    head = f"const NAME = {json.dumps(f'undiffuse-{name}')};\nconst DIGEST = {json.dumps(digest)};\n"
    head += f"const FILES = {json.dumps(kept)};\n\n"
    return head + (PAGE / "offline.js").read_text(encoding="utf-8")


def _pixels(model: Model) -> int:
    channels, height, width = model.shape
    return channels * height * width
