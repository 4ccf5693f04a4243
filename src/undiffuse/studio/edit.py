"""The tab that changes images: paint over what is to be regenerated, or make images that are like one."""

from collections.abc import Iterator
from typing import Any

import gradio as gr
import numpy as np
import PIL.Image
import torch
from jaxtyping import Bool, UInt8
from torch import Tensor

from undiffuse.data.one_image import open_image, prepared
from undiffuse.report.grids import to_pil
from undiffuse.sampling.edit_tasks import TASKS
from undiffuse.sampling.edits import MEASURED, Edit, Evaluations, inpaint, vary
from undiffuse.sampling.labels import find_label
from undiffuse.sampling.model import Model
from undiffuse.sampling.options import sampling_config
from undiffuse.studio import markup
from undiffuse.studio.context import SAMPLING, Studio
from undiffuse.studio.sampling import NO_CLASS, Request, Shown, label_choices, shown
from undiffuse.studio.visitors import explain, streamed

EDITOR_SIDE = 384
"""Images are enlarged for painting to about this many pixels."""

MOST_IMAGES = 16

BRUSH = "#d55e00"
"""The color of what is to be regenerated, as in the sheets of `undiffuse edit`."""

CHOICES = [("regenerate the painted part", "inpaint"), ("make images like it", "vary")]


def edit_tab(studio: Studio, page: gr.Blocks) -> None:
    """Builds the tab and its events."""
    runs = studio.places.trained()
    with gr.Row(elem_classes="panes"):
        with gr.Column(elem_classes="controls", scale=0, min_width=300):
            run = gr.Dropdown(runs, value=next(iter(runs), None), label="Run", elem_id="edit-run")
            task = gr.Radio(CHOICES, value="inpaint", label="Edit", elem_id="edit-task")
            strength = gr.Slider(0, 1, value=0.5, step=0.05, label="Strength", visible=False, elem_id="edit-strength")
            label = gr.Dropdown([("no class", NO_CLASS)], value=NO_CLASS, label="Class")
            steps = gr.Slider(1, 200, value=18, step=1, label="Steps", elem_id="edit-steps")
            with gr.Row(elem_classes="pair"):
                seed = gr.Number(0, label="First seed", precision=0, minimum=0, min_width=100, elem_id="edit-seed")
                count = gr.Number(4, label="Images", precision=0, minimum=1, maximum=MOST_IMAGES, min_width=100)
            sampled = gr.Button("Take the image of this seed", elem_id="edit-sample")
            with gr.Row(elem_classes="actions"):
                start = gr.Button("Edit", variant="primary", min_width=100, elem_id="edit-start")
                halt = gr.Button("Stop", min_width=80, elem_classes="stop", elem_id="edit-stop")
        with gr.Column(elem_classes="result drawing", min_width=300):
            editor = gr.ImageEditor(
                type="pil", image_mode="RGBA", format="png", sources=("upload",), layers=False, transforms=(),
                brush=gr.Brush(default_size=48, colors=[BRUSH], color_mode="fixed"), label="Image", show_label=False,
                buttons=[], height=EDITOR_SIDE + 60, canvas_size=(EDITOR_SIDE, EDITOR_SIDE), elem_id="edit-image",
                placeholder="Drop an image",
            )  # fmt: skip
            result = gr.HTML(
                markup.empty("Drop an image or take one of a seed, paint over a part of it, and press Edit."),
                elem_id="edit-stage",
            )

    def edit(
        run: str | None,
        task: str | None,
        strength: float | None,
        label: str | None,
        steps: int | None,
        seed: int | None,
        count: int | None,
        drawn: dict | None,
        request: gr.Request,
    ) -> Iterator[str]:
        """Makes the edit, and yields the page's view of every step."""
        try:
            with studio.stops.working(request, "edit") as stop:
                asked = _request(task, run=run, label=label or NO_CLASS, steps=steps, seed=seed, count=count)
                counted, moment = Evaluations(), None
                edit = prepared_edit(counted.of(studio.models.load(asked.run)), asked, task, strength, drawn)
                for moment in shown(edit.steps(asked.seeds), "x", stop):
                    yield _told(moment, asked, edit, counted, running=True)
                assert moment is not None, "an edit yields its result at least"
                yield _told(moment, asked, edit, counted)
        except Exception as error:
            yield markup.stage(markup.note(explain(error), "trouble"))

    def sample(run: str | None, label: str | None, seed: int | None) -> tuple:
        """The image of a seed, to paint on."""
        try:
            values: dict[str, Any] = {"run": run, "label": label or NO_CLASS, "seed": seed, "count": 1}
            asked = Request(**values)
            images = studio.models.load(asked.run).sample(1, label=asked.model_label, seed=asked.seed)
            return editor_value(images.to_torch()[0]), gr.skip()
        except Exception as error:
            return gr.skip(), markup.stage(markup.note(explain(error), "trouble"))

    def fit(run: str | None, drawn: dict | None) -> tuple:
        """What was dropped, as the model reads it."""
        try:
            return editor_value(_background(studio.models.load(run or ""), drawn)), gr.skip()
        except Exception as error:
            return gr.skip(), markup.stage(markup.note(explain(error), "trouble"))

    def choose(name: str | None) -> Any:
        """The classes of the run."""
        try:
            names = studio.places.run(name or "").config.class_names
        except (ValueError, OSError):  # Told when it is edited.
            return gr.skip()
        choices = label_choices(names)[1:] or [("no classes", NO_CLASS)]
        return gr.Dropdown(choices, value=NO_CLASS, interactive=bool(names))

    inputs = [run, task, strength, label, steps, seed, count, editor]
    start.click(
        streamed(edit), inputs, result, api_visibility="private", concurrency_id=SAMPLING, concurrency_limit=1,
        show_progress="minimal", trigger_mode="once",
    )  # fmt: skip
    sampled.click(
        sample, [run, label, seed], [editor, result], api_visibility="private", concurrency_id=SAMPLING,
        concurrency_limit=1, show_progress="hidden",
    )  # fmt: skip
    editor.upload(
        fit, [run, editor], [editor, result], api_visibility="private", concurrency_id=SAMPLING, concurrency_limit=1,
        show_progress="hidden",
    )  # fmt: skip
    halt.click(studio.stops.stopper("edit"), None, None, queue=False, api_visibility="private")
    task.change(lambda task: gr.Slider(visible=task == "vary"), task, strength, queue=False, api_visibility="private")
    run.change(choose, run, label, queue=False, api_visibility="private")
    page.load(
        lambda: gr.Dropdown(studio.places.trained()), None, run, queue=False, api_visibility="private"
    ).then(choose, run, label, queue=False, api_visibility="private")  # fmt: skip


