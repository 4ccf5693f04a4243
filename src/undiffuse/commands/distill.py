"""undiffuse distill"""

import shlex
from pathlib import Path
from typing import Annotated

import tyro

from undiffuse.commands.options import unless_given
from undiffuse.data.paths import check_condition, check_data
from undiffuse.runs.find import find_run, is_run
from undiffuse.utils.names import Compile, Precision
from undiffuse.utils.parsing import at_least, parse_count
from undiffuse.utils.terminal import loading, log


def distill(
    run: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="RUN")],
    data: Annotated[str | None, unless_given("the run's")] = None,
    data_root: Annotated[str | None, unless_given("the run's")] = None,
    condition: Annotated[str | None, unless_given("the run's", metavar="CSV|low-res:N|IMAGES")] = None,
    images: Annotated[str | None, unless_given("the run's")] = None,
    minutes: Annotated[float | None, unless_given("the run's")] = None,
    batch: Annotated[int | None, unless_given("the run's")] = None,
    checkpoint_images: Annotated[str | None, unless_given("one every five minutes")] = None,
    keep: int = 3,
    seed: int = 0,
    out: Annotated[str | None, unless_given("runs/RUN-distilled")] = None,
    precision: Precision = "fp32",
    compile: Compile = "auto",
    set: Annotated[tuple[str, ...], unless_given("none")] = (),
    dry_run: bool = False,
) -> None:
    """Train a student of a run that makes an image in one or two steps. The same command again resumes it.

    The student starts with the run's weights and learns on its images (easy consistency tuning). It is a run like any
    other, whose own sampler is consistency, with 2 steps. docs/few-steps.md shows how good it gets.

    For example: undiffuse distill digits --images 100k --out runs/student, and then undiffuse sample runs/student

    Args:
        run: A run folder, its name under runs/, or a model that comes with undiffuse, such as digits.
        data: The run's images, where they have moved.
        data_root: Where cifar10 and flowers102 are.
        condition: Of a run trained with --condition, the same, where it has moved.
        images: Budget in images seen, such as 50k or 2M.
        minutes: Budget in minutes, instead of images.
        batch: Images per step, over all processes.
        checkpoint_images: Images from one checkpoint to the next.
        keep: How many checkpoints to keep.
        seed: The same seed and settings give the same student.
        out: Run folder.
        precision: Of convolutions and matrix products. The images that are compared differ by little more than bf16
            resolves.
        compile: Speed up the network with torch.compile, which takes a minute or more at the start; auto: on CUDA.
        set: Any other setting that --dry-run lists, as in diffusion.consistency_stages=4 optimizer.learning_rate=1e-3.
        dry_run: Show the resolved settings, memory and time, and train nothing.
    """
    for name, count in (("--images", images), ("--checkpoint-images", checkpoint_images)):
        if count is not None:
            parse_count(count, name)
    at_least(1, keep=keep)
    if not (out and is_run(Path(out).expanduser())):  # A student that was begun needs its source no more.
        find_run(run)
    if data is not None:
        check_data(data)
    if condition is not None:
        check_condition(condition)
    if images is not None and minutes is not None:
        raise ValueError("A budget is either --images or --minutes: give one of them.")

    with loading():
        from undiffuse.api import distill as api

    student = api.distill(
        run,
        data=data,
        data_root=data_root,
        condition=condition,
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
        log.info(str(student))
        log.info("Nothing was written but decoded images. Leave --dry-run out to train.")
        return
    log.info(f"Done: {student.folder.absolute()}")
    log.info(f"  previews  {student.folder / 'previews'}")
    given = " --condition IMAGE" if student.config.image_condition else ""
    log.info(f"  images    undiffuse sample {shlex.quote(str(student.folder))} --steps 1{given}")
