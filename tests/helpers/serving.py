"""A local file server, and an address without one, for tests of downloads."""

import hashlib
import socket
import threading
from collections.abc import Callable, Generator
from contextlib import contextmanager
from functools import partial
from http.server import BaseHTTPRequestHandler, SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any


def md5(content: bytes) -> str:
    return hashlib.md5(content).hexdigest()


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: object) -> None:
        pass


class Ranges(Quiet):
    """Serves parts of files, as servers of large ones do, and can fail."""

    def __init__(self, *arguments: Any, served: list[int], break_at: list[int], **named: Any):
        self.served, self.break_at = served, break_at
        super().__init__(*arguments, **named)

    def do_GET(self) -> None:
        content = Path(self.translate_path(self.path)).read_bytes()
        first, last = map(int, self.headers["Range"].removeprefix("bytes=").split("-"))
        self.send_response(206)
        self.send_header("Content-Range", f"bytes {first}-{last}/{len(content)}")
        self.send_header("Content-Length", str(last + 1 - first))
        self.end_headers()
        if self.break_at and first <= self.break_at[0] <= last:
            last = self.break_at.pop(0)
            self.close_connection = True
        self.served.append(first)
        self.wfile.write(content[first : last + 1])


@contextmanager
def serving(folder: Path, handler: Callable[..., BaseHTTPRequestHandler] = Quiet) -> Generator[str]:
    """Serves the files of the folder at this URL."""
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(handler, directory=str(folder))) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}/"
        finally:
            server.shutdown()
            thread.join()


def closed_port() -> str:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{taken.getsockname()[1]}/"
