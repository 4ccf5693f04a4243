"""The page of `undiffuse export --to web` in a browser: its mathematics, its images and its looks."""

import io
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import numpy as np
import pytest
import torch
from helpers.chromium import find_browser
from helpers.serving import serving
from PIL import Image
from playwright.sync_api import Browser, BrowserContext, Page, Request, expect

import undiffuse as ud
from undiffuse.cli import main
from undiffuse.diffusion import samplers
from undiffuse.diffusion.consistency import sampling_sigmas
from undiffuse.diffusion.denoiser import without_variance
from undiffuse.diffusion.guidance import guided
from undiffuse.diffusion.noise import karras_sigmas
from undiffuse.interop.web import PAGE

DESKTOP, PHONE = 1280, 390
SECONDS = 120_000
"""Milliseconds in which a busy machine makes an image."""

Scheme = Literal["light", "dark"]


@pytest.mark.parametrize("order", [1, 4])
def test_its_sampler_and_guidance_are_pythons(browser: Browser, order: int) -> None:
    """On a denoiser that both languages write alike."""
    sigmas = karras_sigmas(6, 0.002, 80.0)
    normal = torch.randn(1, 1, 2, 3, generator=torch.Generator().manual_seed(0))

    def denoise(x: torch.Tensor, sigma: torch.Tensor, label: torch.Tensor) -> torch.Tensor:
        return torch.sin(x / (1 + sigma[:, None, None, None])) + 0.1 * label.double()[:, None, None, None]

    predict = guided(without_variance(denoise), 1.75, interval=(0.1, 30.0))
    x = samplers.starting_noise(normal, sigmas[0])
    steps = samplers.ipndm(lambda x, s, label: predict(x, s, label).x0, x, sigmas, torch.tensor([2]), order=order)
    expected = [(step.x.flatten().tolist(), step.x0.flatten().tolist()) for step in steps]
    script = """async ([url, normal, sigmas, order]) => {
      const { guided, ipndm, startingNoise } = await import(url);
      const evaluate = async (x, sigma, labels) =>
        labels.map((label) => x.map((value) => Math.sin(value / (1 + sigma)) + 0.1 * label));
      const denoise = guided(evaluate, 2, 1.75, [0.1, 30]);
      const steps = [];
      for await (const { x, x0 } of ipndm(denoise, startingNoise(normal, sigmas[0]), sigmas, order))
        steps.push([[...x], [...x0]]);
      return steps;
    }"""
    with serving(PAGE) as url, browser.new_context() as context:
        page = context.new_page()
        page.goto(f"{url}README.txt")
        found = page.evaluate(script, [f"{url}samplers.js", normal.flatten().tolist(), sigmas.tolist(), order])
    np.testing.assert_allclose(found, expected, rtol=1e-12, atol=1e-12)


def test_its_sampler_for_students_is_pythons(browser: Browser) -> None:
    sigmas = sampling_sigmas(3, 80.0)
    normal = torch.randn(3, 1, 1, 2, 3, generator=torch.Generator().manual_seed(0))

    def denoise(x: torch.Tensor, sigma: torch.Tensor, label: None) -> torch.Tensor:
        return torch.sin(x / (1 + sigma[:, None, None, None]))

    draws = iter(normal)
    x = samplers.starting_noise(next(draws), sigmas[0])
    steps = samplers.consistency(denoise, x, sigmas, noise=lambda: next(draws))
    expected = [(step.x.flatten().tolist(), step.x0.flatten().tolist()) for step in steps]
    script = """async ([url, normal, sigmas]) => {
      const { consistency, startingNoise } = await import(url);
      const denoise = async (x, sigma) => x.map((value) => Math.sin(value / (1 + sigma)));
      const noise = () => normal.shift();
      const steps = [];
      for await (const { x, x0 } of consistency(denoise, startingNoise(noise(), sigmas[0]), sigmas, noise))
        steps.push([[...x], [...x0]]);
      return steps;
    }"""
    with serving(PAGE) as url, browser.new_context() as context:
        page = context.new_page()
        page.goto(f"{url}README.txt")
        found = page.evaluate(script, [f"{url}samplers.js", normal.flatten(1).tolist(), sigmas.tolist()])
    np.testing.assert_allclose(found, expected, rtol=1e-12, atol=1e-12)


