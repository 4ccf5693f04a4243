"""What the network was told of the training images: kept in the run folder, since samples are to be like them."""

import safetensors.torch

from undiffuse.runs.run import Run
from undiffuse.utils.conditions import Conditions
from undiffuse.utils.files import write_atomically

NAME = "told.safetensors"


def save_told(run: Run, told: Conditions) -> None:
    """Writes the conditions of all training images, unless they are there."""
    file = run.folder / NAME
    if not file.exists():
        present = {name: each.contiguous() for name, each in told._asdict().items() if each is not None}
        write_atomically(file, safetensors.torch.save(present))


def read_told(run: Run) -> Conditions:
    """The conditions of all training images.

    Raises:
        ValueError: the run does not have them, or they are damaged.
    """
    file = run.folder / NAME
    try:
        return Conditions(**safetensors.torch.load(file.read_bytes()))
    except (OSError, TypeError, safetensors.SafetensorError) as error:
        raise ValueError(
            f"{file.absolute()} cannot be read ({error}): train the run again, or for longer, to have it."
        ) from error