def prepared_edit(model: Model, asked: Request, task: str | None, strength: float | None, drawn: dict | None) -> Edit:
    """The edit that was drawn.

    Raises:
        ValueError: there is no image, nothing is painted, or the model cannot do it.
    """
    image = _background(model, drawn)
    sampling = sampling_config(model.config, asked.sampler, asked.steps)
    label = None if asked.label == NO_CLASS else find_label(model.class_names, asked.label)
    if task == "vary":
        if strength is None or not 0 <= strength <= 1:
            raise ValueError(f"Strength {strength} is out of range: give 0 to 1.")
        return vary(model, image, sampling, label, strength)
    return inpaint(model, image, painted(drawn or {}, model.shape[1:]), sampling, label)


def painted(drawn: dict, size: tuple[int, int]) -> Bool[Tensor, "h w"]:
    """Which pixels of the model's image are painted, at least half of each.

    Raises:
        ValueError: none is.
    """
    mask = np.zeros(size, bool)
    for layer in drawn.get("layers") or ():
        alpha = layer.convert("RGBA").getchannel("A").resize((size[1], size[0]), PIL.Image.Resampling.BOX)
        mask |= np.asarray(alpha) >= 128
    if not mask.any():
        raise ValueError("Nothing is painted: paint over what is to be regenerated.")
    return torch.from_numpy(mask)


def editor_value(pixels: UInt8[Tensor, "c h w"]) -> dict:
    """The image for painting on, each of its pixels enlarged to a square."""
    image = to_pil(pixels)
    factor = max(1, EDITOR_SIDE // max(image.size))
    large = image.resize((image.width * factor, image.height * factor), PIL.Image.Resampling.NEAREST)
    return {"background": large.convert("RGBA"), "layers": [], "composite": None}


def _background(model: Model, drawn: dict | None) -> UInt8[Tensor, "c h w"]:
    if not drawn or drawn.get("background") is None:
        raise ValueError("There is no image: drop one, or take the image of a seed.")
    return from_editor(drawn["background"], model.shape)


def from_editor(image: PIL.Image.Image, shape: tuple[int, int, int]) -> UInt8[Tensor, "c h w"]:
    """An image as a model of this shape reads it; one that was enlarged for the editor is what it was, to the byte."""
    channels, height, width = shape
    image, factor = open_image(image), max(1, image.width // width)
    if (image.height, image.width) == (factor * height, factor * width):
        image = image.reduce(factor)  # Other filters would look beyond the edges of an enlarged pixel.
    return prepared(image, (height, width), "crop", channels)


def _request(task: str | None, **wishes: Any) -> Request:
    """Checks what was asked for; the sampler is the edit's."""
    if task is None or task not in dict(CHOICES).values():
        raise ValueError(f"There is no edit {str(task)[:60]!r} here: choose inpaint or vary.")
    asked = Request(sampler=TASKS[task].sampler or "ipndm", **wishes)
    if asked.count > MOST_IMAGES:
        raise ValueError(f"{asked.count} images are too many to look at: choose at most {MOST_IMAGES}.")
    return asked


def _told(moment: Shown, asked: Request, edit: Edit, counted: Evaluations, running: bool = False) -> str:
    names = [edit.caption(seed) for seed in asked.seeds]
    nfe, done = round(counted.count / asked.count), moment.sigma == 0
    words = f"σ {moment.sigma:.3g} · NFE {nfe} · {moment.seconds:.1f} s"
    bar = markup.meter(1.0 if done else moment.step / asked.steps, words if running or done else f"Stopped at {words}")
    measured = ""
    if not running and done:
        values = {MEASURED[name]: value for name, value in edit.measure(moment.pixels).items()}
        cards = [("time", f"{moment.seconds:.2f} s"), (MEASURED["nfe"], f"{nfe}")]
        cards += [(name, f"{value:.3g}") for name, value in values.items()]
        measured = markup.facts([(name[0].upper() + name[1:], value) for name, value in cards])
    return markup.stage(bar + markup.tiles(moment.pixels, names, columns=min(asked.count, 8)) + measured, running)