def test_the_noise_of_other_seeds_is_normal_and_its_own(browser: Browser) -> None:
    script = """async (url) => {
      const { normal } = await import(url);
      return [64, 65, 64].map((seed) => [...normal(seed, 30001)]);
    }"""
    with serving(PAGE) as url, browser.new_context() as context:
        page = context.new_page()
        page.goto(f"{url}README.txt")
        one, other, again = np.array(page.evaluate(script, f"{url}noise.js"))
    assert np.array_equal(one, again)
    for numbers in (one, other):
        assert abs(numbers.mean()) < 0.03
        assert abs(numbers.std() - 1) < 0.02
        assert abs((numbers**4).mean() - 3) < 0.2
        assert abs(np.corrcoef(numbers[1:], numbers[:-1])[0, 1]) < 0.03
    assert abs(np.corrcoef(one, other)[0, 1]) < 0.03


@dataclass
class Watched:
    """The page, and what must not happen in it."""

    page: Page
    address: str
    faults: list[str] = field(default_factory=list)

    def watch(self, context: BrowserContext) -> None:
        self.page.on("console", lambda message: self.faults.append(message.text))
        self.page.on("pageerror", lambda error: self.faults.append(str(error)))
        context.on("requestfailed", lambda request: self.faults.append(request.url))
        context.on("request", self._requested)

    def _requested(self, request: Request) -> None:
        if not request.url.startswith(self.address):
            self.faults.append(request.url)

    def made(self) -> np.ndarray:
        """The finished image, `(height, width, 4)`."""
        expect(self.page.locator("#status")).to_contain_text("Made in", timeout=SECONDS)
        pixels = self.page.evaluate(
            # From a copy: Chromium warns of a canvas that is read often.
            "() => { const c = document.getElementById('image');"
            "const copy = new OffscreenCanvas(c.width, c.height).getContext('2d', { willReadFrequently: true });"
            "copy.drawImage(c, 0, 0);"
            "return [c.height, c.width, ...copy.getImageData(0, 0, c.width, c.height).data]; }"
        )
        return np.array(pixels[2:], np.uint8).reshape(pixels[0], pixels[1], 4)


@contextmanager
def opened(
    browser: Browser, folder: Path, width: int = DESKTOP, scheme: Scheme = "light", at: str = ""
) -> Generator[Watched]:
    with serving(folder.parent) as url, browser.new_context(color_scheme=scheme) as context:
        page = context.new_page()
        page.set_viewport_size({"width": width, "height": 844})
        watched = Watched(page, f"{url}{folder.name}/")
        watched.watch(context)
        page.goto(watched.address + at)
        yield watched


