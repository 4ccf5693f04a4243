"""Training that starts from another run: its settings for these images, and its EMA weights before the first step."""

from dataclasses import replace

from torch import Tensor

from undiffuse.config import Config, Origin
from undiffuse.data.store import DataConfig, Store
from undiffuse.presets import ImageFacts
from undiffuse.runs.run import Checkpoint, Run, Tensors
from undiffuse.utils.text import CHANNELS


def configure_from(
    source: Run, checkpoint: Checkpoint, images: Store | ImageFacts, data: DataConfig, seed: int, conditional: bool
) -> Config:
    """The source's config fitted to these images: a run that starts from the weights in the source's checkpoint.

    Raises:
        ValueError: the images have other classes or channels than the source's, or a size that its network cannot take.
    """
    config = source.config
    network = config.network
    if images.channels != network.image_channels:
        raise ValueError(
            f"{source.name} was trained on {CHANNELS[network.image_channels]} images: give --channels "
            f"{network.image_channels}."
        )
    class_names = images.class_names if conditional else ()
    if isinstance(images, Store) and class_names != config.class_names:
        theirs, ours = (", ".join(names[:3]) or "none" for names in (config.class_names, class_names))
        hint = "give images with the same classes" if config.class_names else "add --unconditional"
        raise ValueError(f"{source.name} was trained with other classes (it: {theirs}; these images: {ours}): {hint}.")
    before = config.origin.images if config.origin else 0
    return replace(
        config,
        seed=seed,
        data=data,
        data_content=images.content,
        class_names=config.class_names,
        network=network.resized(images.size),
        origin=Origin(str(source.folder.absolute()), checkpoint.images + before, checkpoint.digest("ema")),
    )


def weights_for(config: Config, source: Checkpoint) -> dict[str, Tensor]:
    """The EMA weights in the checkpoint, in fp32 as training needs them.

    Raises:
        ValueError: they do not fit the config's network; the first that does not is named.
    """
    weights = {name: tensor.float() for name, tensor in source.tensors("ema").items()}
    network = config.build_network().state_dict()

    def shape(tensor: Tensor | None) -> str:
        return "missing" if tensor is None else "x".join(map(str, tensor.shape)) or "a number"

    for name in {**network, **weights}:
        ours, theirs = shape(network.get(name)), shape(weights.get(name))
        if ours != theirs:
            raise ValueError(
                f"The weights do not fit this network ({name} is {theirs} there and {ours} here): leave out the --set "
                "that changes the network's shape."
            )
    return weights


def save_start(run: Run, weights: Tensors) -> None:
    """Writes the weights as the run's first checkpoint: from then on it does not need the run that they are from."""
    counters = {"seconds": 0.0, "skipped": 0, "skipped_in_a_row": 0}
    run.save(0, {"network": weights, "ema": weights}, counters, keep=1)
