"""Finds the browser that opens the pages."""

import os
import shutil

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")


def find_browser() -> str | None:
    """$UNDIFFUSE_CHROMIUM, or the first one installed."""
    return os.environ.get("UNDIFFUSE_CHROMIUM") or next(filter(None, map(shutil.which, NAMES)), None)
