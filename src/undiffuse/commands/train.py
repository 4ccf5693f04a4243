"""undiffuse train"""

import shlex
from pathlib import Path
from typing import Annotated

from undiffuse.commands.options import unless_given
from undiffuse.data.paths import check_condition, check_data
from undiffuse.runs.find import find_run, is_run
from undiffuse.utils.names import Channels, Compile, Fit, Precision, Split
from undiffuse.utils.parsing import at_least, parse_count, parse_preset, parse_size
from undiffuse.utils.terminal import loading, log


def train(
    data: str = "digits",
    data_root: Annotated[str | None, unless_given("data/")] = None,
    split: Split = "auto",
    size: Annotated[str | None, unless_given("the images' own up to 64, else 64")] = None,
    fit: Fit = "crop",
    channels: Channels = "auto",
    strict: bool = False,
    unconditional: bool = False,
    condition: Annotated[str | None, unless_given("only the classes", metavar="CSV|low-res:N|IMAGES")] = None,
    preset: Annotated[str | None, unless_given("digits for digits, else small")] = None,
    from_run: Annotated[str | None, unless_given("random weights", name="from", metavar="RUN")] = None,
    images: Annotated[str | None, unless_given("the preset's")] = None,
    minutes: Annotated[float | None, unless_given("the preset's")] = None,
    batch: Annotated[int | None, unless_given("the preset's")] = None,
    checkpoint_images: Annotated[str | None, unless_given("one every five minutes")] = None,
    keep: int = 3,
    seed: int = 0,
    out: Annotated[str | None, unless_given("runs/DATA-PRESET-SIZE")] = None,
    precision: Precision = "auto",
    compile: Compile = "auto",
    set: Annotated[tuple[str, ...], unless_given("none")] = (),
    dry_run: bool = False,
) -> None:
    """Train a diffusion model on images, from scratch or from another run. The same command again resumes it.

    With a folder of images: undiffuse train --data photos/ --size 32 --minutes 10

    Starting with the weights of a run: undiffuse train --data photos/ --from RUN --size 64 --images 100k

    With several GPUs: torchrun --nproc-per-node 2 -m undiffuse train --data photos/ --images 2M

    Args:
        data: digits, cifar10, flowers102, a folder of images (subfolders are classes), a .zip or .tar of images, or the
            address of one, as in https://host/photos.tar or s3://bucket/photos.
        data_root: Where cifar10 and flowers102 are, or are downloaded to.
        split: Part of the data. auto: train where there are splits; all of flowers102.
        size: Side in pixels, or height x width as in 48x64.
        fit: How images are brought to that size: crop the center, pad with black, or stretch.
        channels: 1 gray, 3 RGB, 4 RGBA; auto: what the images have.
        strict: Fail if an image cannot be decoded, instead of leaving it out.
        unconditional: Do not give the network the classes, even if there are some.
        condition: What the network is told of each image besides its class: a CSV file of numbers and words, whose
            first row names the columns and whose first column (or the one called file) the images; low-res:4, the image
            itself made 4 times smaller; or a folder or archive of other images of the same names. See
            docs/conditions.md.
        preset: Recipe: digits, small, flowers64, or a paper's with cifar10-: ddpm, iddpm, iddpm-vlb, edm, flow.
        from_run: Start with this run's EMA weights and its settings: its folder, its name under runs/, or a model that
            comes with undiffuse. Classes of the same name are kept. On other images than its own, the learning rate is
            a third of its.
        images: Budget in images seen, such as 50k or 2M.
        minutes: Budget in minutes, instead of images.
        batch: Images per step, over all processes.
        checkpoint_images: Images from one checkpoint to the next.
        keep: How many checkpoints to keep.
        seed: The same seed and settings give the same model.
        out: Run folder.
        precision: Of convolutions and matrix products; auto is bf16 where the hardware has it, fp16 on older GPUs.
        compile: Speed up the network with torch.compile, which takes a minute or more at the start; auto: on CUDA.
            graphs: with CUDA graphs, for few images at once.
        set: Any other setting that --dry-run lists, as in network.dropout=0.2 optimizer.learning_rate=1e-3.
        dry_run: Show the resolved settings, memory and time, and train nothing.
    """
    # What can be wrong is found before torch is loaded.
    if size is not None:
        parse_size(size)
    for name, count in (("--images", images), ("--checkpoint-images", checkpoint_images)):
        if count is not None:
            parse_count(count, name)
    at_least(1, keep=keep)
    parse_preset(preset, data)
    if from_run is not None and not (out and is_run(Path(out).expanduser())):  # A run that was begun needs it no more.
        find_run(from_run)
    check_data(data)
    if condition is not None:
        check_condition(condition)
    if images is not None and minutes is not None:
        raise ValueError("A budget is either --images or --minutes: give one of them.")

    with loading():
        from undiffuse.api import train as api

    run = api.train(
        data,
        data_root=data_root,
        split=split,
        size=size,
        fit=fit,
        channels=channels,
        strict=strict,
        unconditional=unconditional,
        condition=condition,
        preset=preset,
        from_run=from_run,
        images=images,
        minutes=minutes,
        batch=batch,
        checkpoint_images=checkpoint_images,
        keep=keep,
        seed=seed,
        out=out,
        precision=precision,
        compile=compile,
        set=set,
        dry_run=dry_run,
    )
    if dry_run:
        log.info(str(run))
        log.info("Nothing was written but decoded images. Leave --dry-run out to train.")
        return
    log.info(f"Done: {run.folder.absolute()}")
    log.info(f"  previews  {run.folder / 'previews'}")
    log.info(f"  curves    tensorboard --logdir {run.folder / 'tensorboard'}")
    given = " --condition IMAGE" if run.config.image_condition else ""
    log.info(f"  images    undiffuse sample {shlex.quote(str(run.folder))}{given}")
    log.info(f"  quality   undiffuse evaluate {shlex.quote(str(run.folder))}")
