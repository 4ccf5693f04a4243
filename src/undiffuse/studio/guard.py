"""What the server refuses before gradio sees it: other hosts' pages, and requests that would make it fetch addresses.

gradio fetches an address that a visitor names in place of a file. The studio sends nothing from this machine, so such
requests are answered with a sentence.
"""

import json
import re
from typing import Any
from urllib.parse import unquote, urlsplit

from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from undiffuse.utils.terminal import log

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
        answer = refused_outright(request)
        if answer is None and request.method == "POST" and not _is_form(request):
            body = await _body(receive)
            refusal = "This is too large." if body is None else refused(body)
            answer = PlainTextResponse(refusal, 400) if refusal else None
            receive = _again(body or b"", receive)
        await (answer or self._passed_on)(scope, receive, send)

    async def _passed_on(self, scope: Scope, receive: Receive, send: Send) -> None:
        """What gradio answers; where it fails before it has begun to, a sentence."""
        begun = False

        async def watched(message: Message) -> None:
            nonlocal begun
            begun = True
            await send(message)

        try:
            await self.app(scope, receive, watched)
        except Exception as error:  # Of a request that no page makes.
            if begun:
                raise
            log.info(f"{type(error).__name__} at {scope['path']}")
            await PlainTextResponse("This request cannot be read.", 400)(scope, receive, send)


def refused_outright(request: Request) -> Response | None:
    """The answer to a request from elsewhere, or for something elsewhere; None where it may pass."""
    here = f"http://{request.headers.get('host', '')}", request.headers.get("origin", "http://localhost")
    if not all(map(_is_here, here)):
        return PlainTextResponse("The studio answers to this machine alone.", 403)
    path = unquote(unquote(request.scope["path"]))
    if "/proxy=" in path or any(ADDRESS.match(path.partition(part)[2]) for part in FETCHING if part in path):
        return PlainTextResponse("The studio fetches no addresses.", 403)
    return None


def _is_form(request: Request) -> bool:
    return request.headers.get("content-type", "").startswith("multipart/")


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
