"""What the network was told of the training images: kept in the run folder, since samples are to be like them."""

import safetensors
import safetensors.torch

from undiffuse.runs.run import Run
from undiffuse.utils.conditions import Conditions
from undiffuse.utils.files import write_atomically

NAME = "told.safetensors"


def save_told(run: Run, told: Conditions) -> None:
    """Writes the conditions of all training images, in place of those of an attempt that left no checkpoint."""
    present = {name: each.contiguous() for name, each in told._asdict().items() if each is not None}
    write_atomically(run.folder / NAME, safetensors.torch.save(present, {"content": _content(run)}))


def read_told(run: Run) -> Conditions:
    """The conditions of all training images.

    Raises:
        ValueError: the run does not have them, they are damaged, or they are from another table.
    """
    file = run.folder / NAME
    try:
        with safetensors.safe_open(file, "pt") as opened:
            content = (opened.metadata() or {}).get("content")
            told = Conditions(**{name: opened.get_tensor(name) for name in opened.keys()})  # noqa: SIM118  No mapping.
    except (OSError, TypeError, safetensors.SafetensorError) as error:
        raise ValueError(
            f"{file.absolute()} cannot be read ({error}): train the run again, or for longer, to have it."
        ) from error
    if content not in (None, _content(run)):  # None: older versions did not write it.
        raise ValueError(
            f"{file.absolute()} is of another table than the run's: run the command that trained it again, which "
            "writes it."
        )
    return told


def _content(run: Run) -> str:
    """The digest of the run's table."""
    return run.config.attributes.content if run.config.attributes else ""
