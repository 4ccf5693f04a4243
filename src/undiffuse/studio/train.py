"""The tab that trains: drop photos, see what they hold, start, watch, stop and resume."""

import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import gradio as gr

from undiffuse.data.paths import folder_name
from undiffuse.exploration.explore import Exploration
from undiffuse.exploration.suggestion import Suggestion
from undiffuse.runs.find import SHIPPED, is_run
from undiffuse.studio import markup
from undiffuse.studio.context import Studio
from undiffuse.studio.explored import as_markup, explored, suggestion_markup
from undiffuse.studio.jobs import resume_words
from undiffuse.studio.progress import card
from undiffuse.studio.visitors import explain, streamed
from undiffuse.utils.files import remove
from undiffuse.utils.parsing import parse_size
from undiffuse.utils.text import size_text

REFRESH_SECONDS = 1.0

LARGEST_SIDE = 256
MOST_MINUTES = 7 * 24 * 60

FROM_SCRATCH = ("from scratch", "")

FOLDER = (
    '<label>or <span>choose a folder</span><input type="file" webkitdirectory class="unseen"></label>'
    '<p class="said" role="status"></p>'
)
"""folder.js makes a .zip of what is chosen here, and of a folder that is dropped above."""

UPLOADED = ["image", ".zip", ".tar", ".tgz", ".gz", ".xz", ".bz2"]


class TrainTab:
    """The controls of the tab, and what they do."""

    def __init__(self, studio: Studio, tab: gr.Tab):
        """Builds the tab and its events; it is refreshed while it is looked at."""
        self.studio = studio
        self.data, self.suggested, self.before = gr.State(""), gr.State(None), gr.State("")
        with gr.Row(elem_classes="panes"):
            with gr.Column(elem_classes="controls", scale=0, min_width=300):
                self._build_controls()
            with gr.Column(elem_classes="result", min_width=300):
                self.told = gr.HTML("", elem_id="train-told")
                self.watched = gr.HTML(_watched(studio), elem_id="train-watched")
                self.found = gr.HTML("", elem_id="train-found")
        self.timer = gr.Timer(REFRESH_SECONDS, active=False)
        self._wire(tab)

    def _build_controls(self) -> None:
        self.files = gr.File(
            label="Photos, or a .zip of them", file_count="multiple", file_types=UPLOADED, height=150,
            show_label=False, elem_classes="upload", elem_id="train-files",
        )  # fmt: skip
        gr.HTML(FOLDER, elem_id="train-folder")
        self.name = gr.Textbox("", label="Name of the run", placeholder="photos", max_length=48, elem_id="train-name")
        with gr.Row(elem_classes="pair"):
            self.size = gr.Textbox("32", label="Size in pixels", max_length=9, min_width=100, elem_id="train-size")
            self.minutes = gr.Number(10, label="Minutes", minimum=0.01, maximum=MOST_MINUTES, min_width=100)
        self.classes = gr.Checkbox(True, label="Learn the classes, if there are any")
        self.origin = gr.Dropdown(
            [FROM_SCRATCH, *self.studio.places.trained()], value="", label="Start from", elem_id="train-from",
            info="a trained run whose weights know much already",
        )  # fmt: skip
        with gr.Row(elem_classes="actions"):
            self.start = gr.Button("Train", variant="primary", min_width=100, elem_id="train-start")
            self.halt = gr.Button("Stop", min_width=80, elem_classes="stop", elem_id="train-stop")
        self.unfinished = gr.Dropdown([], label="Resume a run", elem_id="train-unfinished")
        self.resume = gr.Button("Resume", elem_id="train-resume")

    def _wire(self, tab: gr.Tab) -> None:
        at_once: dict[str, Any] = {"queue": False, "api_visibility": "private"}
        unseen: dict[str, Any] = {"show_progress": "hidden", "api_visibility": "private"}
        asked, began = [self.name, self.size, self.minutes], [self.told, self.watched, self.timer]
        self.files.change(
            streamed(self.look), self.files, [self.data, self.found, self.suggested, *asked], concurrency_limit=None,
            **unseen,
        )  # fmt: skip
        self.start.click(
            self.begin, [self.data, self.suggested, *asked, self.classes, self.origin], began, **at_once
        )  # fmt: skip
        self.resume.click(self.go_on, self.unfinished, began, **at_once)
        self.halt.click(lambda: self.studio.trainer.stop(), None, None, **at_once)
        self.timer.tick(self.refresh, self.before, [self.watched, self.before], queue=False, **unseen)
        tab.select(self.open, None, [self.timer, self.unfinished, self.origin], queue=False, **unseen)

    def look(self, files: list[str] | None) -> Iterator[tuple]:
        """Keeps what was uploaded, and says what is in it."""
        kept = None
        if not files:
            yield "", "", None, *3 * [gr.skip()]
            return
        try:
            kept = self.studio.places.keep(files)
            looks = explored(str(kept), True, self.studio.exploring)
            while True:
                try:
                    yield gr.skip(), next(looks), *4 * [gr.skip()]
                except StopIteration as end:
                    found, suggestion = end.value
                    break
            yield (
                str(kept),
                self._page(found, suggestion),
                suggestion,
                kept.name.rpartition("-")[0],
                *_wishes(suggestion),
            )
        except Exception as error:
            if kept is not None and isinstance(error, ValueError):  # Nothing can be trained on it.
                remove(kept)
            yield "", markup.stage(markup.note(explain(error), "trouble")), None, *3 * [gr.skip()]

    def _page(self, found: Exploration, suggestion: Suggestion | None) -> str:
        report = as_markup(found, self.studio.reports.add(found.write))
        return markup.stage(suggestion_markup(suggestion) + "<h3>Your photos</h3>" + report)

    def begin(
        self,
        data: str,
        suggested: Suggestion | None,
        name: str | None,
        size: str | None,
        minutes: float | None,
        classes: bool,
        origin: str | None,
    ) -> tuple:
        """Starts a training of its own process."""
        asked = name or "", size or "", minutes or 0, classes, origin or ""
        return self._started(lambda: train_words(self.studio, data, *asked, suggested))

    def go_on(self, name: str | None) -> tuple:
        """Resumes a run."""

        def words() -> tuple[list[str], Path]:
            run = self.studio.places.run(name or "")
            return resume_words(run), run.folder

        return self._started(words)

    def _started(self, words: Callable[[], tuple[list[str], Path]]) -> tuple:
        """What is shown of a training that was started, or why it was not."""
        try:
            self.studio.trainer.start(*words())
        except Exception as error:
            return markup.note(explain(error), "trouble"), gr.skip(), gr.skip()
        return "", _watched(self.studio), gr.Timer(active=True)

    def refresh(self, before: str) -> tuple:
        """What the training is doing, if that has changed."""
        now = _watched(self.studio)
        return (gr.skip(), gr.skip()) if now == before else (now, now)

    def open(self) -> tuple:
        """The runs as they are now."""
        origins = [FROM_SCRATCH, *self.studio.places.trained()]
        return gr.Timer(active=True), gr.Dropdown(unfinished_runs(self.studio)), gr.Dropdown(origins)


