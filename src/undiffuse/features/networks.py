"""Feature networks: uint8 images in, one vector of features for each image out."""

import io
import re
from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from types import ModuleType
from typing import NamedTuple

import safetensors.torch
import torch
import torch.nn.functional as F
from jaxtyping import Float, UInt8
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from undiffuse.features.table import FEATURES, feature_row, find_weights
from undiffuse.features.weights import Weights, read_weights
from undiffuse.utils.device import convolution_format, upload
from undiffuse.utils.text import size_text

PIXELS_SIDE = 16

DINOV2 = "vit_large_patch14_dinov2"
"""timm's name of the network that Stein et al. (2023) report FD-DINOv2 of."""


class Extracted(NamedTuple):
    """What a feature network computes."""

    features: Float[Tensor, "b d"]
    logits: Float[Tensor, "b k"]
    """Class logits for the Inception Score; k = 0 if the network is not a classifier."""


Extract = Callable[[UInt8[Tensor, "b 3 h w"]], Extracted | Float[Tensor, "b d"]]
"""Takes images on the CPU; returns features with or without class logits, on any device."""


@dataclass(frozen=True)
class FeatureNetwork:
    """A feature network, with everything that its features depend on.

    A network of your own needs a name and a function:

    Example:
        network = FeatureNetwork("mean-color", lambda images: images.float().mean(dim=(2, 3)))  # (b, 3, h, w) uint8
        undiffuse.measure("photos/", "samples/", features=network)["FD-mean-color"].value

    Raises:
        ValueError: the name is not fit for the name of a folder, or is that of another network.
    """

    name: str
    extract: Extract
    distance: str = ""
    """The name of its Frechet distance; FD-name by default."""
    kernel: str = ""
    """The name of its kernel distance; KD-name by default."""
    resize: str = "its own"
    """How it resizes images."""
    weights: str = "unknown"
    """Name of the weights file."""
    weights_sha256: str = ""
    is_release: bool = False
    """Whether these are the weights that published values are computed with."""
    given: bool = False
    """Whether the user named the weights file."""
    cacheable: bool = False
    """Whether features in the cache may be used: if so, they depend on nothing but name, resize and weights_sha256."""

    def __post_init__(self):
        if not re.fullmatch(r"[\w.-]+", self.name):
            raise ValueError(f"{self.name!r} is not a name for features: use letters, digits, '-', '_' and '.'.")
        for field, prefix in (("distance", "FD"), ("kernel", "KD")):
            if not getattr(self, field):
                object.__setattr__(self, field, f"{prefix}-{self.name}")
        if self.name in FEATURES and self.distance != FEATURES[self.name].distance:
            raise ValueError(f"{self.name} is the name of another feature network: give yours another one.")

    @torch.no_grad()
    def __call__(self, images: UInt8[Tensor, "b 3 h w"]) -> Extracted:
        """Features and logits in float32, on the CPU.

        Raises:
            ValueError: `extract` returns something other than one row for each image.
        """
        found = self.extract(images)
        outputs = found if isinstance(found, tuple) else (found, torch.empty(len(found), 0))
        features, logits = (output.float().cpu() for output in outputs)
        if any(output.ndim != 2 or len(output) != len(images) for output in (features, logits)):
            raise ValueError(
                f"{self.name} returns features of shape {tuple(features.shape)} for {len(images)} images: return one "
                "row for each image."
            )
        return Extracted(features, logits)


class Loaded(NamedTuple):
    """What a loader returns: a row of the table says the rest."""

    extract: Extract
    resize: str


def load_features(features: str, weights: str | Path | None, device: torch.device) -> FeatureNetwork:
    """Loads a feature network of the table.

    Args:
        features: Its name in `undiffuse.features.table.FEATURES`.
        weights: A file of weights; None finds the published ones, which are downloaded if necessary.

    Raises:
        FileNotFoundError: the weights file is missing, or cannot be downloaded.
        ValueError: there are no features of that name, or the file is damaged, holds code, or is not the network's.
    """
    row, path = feature_row(features), find_weights(features, weights)
    load = globals()[row.loader]
    if path is None:
        loaded, file = load(), None
    else:
        # Weights that the user names may be any; otherwise they must be the release.
        file = read_weights(path, None if weights else row.release)
        loaded = load(file, device)
    return FeatureNetwork(
        name=features,
        extract=loaded.extract,
        distance=row.distance,
        kernel=row.kernel,
        resize=loaded.resize,
        weights=file.path.name if file else "none",
        weights_sha256=file.sha256 if file else "",
        is_release=file is not None and row.release is not None and file.sha256 == row.release.sha256,
        given=bool(weights),
        cacheable=True,
    )


def pixels_network() -> FeatureNetwork:
    """The pixels themselves as features: needs no weights."""
    return load_features("pixels", None, torch.device("cpu"))


