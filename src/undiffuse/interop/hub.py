"""Models on the Hugging Face Hub: their settings and weights, downloaded to that library's cache."""

import re
from pathlib import Path

from undiffuse.interop.pipelines import FILES, WEIGHT_FILES

TIMEOUT_SECONDS = 5


def is_hub_id(source: str) -> bool:
    """Whether this is a model's name on the Hub: owner/name."""
    return re.fullmatch(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*", source) is not None


def download(model: str) -> Path:
    """The folder with the model's settings and weights; without a network connection, an earlier download.

    Raises:
        ValueError: huggingface_hub is not installed.
        FileNotFoundError: there is no such model, or neither a connection nor an earlier download.
    """
    try:
        # Imported here because it is an optional extra.
        from huggingface_hub import HfApi, snapshot_download
    except ImportError as error:
        raise ValueError(
            f"{model} is not a path here, and downloading it from the Hugging Face Hub needs huggingface_hub: install "
            "it with pip install 'undiffuse[hub]'."
        ) from error
    try:
        # First, because only this call has a timeout of its own.
        info = HfApi().model_info(model, timeout=TIMEOUT_SECONDS)
    except Exception as error:  # Which one differs between versions of huggingface_hub.
        try:
            # Whichever weights were downloaded: reading the folder will tell if there are none.
            return Path(snapshot_download(model, allow_patterns=list(FILES), local_files_only=True))
        except Exception:
            raise FileNotFoundError(
                f"There is nothing at {Path(model).absolute()}, and the Hugging Face Hub did not return a model "
                f"{model} ({_first_line(error)}): give a folder or file, or try again with a network connection."
            ) from error
    available = {file.rfilename for file in info.siblings or []}
    needed = [name for name in FILES if name in available] + [name for name in WEIGHT_FILES if name in available][:1]
    if not needed:
        raise ValueError(f"{model} on the Hugging Face Hub is not a diffusers model: it has no config.json.")
    try:
        return Path(snapshot_download(model, allow_patterns=needed, etag_timeout=TIMEOUT_SECONDS))
    except Exception as error:
        raise FileNotFoundError(
            f"{model} could not be downloaded from the Hugging Face Hub ({_first_line(error)}): try again."
        ) from error


def _first_line(error: Exception) -> str:
    return str(error).strip().split("\n")[0] or type(error).__name__
