"""The pages that `explore` wrote for visitors, served under names that nobody can guess."""

import secrets
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path

from starlette.requests import Request
from starlette.responses import FileResponse, PlainTextResponse, Response
from starlette.routing import Route

from undiffuse.utils.files import remove

KEPT = 20
"""Pages; the oldest is deleted for the next."""


class Reports:
    """Writes pages into a folder and serves them at /report/KEY."""

    def __init__(self, folder: Path):
        self.folder = folder
        self._pages: OrderedDict[str, Path] = OrderedDict()

    def add(self, write: Callable[[Path], Path]) -> str:
        """Lets `write` make a folder with the page, whose path it returns; gives the page's address on this server."""
        key = secrets.token_urlsafe(12)
        self._pages[key] = write(self.folder / key)
        while len(self._pages) > KEPT:
            _, oldest = self._pages.popitem(last=False)
            remove(oldest.parent)
        return f"/report/{key}"

    def route(self) -> Route:
        return Route("/report/{key}", self._serve)

    def _serve(self, request: Request) -> Response:
        page = self._pages.get(request.path_params["key"])
        if page is None:
            return PlainTextResponse("This page is no longer kept: look at the images again.", 404)
        return FileResponse(page, media_type="text/html")
