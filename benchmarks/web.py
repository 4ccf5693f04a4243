"""How large the page of `undiffuse export --to web` is, and how fast: the time to the first image, and per step.

python benchmarks/web.py digits --out exported/digits-web
python benchmarks/web.py flowers --out exported/flowers-web --screenshots docs
"""

import functools
import http.server
import threading
import time
from pathlib import Path

import tyro
from measuring import machine
from playwright.sync_api import Browser, expect, sync_playwright

import undiffuse

LOOKS = {"light": 1280, "dark": 390}
"""Each with its width."""
MILLISECONDS = 300_000


def main(
    run: str, /, out: Path, browser: str = "/usr/bin/chromium", at: str = "", screenshots: Path | None = None
) -> None:
    """Exports the run unless it is there, and opens the page twice, each time as for the first time.

    Args:
        run: A run, or a model that comes with undiffuse.
        out: The page's folder.
        browser: Chromium.
        at: Settings, such as "#seed=3&steps=8".
        screenshots: A folder for web-RUN-light.png, wide, and web-RUN-dark.png, as on a phone.
    """
    if not out.exists():
        undiffuse.export(run, "web", out)
    sizes = {path.relative_to(out).as_posix(): path.stat().st_size for path in out.rglob("*") if path.is_file()}
    largest = ", ".join(f"{name} {size / 1e6:.1f}" for name, size in sizes.items() if size > 1e5)
    print(f"{machine()}; {sum(sizes.values()) / 1e6:.1f} MB ({largest})")
    handler = functools.partial(_Quiet, directory=str(out))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server, sync_playwright() as playwright:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        chromium = playwright.chromium.launch(executable_path=browser, args=["--no-sandbox"])
        for look in LOOKS:
            picture = screenshots and screenshots / f"web-{run}-{look}.png"
            _open(chromium, f"http://127.0.0.1:{server.server_port}/{at}", look, picture)
        server.shutdown()


def _open(chromium: Browser, url: str, look: str, picture: Path | None) -> None:
    context = chromium.new_context(color_scheme=look, viewport={"width": LOOKS[look], "height": 844})  # ty: ignore
    page = context.new_page()
    began = time.perf_counter()
    page.goto(url)
    expect(page.locator("#status")).to_contain_text("Made in", timeout=MILLISECONDS)
    print(f"{time.perf_counter() - began:.1f} s to the first image. {page.inner_text('#status')}")
    if picture:
        page.screenshot(path=picture, full_page=True)
    context.close()


class _Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *arguments: object) -> None:
        pass


if __name__ == "__main__":
    tyro.cli(main)
