"""What is refused before gradio sees it."""

import json
from typing import Any

import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Route
from starlette.testclient import TestClient
from starlette.types import Receive, Scope, Send

from undiffuse.studio.guard import Guard


async def echo(request: Request) -> PlainTextResponse:
    return PlainTextResponse("passed on: " + (await request.body()).decode())


@pytest.fixture(scope="module")
def client() -> TestClient:
    app = Starlette(routes=[Route("/{rest:path}", echo, methods=["GET", "POST"])])
    return TestClient(Guard(app), base_url="http://127.0.0.1:7860")


def test_what_is_harmless_is_passed_on_whole(client: TestClient) -> None:
    values = {"data": [3, None, "https://is.only/text", {"path": "/elsewhere/x.png"}]}
    assert (
        client.post("/gradio_api/queue/join", json=values).text
        == f"passed on: {json.dumps(values, separators=(',', ':'))}"
    )
    assert client.get("/gradio_api/file=/elsewhere/x.png").status_code == 200


@pytest.mark.parametrize("host", ["evil.example", "127.0.0.1.evil.example:7860", "", "localhost.evil", "[::1"])
def test_another_name_for_this_machine_is_refused(client: TestClient, host: str) -> None:
    assert client.get("/", headers={"host": host}).status_code == 403


@pytest.mark.parametrize(
    ("origin", "status"), [("http://evil.example", 403), ("null", 403), ("http://localhost:7860", 200)]
)
def test_a_page_elsewhere_cannot_ask_for_anything(client: TestClient, origin: str, status: int) -> None:
    assert client.post("/gradio_api/upload", files={"files": b"x"}, headers={"origin": origin}).status_code == status


@pytest.mark.parametrize(
    "path",
    [
        "/gradio_api/file=http://evil.example/x",
        "/gradio_api/file=https%3A%2F%2Fevil.example",
        "/gradio_api/file=%2568ttp://evil.example",
        "/file/HTTP://evil.example",
        "/gradio_api/proxy=https://x.hf.space/y",
    ],
)
def test_addresses_in_paths_are_refused(client: TestClient, path: str) -> None:
    assert client.get(path).status_code == 403


@pytest.mark.parametrize(
    "value",
    [
        {"path": "http://evil.example/x.png"},
        {"a": [{"b": {"path": " HTTPS://evil.example"}}]},
        [[{"path": "file:///etc/passwd", "meta": {"_type": "gradio.FileData"}}]],
    ],
)
def test_addresses_in_place_of_files_are_refused(client: TestClient, value: Any) -> None:
    answer = client.post("/gradio_api/queue/join", json={"data": [value]})
    assert (answer.status_code, answer.text) == (400, "The studio fetches no addresses: upload the file.")


@pytest.mark.parametrize("body", [b"{", b"\xff\xfe", b"[" * 100_000])
def test_what_is_not_json_is_refused(client: TestClient, body: bytes) -> None:
    for kind in ("application/json", "text/plain", ""):
        answer = client.post("/x", content=body, headers={"content-type": kind})
        assert (answer.status_code, answer.text) == (400, "This is not JSON.")


def test_what_gradio_fails_at_is_a_sentence() -> None:
    async def failing(scope: Scope, receive: Receive, send: Send) -> None:
        raise KeyError("secret")

    answer = TestClient(Guard(failing), base_url="http://localhost").get("/")
    assert (answer.status_code, answer.text) == (400, "This request cannot be read.")
