"""The studio in a browser and over HTTP: what a visitor sees, and what is refused. Served once, in this process."""

import shutil
import time
import zipfile
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal
from urllib.parse import urlsplit

import httpx
import pytest
from helpers.making import encoded, noise, save
from helpers.told import told
from playwright.sync_api import Browser, Page, TimeoutError

from undiffuse.runs.run import create_run
from undiffuse.studio.app import Server

DESKTOP, PHONE = 1280, 390

WATCH = """id => {
    window.seen = new Set();
    new MutationObserver(() => {
        const image = document.querySelector(`#${id} .tiles img`);
        if (image) window.seen.add(image.src);
    }).observe(document.querySelector(`#${id}`), {
        childList: true, subtree: true, attributes: true, attributeFilter: ["src"]
    });
}"""
"""Counts the different images that a stage shows."""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Generator[Server]:
    """The studio with the shipped models and one run that is broken."""
    folder = tmp_path_factory.mktemp("studio")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setenv("UNDIFFUSE_CACHE", str(folder / "cache"))
        patch.setenv("GRADIO_TEMP_DIR", "")  # Set by the server; put back at the end.
        patch.setenv("GRADIO_ANALYTICS_ENABLED", "")
        broken = folder / "runs" / "broken"
        broken.mkdir(parents=True)
        (broken / "config.json").write_text('{"preset": 3}')
        with Server() as server:
            yield server


class Visit:
    """A page, the hosts that it asked, and what went wrong in it."""

    def __init__(self, page: Page):
        self.page, self.hosts, self.faults = page, set[str](), list[str]()
        page.on("console", lambda message: self.faults.append(message.text) if message.type == "error" else None)
        page.on("pageerror", lambda error: self.faults.append(str(error)))
        page.on("dialog", lambda dialog: self.faults.append(dialog.message))
        page.on("request", lambda request: self.hosts.add(urlsplit(request.url).hostname or "in the page"))

    def open(self, tab: str) -> None:
        self.page.get_by_role("tab", name=tab, exact=True).click()

    def fill(self, id: str, value: object) -> None:
        field = self.page.locator(f"#{id} input, #{id} textarea").first
        field.fill(str(value))
        field.press("Tab")

    def wait(self, condition: str, seconds: float = 60) -> None:
        try:
            self.page.wait_for_function(condition, timeout=1000 * seconds)
        except TimeoutError as error:
            seen = self.page.locator("[role=tabpanel]:visible").first.inner_text()
            raise AssertionError(f"{condition} did not come true; {self.faults}; the page says: {seen}") from error


@contextmanager
def visiting(
    browser: Browser, server: Server, width: int, scheme: Literal["light", "dark"] = "light"
) -> Generator[Visit]:
    """A visitor, who must have seen no error, nothing wider than the screen, and no request to another machine."""
    context = browser.new_context(viewport={"width": width, "height": 844}, color_scheme=scheme)
    try:
        visit = Visit(context.new_page())
        visit.page.goto(server.address)
        visit.page.wait_for_selector("#generate-start")
        yield visit
        assert visit.page.evaluate("document.documentElement.scrollWidth") <= width
        assert visit.faults == []
        assert visit.hosts <= {"127.0.0.1", "in the page"}
    finally:
        context.close()


@pytest.mark.parametrize(("width", "scheme"), [(DESKTOP, "light"), pytest.param(PHONE, "dark", marks=pytest.mark.slow)])
def test_noise_becomes_an_image_step_by_step(
    browser: Browser, server: Server, width: int, scheme: Literal["light", "dark"]
) -> None:
    with visiting(browser, server, width, scheme) as visit:
        paper = visit.page.evaluate("getComputedStyle(document.body).backgroundColor")
        assert (paper == "rgb(255, 255, 255)") == (scheme == "light")
        visit.fill("generate-count", 2)
        visit.fill("generate-steps", 40)
        visit.page.get_by_label("Class").first.click()
        visit.page.get_by_role("option", name="7", exact=True).click()
        visit.page.evaluate(WATCH, "generate-stage")
        visit.page.click("#generate-start")
        visit.wait("document.querySelectorAll('#generate-stage a.download').length == 2")
        assert visit.page.evaluate("window.seen.size") >= 5
        assert visit.page.locator("#generate-stage .tiles img").count() == 2
        shown = visit.page.locator("#generate-stage .tiles img").first
        assert shown.evaluate("image => getComputedStyle(image).imageRendering") == "pixelated"
        assert shown.get_attribute("alt") == "seed 0, 7"
        assert "NFE" in visit.page.inner_text("#generate-stage")
        assert visit.page.locator("footer").is_hidden()


