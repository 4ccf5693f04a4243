"""Finds out within seconds whether a server can be reached."""

import threading
import urllib.request
from http.client import HTTPException


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
