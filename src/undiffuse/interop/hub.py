"""Models on the Hugging Face Hub: their settings and weights, downloaded to that library's cache."""

import re
from pathlib import Path

from undiffuse.interop.pipelines import FILES, WEIGHT_FILES

TIMEOUT_SECONDS = 5


def is_hub_id(source: str) -> bool:
    """Whether this is how the Hub names a model: owner/name."""
    return re.fullmatch(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*", source) is not None


def download(model: str) -> Path:
    """The folder with the model's settings and weights. Without a network, a copy from an earlier time is taken.

    Raises:
        ValueError: huggingface_hub is not installed.
        FileNotFoundError: there is no such model, or no network and no copy.
    """
    try:
        from huggingface_hub import HfApi, snapshot_download
    except ImportError as error:
        raise ValueError(
            f"{model} is no path here, and to get it from the Hugging Face Hub needs huggingface_hub: install it with "
            "pip install 'undiffuse[hub]'."
        ) from error
    try:
        # First, because it alone has a time limit of its own.
        info = HfApi().model_info(model, timeout=TIMEOUT_SECONDS)
    except Exception as error:  # Which ones differs between versions of huggingface_hub.
        try:
            # Of the weights, whichever were downloaded: who reads the folder will say if there are none.
            return Path(snapshot_download(model, allow_patterns=list(FILES), local_files_only=True))
        except Exception:
            raise FileNotFoundError(
                f"There is nothing at {Path(model).absolute()}, and the Hugging Face Hub did not give a model {model} "
                f"({_first_line(error)}): give a folder or file, or try again with a network."
            ) from error
    there = {file.rfilename for file in info.siblings or []}
    wanted = [name for name in FILES if name in there] + [name for name in WEIGHT_FILES if name in there][:1]
    if not wanted:
        raise ValueError(f"{model} on the Hugging Face Hub is no model of diffusers: it has no config.json.")
    try:
        return Path(snapshot_download(model, allow_patterns=wanted, etag_timeout=TIMEOUT_SECONDS))
    except Exception as error:
        raise FileNotFoundError(
            f"{model} could not be downloaded from the Hugging Face Hub ({_first_line(error)}): try again."
        ) from error


def _first_line(error: Exception) -> str:
    return str(error).strip().split("\n")[0] or type(error).__name__