@pytest.mark.parametrize("width", [PHONE, pytest.param(DESKTOP, marks=pytest.mark.slow)])
def test_a_stop_and_a_visitor_who_leaves_end_the_work_on_the_server(
    browser: Browser, server: Server, width: int
) -> None:
    stops = server.studio.stops
    with visiting(browser, server, width) as visit:
        visit.fill("generate-steps", 200)
        visit.page.click("#generate-start")
        visit.wait("document.querySelector('#generate-stage .running')")
        assert len(stops) == 1
        visit.page.click("#generate-stop")
        visit.wait("document.querySelector('#generate-stage').innerText.includes('Stopped after step')")
        wait_until_idle(server)
        visit.page.click("#generate-start")
        visit.wait("document.querySelector('#generate-stage .running')")
        assert len(stops) == 1
    wait_until_idle(server)


def wait_until_idle(server: Server) -> None:
    """Until nobody's work goes on, and nobody is in line."""
    until = time.monotonic() + 30
    while len(server.studio.stops) or len(server.studio.sampling):
        assert time.monotonic() < until, "the work goes on"
        time.sleep(0.1)


def test_a_broken_run_is_a_sentence(browser: Browser, server: Server) -> None:
    with visiting(browser, server, PHONE) as visit:
        visit.open("Runs")
        visit.page.wait_for_selector("#runs-list .note.trouble")
        said = visit.page.inner_text("#runs-list .note.trouble")
        assert "is not the config of a run" in said
        assert "Traceback" not in visit.page.inner_text("body")


@pytest.mark.slow
@pytest.mark.parametrize("width", [DESKTOP, PHONE])
def test_a_run_is_told_of_an_image_or_attributes(
    browser: Browser, server: Server, width: int, tmp_path: Path, preset_config, small_network, randomized
) -> None:
    runs = server.studio.places.runs_folder
    small = save(tmp_path / "small.png", noise(0, 2, 2, 1))
    try:
        for kind in ("low-res", "table"):
            config = told(preset_config("small"), small_network, kind)
            weights = randomized(config.build_network()).state_dict()
            create_run(runs / kind, config).save(9, {"ema": weights}, {}, keep=1)
        with visiting(browser, server, width) as visit:
            visit.fill("generate-steps", 4)
            choose_run(visit, "low-res")
            visit.page.wait_for_selector("#generate-image")
            assert "enlarges images 4 times, from 2x2" in visit.page.inner_text("#generate-given")
            visit.page.click("#generate-start")
            visit.page.wait_for_selector("#generate-stage .trouble")
            said = visit.page.inner_text("#generate-stage .trouble")
            assert "There is no image to start from" in said
            assert "--" not in said
            visit.page.set_input_files("#generate-image input[type=file]", small)
            visit.page.wait_for_selector("#generate-image img")
            visit.page.click("#generate-start")
            visit.page.wait_for_selector("#generate-stage a.download", timeout=60_000)
            choose_run(visit, "table")
            visit.page.wait_for_selector("#generate-attributes")
            assert visit.page.locator("#generate-image").is_hidden()
            assert "brightness (0 to 255)" in visit.page.inner_text("#generate-attributes")
            visit.fill("generate-attributes", "light=late noon brightness=dark")
            visit.page.click("#generate-start")
            visit.page.wait_for_selector("#generate-stage .trouble")
            assert "brightness=dark is not a number" in visit.page.inner_text("#generate-stage .trouble")
            visit.fill("generate-attributes", "light=late noon brightness=70")
            visit.page.click("#generate-start")
            visit.page.wait_for_selector("#generate-stage a.download", timeout=60_000)
    finally:
        for kind in ("low-res", "table"):
            shutil.rmtree(runs / kind, ignore_errors=True)


