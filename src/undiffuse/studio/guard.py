"""What the server refuses before gradio sees it: other hosts' pages, and requests that would make it fetch addresses.

gradio fetches an address that a visitor names in place of a file. The studio sends nothing from this machine, so such
requests are answered with a sentence.
"""

import json
import re
from typing import Any
from urllib.parse import unquote, urlsplit

from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

HOSTS = ("127.0.0.1", "localhost", "::1")
"""Names by which this machine calls itself. A page elsewhere whose name was made to point here has another one."""

MOST_BODY_BYTES = 32 * 2**20
"""Of a request that is no upload."""

ADDRESS = re.compile(r"\s*(https?|ftp|file|data|s3|gs):", re.IGNORECASE)

FETCHING = ("/file=", "/file/", "/proxy=", "/stream/")


class Guard:
    """An ASGI middleware."""

    def __init__(self, app: ASGIApp):
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        request = Request(scope)
        path = unquote(unquote(scope["path"]))
        if not _is_here(f"http://{request.headers.get('host', '')}") or not _is_here(
            request.headers.get("origin", "http://localhost")
        ):
            await PlainTextResponse("The studio answers to this machine alone.", 403)(scope, receive, send)
        elif "/proxy=" in path or any(ADDRESS.match(path.partition(part)[2]) for part in FETCHING if part in path):
            await PlainTextResponse("The studio fetches no addresses.", 403)(scope, receive, send)
        elif request.method != "POST" or request.headers.get("content-type", "").startswith("multipart/"):
            await self.app(scope, receive, send)
        else:
            body = await _body(receive)
            refusal = "Too large." if body is None else refused(body)
            if refusal:
                await PlainTextResponse(refusal, 400)(scope, receive, send)
            else:
                await self.app(scope, _again(body or b"", receive), send)


def _is_here(address: str) -> bool:
    """Whether an address names this machine, as the page's own requests do."""
    try:
        return urlsplit(address).hostname in HOSTS
    except ValueError:
        return False


def refused(body: bytes) -> str:
    """Why a request's JSON is not passed on; "" where it is."""
    try:
        values = json.loads(body) if body else None
    except (ValueError, RecursionError):
        return "This is not JSON."
    return "The studio fetches no addresses: upload the file." if _names_address(values) else ""


def _names_address(values: Any) -> bool:
    """Whether a file in it is an address."""
    waiting = [values]
    while waiting:
        value = waiting.pop()
        if isinstance(value, dict):
            if isinstance(value.get("path"), str) and ADDRESS.match(value["path"]):
                return True
            waiting.extend(value.values())
        elif isinstance(value, list):
            waiting.extend(value)
    return False


async def _body(receive: Receive) -> bytes | None:
    """The whole body; None if it is too large."""
    content, more = b"", True
    while more:
        message = await receive()
        content += message.get("body", b"")
        more = message.get("more_body", False)
        if len(content) > MOST_BODY_BYTES:
            return None
    return content


def _again(body: bytes, receive: Receive) -> Receive:
    """Gives the body that was read already, and then what follows it."""
    given = False

    async def replay() -> Message:
        nonlocal given
        if given:
            return await receive()
        given = True
        return {"type": "http.request", "body": body, "more_body": False}

    return replay
