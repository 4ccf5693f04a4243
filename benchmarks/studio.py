"""Whether the studio bears visitors: ten at once, each with seeds of its own, and then malformed requests.

python benchmarks/studio.py visitors --seconds 60
python benchmarks/studio.py malformed --requests 500

Both serve the shipped digits from a process of its own, and end with what was lost, mixed up, or read that must not be.
"""

import base64
import io
import json
import os
import random
import re
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import numpy as np
import tyro
from PIL import Image

import undiffuse as ud

SECRET = "what-lies-outside-must-not-be-read"
STEPS, COUNT = 8, 4
IMAGES = re.compile(r"<img class=\\?\"pixels\\?\".*?base64,([A-Za-z0-9+/=]+)")


@dataclass(frozen=True)
class Served:
    """A studio in a process of its own."""

    address: str
    process: subprocess.Popen[bytes]
    folder: Path

    @property
    def mebibytes(self) -> float:
        """Resident memory of the process."""
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        return int(re.findall(r"VmRSS:\s+(\d+)", status)[0]) / 1024

    @property
    def temporary_files(self) -> int:
        """Those that the studio has not deleted yet."""
        return sum(path.is_file() for path in (self.folder.parent / "temporary").rglob("*"))


@contextmanager
def served(port: int) -> Generator[Served, None, None]:
    """The studio with the shipped models, in an empty folder beside a file that nobody may read."""
    with tempfile.TemporaryDirectory() as top:
        (Path(top) / "secret.txt").write_text(SECRET)
        folder = Path(top) / "work"
        folder.mkdir()
        (Path(top) / "temporary").mkdir()
        command = [sys.executable, "-m", "undiffuse", "studio", "--port", str(port)]
        with open(Path(top) / "said.txt", "wb") as said:
            environment = {**os.environ, "TMPDIR": f"{top}/temporary"}
            process = subprocess.Popen(command, cwd=folder, stdout=said, stderr=said, env=environment)
        studio = Served(f"http://127.0.0.1:{port}", process, folder)
        try:
            until = time.monotonic() + 300
            while not _answers(studio):
                if process.poll() is not None or time.monotonic() > until:
                    raise RuntimeError((Path(top) / "said.txt").read_text())
                time.sleep(1)
            yield studio
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait(60)


@dataclass
class Tally:
    """What happened to the visitors' requests."""

    right: int = 0
    mixed_up: int = 0
    lost: list[str] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)


def visitors(count: int = 10, seconds: float = 60, port: int = 7991) -> None:
    """Visitors at once, each of whom asks for one image after the other.

    Args:
        count: How many.
        seconds: For how long; each then waits for its last image.
        port: Port of the studio.
    """
    model = ud.load("digits", device="cpu")
    with served(port) as studio:
        generate(studio, 0)
        before, tallies = studio.mebibytes, [Tally() for _ in range(count)]
        until = time.monotonic() + seconds

        def visit(number: int) -> None:
            tally, turn = tallies[number], 0
            while time.monotonic() < until:
                seed, began = 1_000 * (number + 1) + turn * COUNT, time.monotonic()
                turn += 1
                try:
                    images = generate(studio, seed)
                except Exception as error:
                    tally.lost.append(f"{type(error).__name__}: {error}")
                    continue
                tally.seconds.append(time.monotonic() - began)
                expected = model.sample(COUNT, seed=seed, steps=STEPS)[..., 0]
                close = images.shape == expected.shape and int(np.abs(images.astype(int) - expected).max()) <= 1
                tally.right, tally.mixed_up = tally.right + close, tally.mixed_up + (not close)

        threads = [threading.Thread(target=visit, args=(number,)) for number in range(count)]
        middle = threading.Timer(seconds / 2, lambda: print(f"memory at half time {studio.mebibytes:.0f} MiB"))
        middle.start()
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        waited = sorted(second for tally in tallies for second in tally.seconds)
        print(f"{count} visitors for {seconds:g} s; load of the machine {os.getloadavg()[0]:.1f}")
        print(f"right {sum(tally.right for tally in tallies)}, of each visitor {[tally.right for tally in tallies]}")
        print(f"mixed up {sum(tally.mixed_up for tally in tallies)}")
        lost = [each for tally in tallies for each in tally.lost]
        print(f"lost {len(lost)} {Counter(lost).most_common(3) or ''}")
        print(f"waited {waited[len(waited) // 2]:.2f} s in the median, {waited[-1]:.2f} s at most")
        print(f"memory {before:.0f} MiB before, {studio.mebibytes:.0f} MiB after")
        print(f"temporary files {studio.temporary_files}")


def malformed(requests: int = 500, seed: int = 0, port: int = 7992) -> None:
    """Requests that no page makes: broken JSON, wrong types, huge numbers, missing fields, paths outside.

    Args:
        requests: How many.
        seed: Of their choice.
        port: Port of the studio.
    """
    chance, answers = random.Random(seed), Counter[str]()
    with served(port) as studio, _client(studio) as client:
        before, read, failed = studio.mebibytes, 0, 0
        for _ in range(requests):
            kind = chance.choice(list(KINDS))
            try:
                answer = KINDS[kind](client, chance, studio)
            except httpx.HTTPError as error:  # Refused before it was sent whole.
                answers[f"{kind}: {type(error).__name__}"] += 1
                continue
            answers[f"{kind}: {answer.status_code // 100}xx"] += 1
            read += SECRET in answer.text or "root:x:" in answer.text
            failed += "Traceback" in answer.text
        print(f"{requests} malformed requests, seed {seed}; load of the machine {os.getloadavg()[0]:.1f}")
        for name, number in sorted(answers.items()):
            print(f"  {name:<28} {number}")
        model = ud.load("digits", device="cpu")
        expected = model.sample(COUNT, seed=5, steps=STEPS)[..., 0]
        right = int(np.abs(generate(studio, 5).astype(int) - expected).max()) <= 1
        print(f"files read outside {read}, stack traces shown {failed}")
        print(f"still alive {studio.process.poll() is None}, and answers right {right}")
        print(f"memory {before:.0f} MiB before, {studio.mebibytes:.0f} MiB after")