def choose_run(visit: Visit, name: str) -> None:
    visit.page.locator("#generate-run input").click()
    visit.page.get_by_role("option", name=name, exact=True).click()


@pytest.mark.parametrize(
    "path",
    [
        "/gradio_api/file=/etc/passwd",
        "/gradio_api/file=../../../../../../etc/passwd",
        "/gradio_api/file=%2e%2e/%2e%2e/%2e%2e/etc/passwd",
        "/gradio_api/file=//etc/passwd",
        "/gradio_api/file=runs/broken/config.json",
        "/file=/etc/passwd",
        "/static/../../../../etc/passwd",
        "/assets/..%2f..%2f..%2f..%2fetc%2fpasswd",
        "/theme.css/../../etc/passwd",
        "/report/..%2f..%2fetc%2fpasswd",
    ],
)
def test_files_outside_its_folders_are_refused(server: Server, path: str) -> None:
    answer = httpx.get(server.address + path)
    assert "root:" not in answer.text
    assert '"preset"' not in answer.text
    assert answer.status_code in (400, 403, 404, 405)


@pytest.mark.parametrize(
    ("values", "says"),
    [
        (["/etc", "", 1, "ipndm", 2, 0, 1, "x", "", "", "", None], "not in the list of choices"),
        (["broken", "", 1, "ipndm", 2, 0, 1, "x", "", "", "", None], "not in the list of choices"),
        (["digits", "", 1, "ipndm", 10**9, 0, 1, "x", "", "", "", None], "greater than maximum"),
        (
            ["digits", "", 1, "ipndm", 2, 2**60, 1, "x", "", "", "", None],
            "seed 1152921504606846976: Input should be less than",
        ),
        (["digits", "", 1e9, "ipndm", 2, 0, 1, "x", "", "", "", None], "greater than maximum"),
        (["digits", None, 1, "ipndm", 2, 0, 1, "x", "", "", "", None], "label None: Input should be a valid string"),
        (
            ["digits", "", 1, "ipndm", 2, 0, 1, "x", "0.28-1.6", "", "", None],
            "A guidance interval does nothing at guidance 1",
        ),
        (["digits", "", 2, "ipndm", 2, 0, 1, "x", "big", "", "", None], "is not an interval"),
        (["digits", "", 2, "ipndm", 2, 0, 1, "x", "", "/etc", "", None], "not in the list of choices"),
    ],
)
def test_what_cannot_be_done_is_a_sentence(server: Server, values: list, says: str) -> None:
    said = generated(server, values)
    assert says in said
    assert "Traceback" not in said


def generated(server: Server, values: list) -> str:
    """What the server says at the end to a request for images."""
    url = f"{server.address}/gradio_api/call/generate"
    key = httpx.post(url, json={"data": values}).json()["event_id"]
    return httpx.get(f"{url}/{key}", timeout=60).text


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """A .zip of two classes."""
    with zipfile.ZipFile(tmp_path / "photos.zip", "w") as file:
        for i in range(24):
            file.writestr(f"photos/{('roses', 'irises')[i % 2]}/{i}.png", encoded(noise(i, 20, 20)))
    return tmp_path / "photos.zip"


