"""Which browser opens the pages."""

import os
import shutil

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")


def found_browser() -> str | None:
    """$UNDIFFUSE_CHROMIUM, or the first that the system has."""
    return os.environ.get("UNDIFFUSE_CHROMIUM") or next(filter(None, map(shutil.which, NAMES)), None)
