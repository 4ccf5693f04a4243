"""The tab that changes images: paint over what is to be regenerated, or have the whole image changed."""

from collections.abc import Callable, Iterator, Sequence
from threading import Event
from typing import Any

import gradio as gr
import PIL.Image

from undiffuse.sampling.edit_tasks import TASKS
from undiffuse.sampling.edits import MEASURED, Edit, Evaluations
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
    tasks_of,
    worsened,
)  # fmt: skip
from undiffuse.studio.sampling import NO_CLASS, Request, Shown, label_choices, shown
from undiffuse.studio.visitors import explain, streamed

BRUSH = "#d55e00"
"""The color of what is to be regenerated, as in the sheets of `undiffuse edit`."""


def edit_tab(studio: Studio, page: gr.Blocks) -> None:
    """Builds the tab and its events."""
    runs = studio.places.trained()
    with gr.Row(elem_classes="panes"):
        with gr.Column(elem_classes="controls", scale=0, min_width=300):
            run = gr.Dropdown(runs, value=next(iter(runs), None), label="Run", elem_id="edit-run")
            task = gr.Dropdown(
                [(text, name) for name, text in CHOICES.items()], value="inpaint", label="Edit", elem_id="edit-task"
            )
            strength = gr.Slider(0, 1, value=0.5, step=0.05, label="Strength", visible=False, elem_id="edit-strength")
            blur = gr.Slider(
                0.1, 10, value=1, step=0.1, label="Blur in pixels", visible=False, elem_id="edit-blur"
            )  # fmt: skip
            factor = gr.Slider(2, 8, value=4, step=1, label="Enlarge by", visible=False, elem_id="edit-factor")
            noise = gr.Slider(
                0, 50, value=1, step=1, label="Noise in the image", info="in levels of 255; more invents more",
                visible=False, elem_id="edit-noise",
            )  # fmt: skip
            label = gr.Dropdown([("no class", NO_CLASS)], value=NO_CLASS, label="Class")
            steps = gr.Slider(1, 200, value=STEPS, step=1, label="Steps", elem_id="edit-steps")
            with gr.Row(elem_classes="pair"):
                seed = gr.Number(0, label="First seed", precision=0, minimum=0, min_width=100, elem_id="edit-seed")
                count = gr.Number(4, label="Images", precision=0, minimum=1, maximum=MOST_IMAGES, min_width=100)
            sampled = gr.Button("Take the image of this seed", elem_id="edit-sample")
            with gr.Row(elem_classes="actions"):
                start = gr.Button("Edit", variant="primary", min_width=100, elem_id="edit-start")
                halt = gr.Button("Stop", min_width=80, elem_classes="stop", elem_id="edit-stop")
        with gr.Column(elem_classes="result drawing", min_width=300):
            with gr.Row(elem_classes="images"):
                editor = gr.ImageEditor(
                    type="pil", image_mode="RGBA", format="png", sources=("upload",), layers=False, transforms=(),
                    brush=gr.Brush(default_size=48, colors=[BRUSH], color_mode="fixed"), label="Image",
                    show_label=False, buttons=[], height=EDITOR_SIDE + 60, canvas_size=(EDITOR_SIDE, EDITOR_SIDE),
                    elem_id="edit-image", placeholder="Drop an image",
                )  # fmt: skip
                second = gr.Image(
                    type="pil", image_mode="RGBA", format="png", sources=["upload"], label="Second image",
                    show_label=False, buttons=[], height=EDITOR_SIDE + 60, visible=False, elem_id="edit-second",
                    placeholder="Drop the second image",
                )  # fmt: skip
            result = gr.HTML(
                markup.empty("Drop an image or take one of a seed, paint over a part of it, and press Edit."),
                elem_id="edit-stage",
            )

    own = [task, strength, blur, factor, noise]
    asked = [run, label, steps, seed, count]

    def edit(
        request: gr.Request,
        run: str | None,
        label: str | None,
        steps: int | None,
        seed: int | None,
        count: int | None,
        drawn: dict | None,
        second: PIL.Image.Image | None,
        *own: Any,
    ) -> Iterator[str]:
        """Makes the edit, and yields the page's view of every step."""
        wishes = {"run": run, "label": label or NO_CLASS, "steps": steps, "seed": seed, "count": count}

        def work(stop: Event) -> Iterator[str]:
            options = _options(*own)
            asked, counted, moment = request_of(options, **wishes), Evaluations(), None
            edit = prepared_edit(counted.of(studio.models.load(asked.run)), asked, options, drawn, second)
            places = range(asked.count) if options.task == "interpolate" else asked.seeds
            for moment in shown(edit.steps(places), "x", stop):
                yield _told(moment, asked, edit, places, counted, running=True)
            assert moment is not None, "an edit yields its result at least"
            yield _told(moment, asked, edit, places, counted)

        yield from studio.in_turn(request, "edit", work)

    def sample(run: str | None, label: str | None, seed: int | None, *own: Any) -> tuple:
        """The image of a seed, made what the edit undoes; of two seeds to go from one to the other."""

        def work() -> tuple:
            options = _options(*own)
            values: dict[str, Any] = {"run": run, "label": label or NO_CLASS, "seed": seed, "count": 2}
            asked = Request(**values)
            model = studio.models.load(asked.run)
            images = model.sample(2, label=asked.model_label, seed=asked.seed).to_torch()
            first, other = (worsened(model, options, image) for image in images)
            return editor_value(first), enlarged(other) if options.task == "interpolate" else gr.skip(), gr.skip()

        return _tried(lambda: studio.one_by_one(work))

    def fit(run: str | None, drawn: dict | None, *own: Any) -> tuple:
        """What was dropped, as the edit takes it."""

        def work() -> tuple:
            pixels = given_image(studio.models.load(run or ""), _options(*own), (drawn or {}).get("background"))
            return editor_value(pixels), gr.skip(), gr.skip()

        return _tried(lambda: studio.one_by_one(work))

    def fit_second(run: str | None, image: PIL.Image.Image | None, *own: Any) -> tuple:
        """The second image that was dropped, as the edit takes it."""

        def work() -> tuple:
            return gr.skip(), enlarged(given_image(studio.models.load(run or ""), _options(*own), image)), gr.skip()

        return _tried(lambda: studio.one_by_one(work))

    def choose(name: str | None, task: str | None) -> tuple:
        """The classes of the run, and what its model can do."""
        try:
            config = studio.places.run(name or "").config
        except (ValueError, OSError):  # Told when it is edited.
            return gr.skip(), gr.skip()
        classes = label_choices(config.class_names)[1:] or [("no classes", NO_CLASS)]
        tasks = tasks_of(config.network.image_channels)
        kept = task if task in dict(tasks).values() else "inpaint"
        return (
            gr.Dropdown(classes, value=NO_CLASS, interactive=bool(config.class_names)),
            gr.Dropdown(tasks, value=kept),
        )

    images = [editor, second, result]
    start.click(
        streamed(edit), [*asked, editor, second, *own], result, api_visibility="private", concurrency_limit=None,
        show_progress="minimal", trigger_mode="once",
    )  # fmt: skip
    sampled.click(
        sample, [run, label, seed, *own], images, api_visibility="private", concurrency_limit=None,
        show_progress="hidden",
    )  # fmt: skip
    editor.upload(
        fit, [run, editor, *own], images, api_visibility="private", concurrency_limit=None, show_progress="hidden"
    )
    second.upload(
        fit_second, [run, second, *own], images, api_visibility="private", concurrency_limit=None,
        show_progress="hidden",
    )  # fmt: skip
    halt.click(studio.stops.stopper("edit"), None, None, queue=False, api_visibility="private")
    task.change(
        _controls, task, [strength, blur, factor, noise, second, steps, sampled, editor], queue=False,
        show_progress="hidden", api_visibility="private",
    )  # fmt: skip
    run.change(choose, [run, task], [label, task], queue=False, show_progress="hidden", api_visibility="private")
    page.load(
        lambda: gr.Dropdown(studio.places.trained()), None, run, queue=False, api_visibility="private"
    ).then(choose, [run, task], [label, task], queue=False, api_visibility="private")  # fmt: skip


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


def _told(
    moment: Shown, asked: Request, edit: Edit, places: Sequence[int], counted: Evaluations, running: bool = False
) -> str:
    nfe, done = round(counted.count / asked.count), moment.sigma == 0
    words = f"σ {moment.sigma:.3g} · NFE {nfe} · {moment.seconds:.1f} s"
    bar = markup.meter(1.0 if done else moment.step / asked.steps, words if running or done else f"Stopped at {words}")
    measured = ""
    if not running and done:
        cards = [("time", f"{moment.seconds:.2f} s"), (MEASURED["nfe"], f"{nfe}")]
        cards += [(MEASURED[name], _written(value)) for name, value in edit.measure(moment.pixels).items()]
        measured = markup.facts([(name[0].upper() + name[1:], value) for name, value in cards])
    tiles = markup.tiles(moment.pixels, [*map(edit.caption, places)], columns=min(asked.count, 8))
    return markup.stage(bar + tiles + measured, running)


def _written(value: Any) -> str:
    return " and ".join(f"{each:.3g}" for each in (value if isinstance(value, list) else [value]))
