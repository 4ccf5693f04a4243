"""The Hugging Face Hub, played by a local server: what is requested, what is kept, and the errors without it."""

import json
import socket
import sys
import threading
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from helpers.serving import closed_port

from undiffuse.cli import main
from undiffuse.interop import hub as ours

REVISION = "0123456789abcdef0123456789abcdef01234567"


@contextmanager
def hub(model: str, folder: Path, requested: list[str]) -> Generator[str]:
    """The URL of a Hub with one model; files that are requested are added to `requested`."""
    names = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
    info = {"id": model, "sha": REVISION, "siblings": [{"rfilename": name} for name in names]}

    class Handler(BaseHTTPRequestHandler):
        def do_HEAD(self) -> None:
            self.answer(body=False)

        def do_GET(self) -> None:
            self.answer(body=True)

        def answer(self, body: bool) -> None:
            path = self.path.partition("?")[0]
            prefix = f"/{model}/resolve/{REVISION}/"
            if path in (f"/api/models/{model}", f"/api/models/{model}/revision/main"):
                self.give(json.dumps(info).encode(), body)
            elif path.startswith(f"/api/models/{model}/tree/{REVISION}"):
                files = [{"type": "file", "path": n, "size": (folder / n).stat().st_size, "oid": "0"} for n in names]
                self.give(json.dumps(files).encode(), body)
            elif path.startswith(prefix) and path.removeprefix(prefix) in names:
                requested.append(path.removeprefix(prefix))
                self.give((folder / path.removeprefix(prefix)).read_bytes(), body)
            else:
                self.send_error(404)

        def give(self, content: bytes, body: bool) -> None:
            self.send_response(200)
            self.send_header("Content-Length", str(len(content)))
            self.send_header("ETag", f'"{abs(hash(content)):x}"')
            self.send_header("X-Repo-Commit", REVISION)
            self.end_headers()
            if body:
                self.wfile.write(content)

        def log_message(self, format: str, *arguments: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()


@pytest.fixture
def at(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Moves the Hub to a URL, as HF_ENDPOINT would at the start of the program, with an empty cache."""
    from huggingface_hub import constants

    def put(endpoint: str) -> None:
        monkeypatch.setattr(constants, "ENDPOINT", endpoint)
        template = f"{endpoint}/{{repo_id}}/resolve/{{revision}}/{{filename}}"
        monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(Path("cache").absolute()))
    return put


def test_only_the_files_that_are_needed_are_downloaded(
    saved: Callable[..., Path], at: Callable[[str], None], capsys: pytest.CaptureFixture
) -> None:
    folder = saved()
    for name in ("README.md", "samples/1.png", "unet/diffusion_pytorch_model.bin", "run.py", "tokenizer.json"):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_bytes(b"not needed")
    requested: list[str] = []
    with hub("owner/tiny", folder, requested) as endpoint:
        at(endpoint)
        main(["import", "owner/tiny"])
    assert json.loads(Path("runs/tiny/config.json").read_text())["data"]["data"] == "owner/tiny"
    assert set(requested) == {
        *("model_index.json", "unet/config.json", "scheduler/scheduler_config.json"),
        "unet/diffusion_pytorch_model.safetensors",
    }
    # The copy in the cache needs no Hub.
    at(closed_port().rstrip("/"))
    main(["import", "owner/tiny", "--out", "again"])
    assert capsys.readouterr().out.count("source   owner/tiny") == 2


def test_without_a_hub_or_a_model_the_error_is_one_sentence(
    saved: Callable[..., Path], at: Callable[[str], None], capsys: pytest.CaptureFixture
) -> None:
    with hub("owner/tiny", saved(), []) as endpoint:
        for place in (endpoint, closed_port().rstrip("/")):
            at(place)
            with pytest.raises(SystemExit) as end:
                main(["import", "owner/huge"])
            assert end.value.code == 2
            error = capsys.readouterr().err
            assert error.count("\n") == 1
            assert (
                f"There is nothing at {Path('owner/huge').absolute()}, and the Hugging Face Hub did not return" in error
            )
    assert not Path("runs").exists()


def test_a_repository_without_a_diffusers_model_is_refused(at: Callable[[str], None]) -> None:
    Path("data").mkdir()
    Path("data/train.csv").write_text("1,2")
    with hub("owner/table", Path("data"), []) as endpoint:
        at(endpoint)
        with pytest.raises(ValueError, match="owner/table on the Hugging Face Hub is not a diffusers model"):
            ours.download("owner/table")


def test_a_hub_that_does_not_respond_is_not_waited_for(
    at: Callable[[str], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert ours.TIMEOUT_SECONDS <= 5
    monkeypatch.setattr(ours, "TIMEOUT_SECONDS", 0.2)
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        at(f"http://127.0.0.1:{silent.getsockname()[1]}")
        began = time.monotonic()
        with pytest.raises(FileNotFoundError, match="did not return a model owner/tiny"):
            ours.download("owner/tiny")
        assert time.monotonic() - began < 5


def test_without_huggingface_hub_the_error_says_how_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(ValueError, match=r"pip install 'undiffuse\[hub\]'"):
        ours.download("owner/tiny")


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("google/ddpm-cifar10-32", True),
        ("a/b.c_d", True),
        ("folder", False),
        ("../folder", False),
        ("./folder", False),
        ("/srv/folder", False),
        ("a/b/c", False),
        ("a/..", False),
        ("a/b\n", False),
        ("", False),
    ],
)
def test_is_hub_id(source: str, expected: bool) -> None:
    assert ours.is_hub_id(source) == expected
