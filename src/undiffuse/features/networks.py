"""The networks whose features images are compared by: uint8 pixels in, one vector an image out."""

import io
from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

import safetensors.torch
import torch
import torch.nn.functional as F
from jaxtyping import Float, UInt8
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from undiffuse.features import weights as files
from undiffuse.features.weights import Release, Weights

PIXELS_SIDE = 16

DINOV2 = "vit_large_patch14_dinov2"
"""timm's name of the network of which Stein et al. (2023) report FD-DINOv2."""


class Extracted(NamedTuple):
    features: Float[Tensor, "b d"]
    logits: Float[Tensor, "b k"]
    """For the Inception Score; k = 0 for networks that have no such score."""


@dataclass(frozen=True)
class FeatureNet:
    """A feature network with all that its figures depend on."""

    name: str
    distance: str
    """What the Frechet distance of its features is called: only Inception's is an FID."""
    kernel: str
    """What their kernel distance is called."""
    resize: str
    weights: str
    """The file's name."""
    weights_sha256: str
    is_release: bool
    """Whether these are the weights that published figures were computed with."""
    extract: Callable[[UInt8[Tensor, "b 3 h w"]], Extracted]
    given: bool = False
    """Whether the user named the weights."""


def load_inception(path: Path, device: torch.device, given: bool) -> FeatureNet:
    """torch-fidelity's InceptionV3 with TensorFlow's resize: features `2048` and `logits_unbiased`.

    `given` weights may be any; others must be the release's.

    Raises:
        ValueError: the file is not what it should be, holds code, or does not fit.
    """
    from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3

    found = files.read_weights(path, None if given else files.INCEPTION)
    named = tensors(found)
    names = ["2048", "logits_unbiased"]
    with _fitting(found, "torch-fidelity's Inception"):
        # It unpickles what it is given: so it is given tensors that were read without, pickled again here.
        safe = io.BytesIO()
        torch.save(named, safe)
        safe.seek(0)
        network = FeatureExtractorInceptionV3("inception-v3-compat", names, feature_extractor_weights_path=safe)
    network = _folded(network).to(device).to(memory_format=torch.channels_last)

    def extract(pixels: Tensor) -> Extracted:
        return Extracted(*(part.cpu() for part in network(pixels.to(device))))

    resize = "TensorFlow 1.x bilinear without antialiasing, to 299x299"
    return _net("inception", "FID", "KID", resize, found, files.INCEPTION, given, extract)


def load_efficientnet(path: Path, device: torch.device, given: bool) -> FeatureNet:
    """EfficientNet-lite0 (1,280 features), for machines that cannot download Inception's weights."""
    import timm

    found = files.read_weights(path, None if given else files.EFFICIENTNET)
    network = timm.create_model("tf_efficientnet_lite0", pretrained=False)
    # The file names its tensors otherwise, but has them in the same order.
    values, known = list(tensors(found).values()), network.state_dict()
    with _fitting(found, "EfficientNet-lite0"):
        network.load_state_dict(dict(zip(known, values, strict=True)))
    network.classifier = nn.Identity()  # What it would read are the features.
    network = _folded(network.eval().requires_grad_(False)).to(device).to(memory_format=torch.channels_last)

    def extract(pixels: Tensor) -> Extracted:
        x = (_bicubic(pixels.to(device), 224) - 127) / 128
        return _without_logits(network(x))

    resize = "antialiased bicubic to 224x224"
    return _net("efficientnet-lite0", "FD-EffNet", "KD-EffNet", resize, found, files.EFFICIENTNET, given, extract)