def _wishes(suggestion: Suggestion | None) -> tuple:
    """Size and minutes as they are suggested."""
    if suggestion is None:
        return gr.skip(), gr.skip()
    return size_text(suggestion.size), math.ceil(suggestion.seconds / 60)


def train_words(
    studio: Studio,
    data: str,
    name: str,
    size: str,
    minutes: float,
    classes: bool,
    origin: str = "",
    suggestion: Suggestion | None = None,
) -> tuple[list[str], Path]:
    """The words of the command line, and the run folder.

    `origin` is the run to start from, if any; without one, the preset and settings are those of the suggestion.

    Raises:
        ValueError: something is missing or out of range, or there is such a run already.
    """
    if not data or Path(data).parent != studio.places.uploads:
        raise ValueError("Drop photos or a .zip of photos first.")
    sides = parse_size(size.strip())
    if max(sides) > LARGEST_SIDE:
        raise ValueError(f"Size {size} is large for training in a page: give at most {LARGEST_SIDE}.")
    if not 0 < minutes <= MOST_MINUTES:
        raise ValueError(f"{minutes} minutes cannot be a budget: give more than 0, and at most {MOST_MINUTES}.")
    folder = studio.places.runs_folder / (folder_name(name.strip()) if name.strip() else Path(data).stem)
    if is_run(folder) or folder.exists():
        raise ValueError(f"There is a run {folder.name} already: give another name, or resume that one.")
    words = ["--data", data, "--size", size.strip(), "--minutes", f"{minutes:g}"]
    words += [] if classes else ["--unconditional"]
    if not origin and suggestion is not None:
        settings = [f"{name}={value:g}" for name, value in suggestion.settings_at(sides).items()]
        words += ["--preset", suggestion.preset, *(["--set", *settings] if settings else [])]
    if not origin:
        return words, folder
    start = studio.places.run(origin)
    # A gray model needs gray images, whatever was dropped.
    return [*words, "--from", str(start.folder), "--channels", str(start.config.network.image_channels)], folder


def unfinished_runs(studio: Studio) -> list[str]:
    """Names of runs that can be resumed, the newest first."""
    return [name for name, folder in studio.places.runs().items() if folder.parent != SHIPPED]


def _watched(studio: Studio) -> str:
    """The training that this studio started last."""
    job = studio.trainer.job
    if job is None:
        return markup.empty("Drop photos or a .zip of them: what they hold appears here, and a first run to start.")
    if not is_run(job.folder):  # It is still reading the images, or failed before it began.
        if job.failure:
            return markup.stage(markup.note(job.failure, "trouble"))
        if not job.is_running:
            return markup.stage(markup.note(job.last_line or "Stopped before the first step."))
        return markup.stage(markup.meter(0.0, f"{job.name}: {job.last_line or 'starting ...'}"), running=True)
    try:
        shown = card(studio.places.run(job.name), is_training=job.is_running)
    except (ValueError, OSError) as error:
        shown = markup.note(explain(error), "trouble")
    failed = markup.note(job.failure, "trouble") if job.failure else ""
    return markup.stage(failed + shown, running=job.is_running)
