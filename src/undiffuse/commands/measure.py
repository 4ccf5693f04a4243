"""undiffuse measure"""

from pathlib import Path
from typing import Annotated

import tyro

from undiffuse.commands.options import unless_given
from undiffuse.data.paths import check_data
from undiffuse.features.table import FeaturesName, features_help, find_weights
from undiffuse.utils.names import Fit, Split
from undiffuse.utils.parsing import at_least, parse_count, parse_size
from undiffuse.utils.terminal import console, loading


def measure(
    real: str,
    fake: str,
    count: Annotated[str | None, unless_given("all")] = None,
    real_count: Annotated[str | None, unless_given("all")] = None,
    features: Annotated[FeaturesName, tyro.conf.arg(help=features_help())] = "inception",
    weights: Annotated[str | None, unless_given("the published ones, downloaded", metavar="FILE")] = None,
    split: Split = "auto",
    fake_split: Split = "auto",
    data_root: Annotated[str | None, unless_given("data/")] = None,
    size: Annotated[str | None, unless_given("the samples' own, else the real images' own, else 64")] = None,
    fit: Fit = "crop",
    strict: bool = False,
    batch: int = 64,
    out: str = "evaluation",
) -> None:
    """Compare any two sets of images: FID, KID, precision, recall and more, each with its full protocol.

    For example: undiffuse measure --real photos/ --fake samples.npy

    Without a download: undiffuse measure --real photos/ --fake samples/ --features pixels

    Args:
        real: digits, cifar10, flowers102, a folder, an archive, or an .npy file of uint8 images.
        fake: The images to measure, in any of the same forms.
        count: Number of generated images, chosen at random. Published values use 50000.
        real_count: Number of real images, chosen at random.
        weights: The feature network's, in a file that torch.load opens with weights_only=True; its hash is recorded.
        split: Split of the real images; auto is what train would use.
        fake_split: Split of the generated images.
        data_root: Where cifar10 and flowers102 are, or are downloaded to.
        size: Side in pixels, or height x width as in 48x64, at which the images are compared.
        fit: How images are brought to that size: crop the center, pad with black, or stretch.
        strict: Fail if an image cannot be decoded, instead of leaving it out.
        batch: Images at once; changes speed and memory only.
        out: Folder for report.html and metrics.json.
    """
    # Mistakes are found before torch is loaded.
    for option, value in {"--count": count, "--real-count": real_count}.items():
        if value is not None:
            parse_count(value, option)
    at_least(1, batch=batch)
    sides = parse_size(size) if size is not None else None
    for data in (real, fake):
        check_data(data)
    find_weights(features, weights)

    with loading():
        from undiffuse import api

    evaluation = api.measure(
        real,
        fake,
        count=count,
        real_count=real_count,
        features=features,
        weights=weights,
        split=split,
        fake_split=fake_split,
        data_root=data_root,
        size=sides,
        fit=fit,
        strict=strict,
        batch=batch,
        out=out,
    )
    if evaluation.measurements:
        console.print(str(evaluation))
        console.print(f"Open {(Path(out).expanduser() / 'report.html').absolute()}")
