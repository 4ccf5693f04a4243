"""The tab that changes images: paint over what is to be regenerated, or have the whole image changed."""

from collections.abc import Callable, Iterator, Sequence
from threading import Event
from typing import Any

import gradio as gr
import PIL.Image

from undiffuse.sampling.edit_tasks import TASKS
from undiffuse.sampling.edits import MEASURED, Edit, Evaluations, written
from undiffuse.studio import markup
from undiffuse.studio.context import Studio
from undiffuse.studio.drawing import EDITOR_SIDE, editor_value, enlarged
from undiffuse.studio.edit_tasks import (
    CHOICES,
    CONTROLS,
    MOST_IMAGES,
    STEPS,
    TAKE,
    Options,
    given_image,
    prepared_edit,
    request_of,
    sampled,
    tasks_of,
)  # fmt: skip
from undiffuse.studio.sampling import NO_CLASS, Request, Shown, label_choices, shown
from undiffuse.studio.told import attributes_box
from undiffuse.studio.visitors import explain, streamed

BRUSH = "#d55e00"
"""The color of what is to be regenerated, as in the sheets of `undiffuse edit`."""


class EditTab:
    """The controls of the tab, and what they do."""

    def __init__(self, studio: Studio, page: gr.Blocks):
        """Builds the tab and its events."""
        self.studio = studio
        with gr.Row(elem_classes="panes"):
            with gr.Column(elem_classes="controls", scale=0, min_width=300):
                self._build_controls()
            with gr.Column(elem_classes="result drawing", min_width=300):
                self._build_images()
        self._wire(page)

    def _build_controls(self) -> None:
        runs = self.studio.places.trained()
        self.run = gr.Dropdown(runs, value=next(iter(runs), None), label="Run", elem_id="edit-run")
        tasks = [(text, name) for name, text in CHOICES.items()]
        self.task = gr.Dropdown(tasks, value="inpaint", label="Edit", elem_id="edit-task")
        self.strength = gr.Slider(0, 1, value=0.5, step=0.05, label="Strength", visible=False, elem_id="edit-strength")
        self.blur = gr.Slider(0.1, 10, value=1, step=0.1, label="Blur in pixels", visible=False, elem_id="edit-blur")
        self.factor = gr.Slider(2, 8, value=4, step=1, label="Enlarge by", visible=False, elem_id="edit-factor")
        self.noise = gr.Slider(
            0, 50, value=1, step=1, label="Noise in the image", info="in levels of 255; more invents more",
            visible=False, elem_id="edit-noise",
        )  # fmt: skip
        self.label = gr.Dropdown([("no class", NO_CLASS)], value=NO_CLASS, label="Class")
        self.attributes = gr.Textbox("", label="Attributes", lines=2, max_length=3000, visible=False)
        self.steps = gr.Slider(1, 200, value=STEPS, step=1, label="Steps", elem_id="edit-steps")
        with gr.Row(elem_classes="pair"):
            self.seed = gr.Number(0, label="First seed", precision=0, minimum=0, min_width=100, elem_id="edit-seed")
            self.count = gr.Number(4, label="Images", precision=0, minimum=1, maximum=MOST_IMAGES, min_width=100)
        self.sampled = gr.Button("Take the image of this seed", elem_id="edit-sample")
        with gr.Row(elem_classes="actions"):
            self.start = gr.Button("Edit", variant="primary", min_width=100, elem_id="edit-start")
            self.halt = gr.Button("Stop", min_width=80, elem_classes="stop", elem_id="edit-stop")

    def _build_images(self) -> None:
        with gr.Row(elem_classes="images"):
            self.editor = gr.ImageEditor(
                type="pil", image_mode="RGBA", format="png", sources=("upload",), layers=False, transforms=(),
                brush=gr.Brush(default_size=48, colors=[BRUSH], color_mode="fixed"), label="Image",
                show_label=False, buttons=[], height=EDITOR_SIDE + 60, canvas_size=(EDITOR_SIDE, EDITOR_SIDE),
                elem_id="edit-image", placeholder="Drop an image",
            )  # fmt: skip
            self.second = gr.Image(
                type="pil", image_mode="RGBA", format="png", sources=["upload"], label="Second image",
                show_label=False, buttons=[], height=EDITOR_SIDE + 60, visible=False, elem_id="edit-second",
                placeholder="Drop the second image",
            )  # fmt: skip
        self.result = gr.HTML(
            markup.empty("Drop an image or take one of a seed, paint over a part of it, and press Edit."),
            elem_id="edit-stage",
        )

    def _wire(self, page: gr.Blocks) -> None:
        quiet: dict[str, Any] = {"api_visibility": "private", "concurrency_limit": None, "show_progress": "hidden"}
        watched: dict[str, Any] = {**quiet, "show_progress": "minimal", "trigger_mode": "once"}
        at_once: dict[str, Any] = {"api_visibility": "private", "queue": False, "show_progress": "hidden"}
        own = [self.task, self.strength, self.blur, self.factor, self.noise]
        told, images = [self.label, self.attributes], [self.editor, self.second, self.result]
        self.start.click(
            streamed(self.edit),
            [self.run, *told, self.steps, self.seed, self.count, self.editor, self.second, *own],
            self.result,
            **watched,
        )
        self.sampled.click(self.sample, [self.run, *told, self.seed, *own], images, **quiet)
        self.editor.upload(self.fit, [self.run, self.editor, *own], images, **quiet)
        self.second.upload(self.fit_second, [self.run, self.second, *own], images, **quiet)
        self.halt.click(self.studio.stops.stopper("edit"), None, None, queue=False, api_visibility="private")
        shown = [self.strength, self.blur, self.factor, self.noise, self.second, self.steps, self.sampled, self.editor]
        self.task.change(_controls, self.task, shown, **at_once)
        choosing = self.choose, [self.run, self.task], [*told, self.task]
        self.run.change(*choosing, **at_once)
        loaded = page.load(
            lambda: gr.Dropdown(self.studio.places.trained()), None, self.run, queue=False, api_visibility="private"
        )
        loaded.then(*choosing, queue=False, api_visibility="private")

    def edit(
        self,
        request: gr.Request,
        run: str | None,
        label: str | None,
        attributes: str | None,
        steps: int | None,
        seed: int | None,
        count: int | None,
        drawn: dict | None,
        second: PIL.Image.Image | None,
        *own: Any,
    ) -> Iterator[str]:
        """Makes the edit, and yields the page's view of every step."""
        wishes = {"run": run, **_told(label, attributes), "steps": steps, "seed": seed, "count": count}

        def work(stop: Event) -> Iterator[str]:
            options = _options(*own)
            asked, counted, moment = request_of(options, **wishes), Evaluations(), None
            edit = prepared_edit(counted.of(self.studio.models.load(asked.run)), asked, options, drawn, second)
            places = range(asked.count) if options.task == "interpolate" else asked.seeds
            for moment in shown(edit.steps(places), "x", stop):
                yield _view(moment, asked, edit, places, counted, running=True)
            assert moment is not None, "an edit yields its result at least"
            yield _view(moment, asked, edit, places, counted)

        yield from self.studio.in_turn(request, "edit", work)

    def sample(self, run: str | None, label: str | None, attributes: str | None, seed: int | None, *own: Any) -> tuple:
        """The image of a seed, made what the edit undoes; of two seeds to go from one to the other."""

        def work() -> tuple:
            options = _options(*own)
            values: dict[str, Any] = {"run": run, **_told(label, attributes), "seed": seed, "count": 2}
            first, other = sampled(self.studio.models.load(run or ""), Request(**values), options)
            return editor_value(first), enlarged(other) if options.task == "interpolate" else gr.skip(), gr.skip()

        return _tried(lambda: self.studio.one_by_one(work))

    def fit(self, run: str | None, drawn: dict | None, *own: Any) -> tuple:
        """What was dropped, as the edit takes it."""

        def work() -> tuple:
            model = self.studio.models.load(run or "")
            pixels = given_image(model, _options(*own), (drawn or {}).get("background"))
            return editor_value(pixels), gr.skip(), gr.skip()

        return _tried(lambda: self.studio.one_by_one(work))

    def fit_second(self, run: str | None, image: PIL.Image.Image | None, *own: Any) -> tuple:
        """The second image that was dropped, as the edit takes it."""

        def work() -> tuple:
            model = self.studio.models.load(run or "")
            return gr.skip(), enlarged(given_image(model, _options(*own), image)), gr.skip()

        return _tried(lambda: self.studio.one_by_one(work))

    def choose(self, name: str | None, task: str | None) -> tuple:
        """The classes and attributes of the run, and what its model can do."""
        try:
            config = self.studio.places.run(name or "").config
        except (ValueError, OSError):  # Told when it is edited.
            return 3 * (gr.skip(),)
        classes = label_choices(config.class_names)[1:] or [("no classes", NO_CLASS)]
        tasks = tasks_of(config.network.image_channels)
        kept = task if task in dict(tasks).values() else "inpaint"
        return (
            gr.Dropdown(classes, value=NO_CLASS, interactive=bool(config.class_names)),
            attributes_box(config.attributes),
            gr.Dropdown(tasks, value=kept),
        )


