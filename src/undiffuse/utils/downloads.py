"""Downloads of files whose digest is known, and finding out within seconds whether a server can be reached."""

import hashlib
import threading
import urllib.request
from http.client import HTTPException
from pathlib import Path

from filelock import FileLock

from undiffuse.utils.files import atomic_path
from undiffuse.utils.terminal import Meter, log

OFFLINE_SECONDS = 2
"""If a server does not answer within this time, it counts as unreachable."""

STALLED_SECONDS = 30
"""If a download receives nothing for this long, it has failed."""

BLOCK = 2**20
"""Bytes read from a server at once."""


def fetch(url: str, path: Path, sha256: str, fix: str) -> None:
    """Downloads a file unless it is there already; whoever opens it checks what was there.

    Raises:
        FileNotFoundError: it cannot be downloaded; the message ends with `fix`, what to do instead.
    """
    if path.exists():
        return
    if not is_reachable(url, OFFLINE_SECONDS):
        raise FileNotFoundError(f"{url} cannot be reached: {fix}")
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        with FileLock(f"{path}.lock"):  # Under torchrun one process downloads and the others wait.
            if not path.exists():
                log.info(f"Downloading {url} to {path.absolute()}")
                download(url, path, sha256)
    except (ValueError, OSError, HTTPException) as error:
        raise FileNotFoundError(f"{url} could not be downloaded ({str(error).rstrip('.')}): {fix}") from error


def download(url: str, path: Path, sha256: str) -> None:
    """Downloads a file whose digest is known; `path` appears only if the file is whole and the digest is right.

    Raises:
        ValueError: the file has another digest.
        OSError, HTTPException: the server cannot be reached, or the connection broke.
    """
    request = urllib.request.Request(url, headers={"User-Agent": "undiffuse"})
    digest = hashlib.sha256()
    with urllib.request.urlopen(request, timeout=STALLED_SECONDS) as response, atomic_path(path) as temporary:
        total = int(response.headers.get("Content-Length") or 0)
        with open(temporary, "wb") as file, Meter(f"downloading {path.name}", total) as meter:
            while block := response.read(BLOCK):
                file.write(block)
                digest.update(block)
                meter.reach(file.tell(), f"{file.tell() / 2**20:,.0f} MiB")
        if digest.hexdigest() != sha256:
            raise ValueError(f"its SHA-256 is {digest.hexdigest()}")


def is_reachable(url: str, seconds: float) -> bool:
    """Whether the server answers within `seconds`. Uses a thread, because looking up a name can outlast any timeout."""
    answered = threading.Event()

    def ask() -> None:
        try:
            request = urllib.request.Request(url, method="HEAD", headers={"User-Agent": "undiffuse"})
            with urllib.request.urlopen(request, timeout=seconds):
                answered.set()
        except (OSError, HTTPException):
            pass

    thread = threading.Thread(target=ask, daemon=True)
    thread.start()
    thread.join(seconds)
    return answered.is_set()
