"""What stands for a run in the API: a Run, a folder, a name under runs/, a Model, or nothing for the newest."""

from pathlib import Path

from undiffuse.networks.network import NetworkConfig
from undiffuse.networks.unet import UNetConfig
from undiffuse.runs.find import find_run
from undiffuse.runs.run import Run, open_run
from undiffuse.sampling.model import Model

RunLike = Run | Model | str | Path | None


def as_run(run: RunLike, network: type[NetworkConfig] = UNetConfig) -> Run:
    """The run that is meant. `network` is the config class of a network of your own.

    Raises:
        FileNotFoundError: there is no such run.
        ValueError: its config cannot be read, or the model was not loaded from a run.
    """
    if isinstance(run, Run):
        return run
    if isinstance(run, Model):
        return run.origin[0]
    return open_run(find_run(None if run is None else str(run)), network)