@pytest.mark.slow  # Trains for a while in another process.
@pytest.mark.parametrize("width", [DESKTOP, PHONE])
def test_a_training_is_started_watched_stopped_and_resumed(
    browser: Browser, server: Server, width: int, photos: Path
) -> None:
    name, trainer = f"journey-{width}", server.studio.trainer
    try:
        with visiting(browser, server, width) as visit:
            visit.open("Train")
            visit.page.set_input_files("#train-files input[type=file]", photos)
            visit.page.wait_for_selector("#train-found .facts", timeout=90_000)
            assert "roses 12" in visit.page.inner_text("#train-found")
            visit.fill("train-name", name)
            visit.fill("train-size", 16)
            visit.page.click("#train-start")
            watched = "document.querySelector('#train-watched')"  # Another training may have been watched before.
            visit.wait(f"{watched}.innerText.includes('{name}') && {watched}.querySelector('.curve')", 240)
            assert "left" in visit.page.inner_text("#train-watched .meter + .status")
            visit.page.click("#train-start")
            visit.wait("document.querySelector('#train-told').innerText.includes('a run journey')")
            visit.open("Runs")
            visit.wait(f"document.querySelector('#runs-list').innerText.includes('{name}')")
            visit.open("Train")
            visit.page.click("#train-stop")
            visit.wait("document.querySelector('#train-watched').innerText.includes('stopped')")
            run = server.studio.places.run(name)
            saved = run.last_good()
            assert saved is not None
            assert run.config.class_names == ("irises", "roses")
            visit.page.get_by_label("Resume a run").first.click()
            visit.page.get_by_role("option", name=name, exact=True).click()
            visit.page.click("#train-resume")
            visit.wait("document.querySelector('#train-watched').innerText.includes('training')")
            visit.wait(f"!document.querySelector('#train-watched').innerText.includes('{saved.images:,}')", 120)
            visit.page.click("#train-stop")
            visit.wait("document.querySelector('#train-watched').innerText.includes('stopped')")
            assert run.checkpoints()[0].images > saved.images
    finally:
        trainer.close()


@pytest.mark.slow
@pytest.mark.parametrize("width", [DESKTOP, PHONE])
def test_a_mask_is_drawn_and_what_it_covers_is_regenerated(browser: Browser, server: Server, width: int) -> None:
    with visiting(browser, server, width) as visit:
        visit.open("Edit")
        canvas = visit.page.locator("#edit-image canvas").first
        canvas.wait_for()
        visit.page.click("#edit-start")
        visit.page.wait_for_selector("#edit-stage .trouble")
        assert "There is no image" in visit.page.inner_text("#edit-stage")
        visit.page.click("#edit-sample")
        visit.page.wait_for_timeout(5000)  # Until the editor has drawn it; nothing on the page says so.
        canvas.scroll_into_view_if_needed()
        box = canvas.bounding_box()
        assert box is not None
        x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
        visit.page.mouse.move(x - 60, y)
        visit.page.mouse.down()
        visit.page.mouse.move(x + 60, y, steps=12)
        visit.page.mouse.up()
        visit.page.wait_for_timeout(2000)  # Until it has been sent.
        visit.fill("edit-steps", 6)
        visit.page.click("#edit-start")
        visit.page.wait_for_selector("#edit-stage .facts", timeout=120_000)
        facts = visit.page.inner_text("#edit-stage .facts").split("\n")
        assert facts[facts.index("Known bytes that differ") + 1] == "0"
        assert visit.page.locator("#edit-stage .tiles img").count() == 4


@pytest.mark.slow
@pytest.mark.parametrize("width", [DESKTOP, PHONE])
def test_samplers_are_compared_and_images_looked_at(browser: Browser, server: Server, width: int) -> None:
    with visiting(browser, server, width) as visit:
        visit.open("Compare")
        visit.fill("compare-steps", 5)
        visit.page.click("#compare-start")
        visit.wait("document.querySelectorAll('#compare-stage .column').length == 3")
        visit.wait("!document.querySelector('#compare-stage .running')")
        said = visit.page.locator("#compare-stage .column .status").all_inner_texts()
        assert [each.partition(" ·")[0] for each in said] == ["NFE 5", "NFE 9", "NFE 5"]
        visit.open("Data")
        visit.page.click("#data-start")
        visit.page.wait_for_selector("#data-stage a.download", timeout=60_000)
        page = visit.page.get_attribute("#data-stage a.download", "href")
        assert "<h1>" in httpx.get(f"{server.address}{page}").text


@pytest.mark.slow
def test_a_folder_is_packed_with_its_classes(browser: Browser, server: Server, tmp_path: Path) -> None:
    for i in range(6):
        save(tmp_path / "my photos" / ("roses", "tulips ü")[i % 2] / f"{i}.png", noise(i, 20, 20))
    (tmp_path / "my photos" / "notes.txt").write_text("no photo")
    with visiting(browser, server, DESKTOP) as visit:
        visit.open("Train")
        visit.page.set_input_files("#train-folder input", tmp_path / "my photos")
        visit.page.wait_for_selector("#train-found .facts", timeout=90_000)
        assert "roses 3, tulips ü 3" in visit.page.inner_text("#train-found")