def generate(studio: Served, seed: int) -> np.ndarray:
    """The images (n, height, width) that the studio makes of a seed, from the page's own markup."""
    url = f"{studio.address}/gradio_api/call/generate"
    values = ["digits", "", 1.5, "ipndm", STEPS, seed, COUNT, "x", "", "", "", None]
    key = httpx.post(url, json={"data": values}, timeout=120).json()["event_id"]
    text = httpx.get(f"{url}/{key}", timeout=300).text
    if "event: complete" not in text:
        raise RuntimeError(text[-200:])
    last = text.rpartition("event: complete")[2]
    return np.stack([np.array(Image.open(io.BytesIO(base64.b64decode(each)))) for each in IMAGES.findall(last)])


def _client(studio: Served) -> httpx.Client:
    # A connection each: a server may close one on which it refused something.
    return httpx.Client(base_url=studio.address, timeout=120, limits=httpx.Limits(max_keepalive_connections=0))


def _answers(studio: Served) -> bool:
    try:
        return httpx.get(studio.address, timeout=5).status_code == 200
    except httpx.HTTPError:
        return False


ODD = (
    *(None, True, -1, 10**400, 1e308, float("nan"), float("inf"), "", "x" * 100_000, "\0", "../../secret.txt"),
    *([], {}, [[[]]], {"path": "../secret.txt"}, {"__type__": "update"}, "<script>alert(1)</script>", "; rm -rf /"),
)
ROUTES = ("call/generate", "call/compare", "call/look", "queue/join", "run/predict", "api/predict", "cancel", "upload")


def _random_bytes(client: httpx.Client, chance: random.Random, studio: Served) -> httpx.Response:
    kinds = ("application/json", "multipart/form-data", "multipart/form-data; boundary=x", "text/plain", "")
    content, headers = chance.randbytes(chance.randrange(2000)), {"content-type": chance.choice(kinds)}
    return client.post(f"/gradio_api/{chance.choice(ROUTES)}", content=content, headers=headers)


def _wrong_types(client: httpx.Client, chance: random.Random, studio: Served) -> httpx.Response:
    values = ["digits", "", 1, "ipndm", 2, 0, 1, "x", "", "", "", None]
    for _ in range(chance.randrange(1, 5)):
        values[chance.randrange(len(values))] = chance.choice(ODD)
    body = json.dumps({"data": values[: chance.randrange(1, 14)]})
    answer = client.post("/gradio_api/call/generate", content=body, headers={"content-type": "application/json"})
    key = answer.json().get("event_id") if answer.status_code == 200 else None
    return client.get(f"/gradio_api/call/generate/{key}") if key else answer


def _any_function(client: httpx.Client, chance: random.Random, studio: Served) -> httpx.Response:
    file = {"path": str(studio.folder.parent / "secret.txt"), "meta": {"_type": "gradio.FileData"}}
    values = [chance.choice([*ODD, file, [file], {"background": file, "layers": [file], "composite": file}])] * 9
    body = {"data": values[: chance.randrange(10)], "fn_index": chance.randrange(-2, 60), "session_hash": "abc"}
    for name in list(body):
        if chance.random() < 0.1:
            del body[name]
    route = chance.choice(["run/predict", "api/predict", "queue/join"])
    return client.post(f"/gradio_api/{route}", content=json.dumps(body), headers={"content-type": "application/json"})


def _path_outside(client: httpx.Client, chance: random.Random, studio: Served) -> httpx.Response:
    secret = str(studio.folder.parent / "secret.txt")
    paths = [
        secret,
        "/etc/passwd",
        "../secret.txt",
        "..%2fsecret.txt",
        "%2e%2e/secret.txt",
        f"/{secret}",
        f"file://{secret}",
    ]
    prefixes = ["gradio_api/file=", "gradio_api/file/", "file=", "static/", "assets/", "report/", "gradio_api/stream/"]
    return client.get(
        f"/{chance.choice(prefixes)}{chance.choice(['', '../' * 8, '%2e%2e%2f' * 8])}{chance.choice(paths)}"
    )


def _deep(client: httpx.Client, chance: random.Random, studio: Served) -> httpx.Response:
    depth = chance.choice([100, 5_000, 200_000])
    body = '{"data":' + "[" * depth + "]" * depth + "}"
    return client.post("/gradio_api/queue/join", content=body, headers={"content-type": "application/json"})


def _upload(client: httpx.Client, chance: random.Random, studio: Served) -> httpx.Response:
    names = ["../../../evil.png", "/etc/evil", "a\0b", "x" * 5000, "", "con.png", "a.html"]
    return client.post("/gradio_api/upload", files={"files": (chance.choice(names), chance.randbytes(50))})


KINDS = {
    "random bytes": _random_bytes,
    "wrong types": _wrong_types,
    "any function": _any_function,
    "path outside": _path_outside,
    "deep nesting": _deep,
    "odd upload": _upload,
}


if __name__ == "__main__":
    tyro.extras.subcommand_cli_from_dict({"visitors": visitors, "malformed": malformed})