def load_dinov2(path: Path, device: torch.device, given: bool) -> FeatureNet:
    """DINOv2 ViT-L/14 at 224x224 (Stein et al. 2023), with timm's network.

    This program knows no digest of the release: any file is looked into, and none passes for the release's.
    """
    import timm
    from timm.models import vision_transformer

    found = files.read_weights(path, None)
    network = timm.create_model(DINOV2, pretrained=False, img_size=224, num_classes=0)
    assert isinstance(network, vision_transformer.VisionTransformer), "that is what it is called"
    named = tensors(found)
    with _fitting(found, "DINOv2 ViT-L/14"):
        network.load_state_dict(vision_transformer.checkpoint_filter_fn(named, network))
    network = network.eval().requires_grad_(False).to(device)
    mean = torch.tensor([0.485, 0.456, 0.406], device=device).view(3, 1, 1)
    std = torch.tensor([0.229, 0.224, 0.225], device=device).view(3, 1, 1)

    def extract(pixels: Tensor) -> Extracted:
        return _without_logits(network((_bicubic(pixels.to(device), 224) / 255 - mean) / std))

    return _net("dinov2", "FD-DINOv2", "KD-DINOv2", "antialiased bicubic to 224x224", found, None, given, extract)


def pixels_net() -> FeatureNet:
    """The pixels themselves, in [0, 1], averaged down to at most 16x16: needs no network and no weights."""

    def extract(pixels: Tensor) -> Extracted:
        height, width = (min(side, PIXELS_SIDE) for side in pixels.shape[2:])
        return _without_logits(F.adaptive_avg_pool2d(pixels.float() / 255, (height, width)).flatten(1))

    resize = f"averaged down to at most {PIXELS_SIDE}x{PIXELS_SIDE}"
    return FeatureNet("pixels", "FD-pixels", "KD-pixels", resize, "none", "", False, torch.no_grad()(extract))


def tensors(weights: Weights) -> dict[str, Tensor]:
    """The named tensors of a weights file; nothing in it is run.

    Raises:
        ValueError: it holds anything else.
    """
    try:
        if weights.path.suffix == ".safetensors":
            return safetensors.torch.load(weights.content)
        state = torch.load(io.BytesIO(weights.content), map_location="cpu", weights_only=True)
    except Exception as error:  # Damaged bytes make torch raise nearly anything, AssertionError and TypeError too.
        raise ValueError(
            f"{weights.path} is refused: it holds something else than tensors, or is damaged; give a file that "
            "torch.load opens with weights_only=True."
        ) from error
    if not isinstance(state, dict) or not all(
        isinstance(name, str) and isinstance(value, Tensor) for name, value in state.items()
    ):
        raise ValueError(f"{weights.path} holds no named tensors: give the weights alone, as state_dict() has them.")
    return state


@contextmanager
def _fitting(weights: Weights, what: str) -> Generator[None, None, None]:
    """Where tensors do not fit the network that takes them inside, says which file it was."""
    try:
        yield
    except Exception as error:  # Networks' own readers of weights raise whatever odd names and shapes lead to.
        reason = (str(error).strip() or type(error).__name__).splitlines()[-1].strip()
        raise ValueError(f"{weights.path} does not fit {what} ({reason}): give its weights.") from error


def _net(
    name: str,
    distance: str,
    kernel: str,
    resize: str,
    weights: Weights,
    release: Release | None,
    given: bool,
    extract: Callable[[Tensor], Extracted],
) -> FeatureNet:
    is_release = release is not None and weights.is_release(release)
    graphless = torch.no_grad()(extract)
    return FeatureNet(name, distance, kernel, resize, weights.path.name, weights.sha256, is_release, graphless, given)


def _folded(network: nn.Module) -> nn.Module:
    """Batch norms of a network in eval mode folded into the convolutions before them: same features, less work."""
    for block in list(network.modules()):
        for (conv_name, conv), (norm_name, norm) in pairwise(list(block.named_children())):
            if isinstance(conv, nn.Conv2d) and isinstance(norm, nn.BatchNorm2d):
                setattr(block, conv_name, fuse_conv_bn_eval(conv, norm))
                setattr(block, norm_name, getattr(norm, "act", nn.Identity()))  # timm's norm has the activation in it.
    return network


def _bicubic(pixels: Tensor, side: int) -> Tensor:
    return F.interpolate(pixels.float(), size=(side, side), mode="bicubic", antialias=True).clamp(0, 255)


def _without_logits(features: Tensor) -> Extracted:
    return Extracted(features.float().cpu(), torch.empty(len(features), 0))