@pytest.fixture(scope="module")
def digits_page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The shipped digits as a page; downloads onnxruntime-web."""
    pytest.importorskip("onnxscript", reason="pip install 'undiffuse[onnx]'")
    if find_browser() is None:
        pytest.skip("Chromium is not installed")
    folder = tmp_path_factory.mktemp("web") / "page"
    main(["export", "digits", "--to", "web", str(folder)])
    return folder


@pytest.mark.slow
def test_its_images_are_the_command_lines(browser: Browser, digits_page: Path) -> None:
    digits, furthest = ud.load("digits"), 0
    asked = [(0, 3, 18, 1.5), (7, 9, 18, 1.5), (63, 0, 6, 1.5), (12, 5, 8, 3.0), (1, 8, 4, 1.0), (2, -1, 12, 1.0)]
    for seed, label, steps, guidance in asked:
        at = f"#seed={seed}&label={label}&steps={steps}&guidance={guidance}"
        with opened(browser, digits_page, at=at) as watched:
            found = watched.made()
            command = watched.page.inner_text("#command").split()
            assert watched.page.locator("#film canvas").count() == steps
            assert watched.faults == []
        main([*command[1:], "--out", "images"])
        expected = np.asarray(Image.open(f"images/{seed:06d}.png"))
        from_python = digits.sample(1, label=label, seed=seed, steps=steps, guidance=guidance)[0, :, :, 0]
        assert np.array_equal(expected, from_python)
        assert np.array_equal(found[:, :, 0], found[:, :, 2])
        furthest = max(furthest, int(np.abs(found[:, :, 0].astype(int) - expected).max()))
        Path("images").rename(f"images-{seed}")
    assert furthest <= 2


@pytest.mark.slow
def test_a_student_s_images_are_the_command_lines(browser: Browser, digits_page: Path) -> None:
    """The fresh noise of each step, too."""
    student = ud.distill("digits", images=64, batch=64, out="runs/student")
    main(["export", "runs/student", "--to", "web", "page"])
    for seed, label, steps, guidance in [(0, 3, 2, 1.0), (63, 0, 1, 1.0), (5, 7, 4, 1.5)]:
        at = f"#seed={seed}&label={label}&steps={steps}&guidance={guidance}"
        with opened(browser, Path("page").absolute(), at=at) as watched:
            found = watched.made()
            assert "--sampler consistency" in watched.page.inner_text("#command")
            assert watched.faults == []
        expected = ud.load(student).sample(1, label=label, seed=seed, steps=steps, guidance=guidance)[0, :, :, 0]
        assert np.abs(found[:, :, 0].astype(int) - expected).max() <= 2


@pytest.mark.slow
def test_it_is_used_by_keyboard_and_saves_what_it_shows(browser: Browser, digits_page: Path) -> None:
    with opened(browser, digits_page, at="#label=4") as watched:
        page = watched.page
        first = watched.made()
        page.locator("#classes input:checked").focus()
        page.keyboard.press("ArrowRight")
        expect(page.locator("#command")).to_contain_text("--label 5")
        five = watched.made()
        assert not np.array_equal(first, five)
        page.locator("#next").focus()
        page.keyboard.press("Enter")
        expect(page.locator("#command")).to_contain_text("--seed 1")
        shown = watched.made()
        with page.expect_download() as download:
            page.get_by_role("button", name="Save PNG").press("Enter")
        assert download.value.suggested_filename == "digits-5-1.png"
        saved = np.asarray(Image.open(download.value.path()).convert("RGBA"))
        assert np.array_equal(saved, shown)
        page.locator("#seed").fill("64")
        page.locator("#seed").press("Tab")
        expect(page.locator("#noise")).to_contain_text("this page's own")
        watched.made()
        assert watched.faults == []


@pytest.mark.slow
def test_it_opens_without_a_network_after_the_first_visit(browser: Browser, digits_page: Path) -> None:
    with opened(browser, digits_page) as watched:
        first = watched.made()
        assert watched.page.evaluate("navigator.serviceWorker.ready.then((found) => Boolean(found.active))")
        watched.page.context.set_offline(True)
        watched.page.reload()
        assert np.array_equal(watched.made(), first)


@pytest.mark.slow
@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [DESKTOP, PHONE])
def test_nothing_overflows_and_it_follows_dark_mode(
    browser: Browser, digits_page: Path, width: int, scheme: Scheme
) -> None:
    with opened(browser, digits_page, width, scheme) as watched:
        watched.made()
        assert watched.page.evaluate("document.documentElement.scrollWidth") <= width
        corner = Image.open(io.BytesIO(watched.page.screenshot())).convert("L").crop((0, 0, 8, 8))
        assert (np.asarray(corner).mean() < 80) == (scheme == "dark")
        expect(watched.page.locator("#next")).to_be_in_viewport()
        assert watched.faults == []
