"""undiffuse export"""

from pathlib import Path
from typing import Annotated, Literal

import tyro

from undiffuse.commands.options import unless_given
from undiffuse.runs.find import find_run
from undiffuse.utils.terminal import console


def export(
    run: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="RUN")],
    to: Annotated[tuple[Literal["diffusers"], str], tyro.conf.arg(metavar="diffusers DIR")],
    label: Annotated[str | None, unless_given("the model keeps its classes")] = None,
    weights: Literal["average", "network"] = "average",
) -> None:
    """Write a trained model for other programs to open.

    undiffuse export RUN --to diffusers DIR, and then in Python: DiffusionPipeline.from_pretrained("DIR")

    Args:
        run: A run folder, or its name under runs/.
        to: The format, and a folder to make.
        label: Always draw this class, by name or index, or none; what asks diffusers for images cannot name one.
        weights: The moving average of the weights, or the weights themselves.
    """
    folder = find_run(run)
    target = Path(to[1]).expanduser()

    from undiffuse.diffusion.denoiser import NO_LABEL
    from undiffuse.interop.pipelines import write_pipeline
    from undiffuse.runs.run import open_run
    from undiffuse.sampling.model import check_guidance, find_label

    opened = open_run(folder)
    config = opened.config
    index = None if label is None else find_label(config.class_names, label)
    if index == NO_LABEL:
        check_guidance(config)
    checkpoint = opened.last_good()
    if checkpoint is None:
        raise FileNotFoundError(f"{opened.folder.absolute()} has no whole checkpoint: train it first, or for longer.")
    write_pipeline(target, config, checkpoint.tensors(weights), index, opened.folder)
    console.print(f"Exported the {weights} weights at {checkpoint.images:,} images to {target.absolute()}")
    if config.class_names and label is None:
        console.print(
            "The network is told a class, and DDPMPipeline has none to tell: call its unet with class_labels, or "
            "export one class with --label."
        )
    if config.class_names and config.sampling.guidance != 1:
        console.print(f"The guidance of this run, {config.sampling.guidance:g}, is not part of what diffusers draws.")
    console.print(f'  in Python   DiffusionPipeline.from_pretrained("{target}")')