def load_inception(weights: Weights, device: torch.device) -> Loaded:
    """torch-fidelity's InceptionV3 with TensorFlow's resize: features `2048` and `logits_unbiased`."""
    from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3

    state = tensors(weights)
    with _fitting(weights, "torch-fidelity's Inception"):
        # The constructor unpickles its file: it gets tensors that were read safely, written to a new file.
        file = io.BytesIO()
        torch.save(state, file)
        file.seek(0)
        names = ["2048", "logits_unbiased"]
        network = FeatureExtractorInceptionV3("inception-v3-compat", names, feature_extractor_weights_path=file)
    network = _folded(network).to(device).to(memory_format=convolution_format(device))

    def extract(images: Tensor) -> Extracted:
        return Extracted(*network(upload(images, device)))

    return Loaded(extract, "TensorFlow 1.x bilinear without antialiasing, to 299x299")


def load_efficientnet(weights: Weights, device: torch.device) -> Loaded:
    """EfficientNet-lite0 (1,280 features), for machines that cannot download Inception's weights."""
    network = _timm().create_model("tf_efficientnet_lite0", pretrained=False)
    # The file's tensors have other names than timm's, but the same order.
    values, names = list(tensors(weights).values()), network.state_dict()
    with _fitting(weights, "EfficientNet-lite0"):
        network.load_state_dict(dict(zip(names, values, strict=True)))
    network.classifier = nn.Identity()  # The features are the classifier's input.
    network = _folded(network.eval().requires_grad_(False)).to(device).to(memory_format=convolution_format(device))

    def extract(images: Tensor) -> Tensor:
        return network((_bicubic(upload(images, device), 224) - 127) / 128)

    return Loaded(extract, "antialiased bicubic to 224x224")


def load_dinov2(weights: Weights, device: torch.device) -> Loaded:
    """DINOv2 ViT-L/14 at 224x224 (Stein et al. 2023), as timm defines it."""
    timm = _timm()
    network = timm.create_model(DINOV2, pretrained=False, img_size=224, num_classes=0)
    state = tensors(weights)
    with _fitting(weights, "DINOv2 ViT-L/14"):
        network.load_state_dict(timm.models.vision_transformer.checkpoint_filter_fn(state, network))
    network = network.eval().requires_grad_(False).to(device)
    mean = torch.tensor([0.485, 0.456, 0.406], device=device).view(3, 1, 1)
    std = torch.tensor([0.229, 0.224, 0.225], device=device).view(3, 1, 1)

    def extract(images: Tensor) -> Tensor:
        return network((_bicubic(upload(images, device), 224) / 255 - mean) / std)

    return Loaded(extract, "antialiased bicubic to 224x224")


def load_pixels() -> Loaded:
    """The pixels themselves, in [0, 1], averaged down to at most 16x16."""

    def extract(images: Tensor) -> Tensor:
        height, width = (min(side, PIXELS_SIDE) for side in images.shape[2:])
        return F.adaptive_avg_pool2d(images.float() / 255, (height, width)).flatten(1)

    return Loaded(extract, f"averaged down to at most {size_text((PIXELS_SIDE, PIXELS_SIDE))}")


def tensors(weights: Weights) -> dict[str, Tensor]:
    """The named tensors in a weights file; no code in it is run.

    Raises:
        ValueError: it holds anything else.
    """
    try:
        if weights.path.suffix == ".safetensors":
            return safetensors.torch.load(weights.content)
        state = torch.load(io.BytesIO(weights.content), map_location="cpu", weights_only=True)
    except Exception as error:  # Damaged bytes make torch raise nearly anything, even AssertionError and TypeError.
        raise ValueError(
            f"{weights.path} is refused: it is damaged or holds something other than tensors; give a file that "
            "torch.load opens with weights_only=True."
        ) from error
    if not isinstance(state, dict) or not all(
        isinstance(name, str) and isinstance(value, Tensor) for name, value in state.items()
    ):
        raise ValueError(f"{weights.path} does not hold named tensors: give weights as state_dict() returns them.")
    return state


@contextmanager
def _fitting(weights: Weights, network: str) -> Generator[None, None, None]:
    """If tensors cannot be loaded into the network inside, raises an error that names their file."""
    try:
        yield
    except Exception as error:  # Odd names and shapes make the networks' own code raise nearly anything.
        reason = (str(error).strip() or type(error).__name__).splitlines()[-1].strip()
        raise ValueError(f"{weights.path} does not fit {network} ({reason}): give that network's weights.") from error


def _timm() -> ModuleType:
    """timm, which only two of the networks need: an optional dependency."""
    import timm

    return timm


def _folded(network: nn.Module) -> nn.Module:
    """Folds batch norms (in eval mode) into the convolutions before them: the same features with less work."""
    for block in list(network.modules()):
        for (conv_name, conv), (norm_name, norm) in pairwise(list(block.named_children())):
            if isinstance(conv, nn.Conv2d) and isinstance(norm, nn.BatchNorm2d):
                setattr(block, conv_name, fuse_conv_bn_eval(conv, norm))
                setattr(block, norm_name, getattr(norm, "act", nn.Identity()))  # timm's norm includes the activation.
    return network


def _bicubic(images: Tensor, side: int) -> Tensor:
    return F.interpolate(images.float(), size=(side, side), mode="bicubic", antialias=True).clamp(0, 255)