def _told(label: str | None, attributes: str | None) -> dict[str, Any]:
    return {"label": label or NO_CLASS, "attributes": attributes or ""}


def _controls(task: str | None) -> tuple:
    """What the edit needs, and nothing else."""
    needed, steps = CONTROLS.get(task or "", ()), TASKS[task].steps if task in TASKS else None
    return (
        *(gr.Slider(visible=name in needed) for name in ("strength", "blur", "factor", "noise")),
        gr.Image(visible="second" in needed),
        gr.Slider(value=steps or STEPS),
        gr.Button(TAKE.get(task or "", "Take the image of this seed")),
        gr.ImageEditor(elem_classes=[] if task == "inpaint" else ["unpainted"]),
    )


def _options(
    task: str | None, strength: float | None, blur: float | None, factor: int | None, noise: float | None
) -> Options:
    values: dict[str, Any] = {"task": task, "strength": strength, "blur": blur, "factor": factor, "noise": noise}
    return Options(**values)


def _tried(work: Callable[[], tuple]) -> tuple:
    """What the work gives for the images and the stage, or why it failed, on the stage."""
    try:
        return work()
    except Exception as error:
        return gr.skip(), gr.skip(), markup.stage(markup.note(explain(error), "trouble"))


def _view(
    moment: Shown, asked: Request, edit: Edit, places: Sequence[int], counted: Evaluations, running: bool = False
) -> str:
    nfe, done = round(counted.count / asked.count), moment.sigma == 0
    words = f"σ {moment.sigma:.3g} · NFE {nfe} · {moment.seconds:.1f} s"
    bar = markup.meter(1.0 if done else moment.step / asked.steps, words if running or done else f"Stopped at {words}")
    measured = ""
    if not running and done:
        cards = [("time", f"{moment.seconds:.2f} s"), (MEASURED["nfe"], f"{nfe}")]
        cards += [(MEASURED[name], written(value)) for name, value in edit.measure(moment.pixels).items()]
        measured = markup.facts([(name[0].upper() + name[1:], value) for name, value in cards])
    tiles = markup.tiles(moment.pixels, [*map(edit.caption, places)], columns=min(asked.count, 8))
    return markup.stage(bar + tiles + measured, running)
