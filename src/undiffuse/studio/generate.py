"""The tab that makes images: noise becomes an image, step by step."""

from collections.abc import Iterator
from threading import Event
from typing import Any

import gradio as gr
import PIL.Image

from undiffuse.config import Config
from undiffuse.diffusion.sampler_table import SAMPLERS
from undiffuse.report.grids import Images
from undiffuse.sampling.model import Model
from undiffuse.studio import markup
from undiffuse.studio.context import Studio
from undiffuse.studio.sampling import EVERY_CLASS, MOST_IMAGES, NO_CLASS, Film, Request, Shown, label_choices, shown
from undiffuse.studio.told import attributes_box, image_text
from undiffuse.studio.visitors import streamed

NO_GUIDE = ("the run itself, without the class", "")

VIEWS = [("noise becoming an image", "x"), ("what the model expects", "x0")]


class GenerateTab:
    """The controls of the tab, and what they do."""

    def __init__(self, studio: Studio, page: gr.Blocks):
        """Builds the tab and its events."""
        self.studio = studio
        with gr.Row(elem_classes="panes"):
            with gr.Column(elem_classes="controls", scale=0, min_width=300):
                self._build_controls()
            with gr.Column(elem_classes="result", min_width=300):
                self.result = gr.HTML(
                    markup.empty("Press Generate, and watch noise become images."), elem_id="generate-stage"
                )
        self._wire(page)

    def _build_controls(self) -> None:
        runs = self.studio.places.trained()
        self.run = gr.Dropdown(runs, value=runs[0], label="Run", elem_id="generate-run")
        with gr.Column(visible=False, elem_classes="given", elem_id="generate-given") as self.given:
            self.image = gr.Image(
                type="pil", image_mode="RGBA", format="png", sources=["upload"], label="Image to start from",
                show_label=False, buttons=[], height=180, elem_id="generate-image", placeholder="Drop an image",
            )  # fmt: skip
            self.image_about = gr.HTML("", padding=False)
        self.label = gr.Dropdown([("every class in turn", EVERY_CLASS)], value=EVERY_CLASS, label="Class")
        self.attributes = gr.Textbox(
            "", label="Attributes", lines=2, max_length=3000, visible=False, elem_id="generate-attributes"
        )
        self.guidance = gr.Slider(0, 8, value=1, step=0.1, label="Guidance", info="1 is as it was trained")
        self.sampler = gr.Dropdown(list(SAMPLERS), value="ipndm", label="Sampler")
        self.steps = gr.Slider(1, 200, value=18, step=1, label="Steps", elem_id="generate-steps")
        with gr.Row(elem_classes="pair"):
            self.seed = gr.Number(0, label="First seed", precision=0, minimum=0, min_width=100, elem_id="generate-seed")
            self.count = gr.Number(
                16, label="Images", precision=0, minimum=1, maximum=MOST_IMAGES, min_width=100,
                elem_id="generate-count",
            )  # fmt: skip
        self.view = gr.Radio(VIEWS, value="x", label="Show")
        with gr.Accordion("Guidance interval and guide", open=False, elem_id="generate-more", elem_classes="more"):
            self.interval = gr.Textbox(
                "", label="Guidance interval", placeholder="all noise levels, or such as 0.28-1.6", max_length=60,
                elem_id="generate-interval",
            )  # fmt: skip
            self.guide = gr.Dropdown(
                [NO_GUIDE], value="", label="Guide", info="a weaker model to guide away from", elem_id="generate-guide"
            )
        with gr.Row(elem_classes="actions"):
            self.start = gr.Button("Generate", variant="primary", min_width=100, elem_id="generate-start")
            self.halt = gr.Button("Stop", min_width=80, elem_classes="stop", elem_id="generate-stop")

    def _wire(self, page: gr.Blocks) -> None:
        studio, told = self.studio, [self.attributes, self.image]
        inputs = [self.run, self.label, self.guidance, self.sampler, self.steps, self.seed, self.count, self.view]
        chosen = [self.label, self.guidance, self.sampler, self.steps, self.guide, self.attributes]
        choosing: dict[str, Any] = {
            "fn": self.choose, "inputs": self.run, "outputs": [*chosen, self.given, self.image_about],
            "queue": False, "api_visibility": "private",
        }  # fmt: skip
        self.start.click(
            streamed(self.generate), [*inputs, self.interval, self.guide, *told], self.result, api_name="generate",
            concurrency_limit=None, show_progress="minimal", trigger_mode="once",
        )  # fmt: skip
        self.halt.click(studio.stops.stopper("generate"), None, None, queue=False, api_visibility="private")
        self.run.change(**choosing)
        page.load(
            lambda: gr.Dropdown(studio.places.trained()), None, self.run, queue=False, api_visibility="private"
        ).then(**choosing)  # fmt: skip

    def generate(
        self,
        run: str | None,
        label: str | None,
        guidance: float | None,
        sampler: str | None,
        steps: int | None,
        seed: int | None,
        count: int | None,
        view: str | None,
        interval: str | None,
        guide: str | None,
        attributes: str | None,
        image: PIL.Image.Image | None,
        request: gr.Request,
    ) -> Iterator[str]:
        """Samples a run, and yields the page's view of every step."""
        wishes: dict[str, Any] = {"run": run, "label": label, "guidance": guidance, "sampler": sampler, "steps": steps}
        wishes |= {"seed": seed, "count": count, "view": view, "interval": interval or "", "guide": guide or ""}
        wishes |= {"attributes": attributes or ""}

        def work(stop: Event) -> Iterator[str]:
            yield from generated(self.studio, Request(**wishes), image, stop)

        yield from self.studio.in_turn(request, "generate", work)

    def choose(self, name: str) -> tuple:
        """What the run's model can do and is told, and how it is sampled by default."""
        try:
            config, guides = self.studio.places.run(name).config, self.studio.models.guides(name)
        except (ValueError, OSError):  # Told when it is sampled.
            return 8 * (gr.skip(),)
        can_guide = config.is_conditional and config.training.label_dropout > 0
        return (
            _classes(config),
            gr.Slider(value=config.sampling.guidance if can_guide else 1, interactive=can_guide or bool(guides)),
            config.sampling.sampler,
            gr.Slider(maximum=max(200, config.sampling.steps), value=config.sampling.steps),
            gr.Dropdown([NO_GUIDE, *map(_guide_choice, guides)], value="", interactive=bool(guides)),
            attributes_box(config.attributes),
            gr.Column(visible=config.image_condition is not None),
            f'<p class="status">{markup.escape(image_text(config).capitalize())}.</p>',
        )


def generated(studio: Studio, asked: Request, image: PIL.Image.Image | None, stop: Event) -> Iterator[str]:
    """The page's view of every step; `image` is what a model makes others from."""
    model = studio.models.load(asked.run, asked.guide)
    film, moment = Film(asked.steps), None
    for moment in shown(film.watch(asked.steps_of(model, image)), asked.view, stop):
        yield _step(moment, asked, model)
    assert moment is not None, "a sampler takes at least one step"
    if moment.step < asked.steps:
        yield _stopped(moment, asked, model)
    else:
        yield _done(moment, asked, model, film, asked.nfe(model, image))


def _classes(config: Config) -> gr.Dropdown:
    choices, value = label_choices(config.class_names), EVERY_CLASS
    if config.class_names and config.image_condition is not None:  # Its class is unknown, unless it is chosen.
        choices, value = choices[1:], NO_CLASS
    return gr.Dropdown(choices, value=value, interactive=bool(config.class_names))


def _guide_choice(guide: str) -> tuple[str, str]:
    """A guide as it is shown, and as `Request.guide` takes it."""
    run, at, images = guide.rpartition("@")
    return (f"{run} after {int(images):,} images" if at and images.isdecimal() else guide), guide


def _step(moment: Shown, asked: Request, model: Model) -> str:
    words = f"Step {moment.step} of {asked.steps} · σ {moment.sigma:.3g} · {moment.seconds:.1f} s"
    return markup.stage(_images(words, moment, asked, model), running=True)


def _stopped(moment: Shown, asked: Request, model: Model) -> str:
    words = f"Stopped after step {moment.step} of {asked.steps} · {moment.seconds:.1f} s"
    return markup.stage(_images(words, moment, asked, model))


def _done(moment: Shown, asked: Request, model: Model, film: Film, nfe: int) -> str:
    name, last = f"{asked.run}-{asked.seed}", asked.seed + asked.count - 1
    sheet = markup.download(markup.png_bytes(Images(moment.pixels).grid()), "png", f"{name}.png", "Save PNG")
    animation = markup.download(film.gif(), "gif", f"{name}.gif", "Save GIF")
    about = markup.facts(
        [
            ("Time", f"{moment.seconds:.2f} s"),
            ("Per image", f"{moment.seconds / asked.count:.3f} s"),
            ("NFE", f"{nfe}"),
            ("Seeds", f"{asked.seed} to {last}" if last > asked.seed else f"{last}"),
        ]
    )
    words = f"{asked.steps} steps of {asked.sampler} · done in {moment.seconds:.1f} s"
    saved = f'<p class="downloads">{sheet}{animation}</p>'
    return markup.stage(_images(words, moment, asked, model) + about + saved)


def _images(words: str, moment: Shown, asked: Request, model: Model) -> str:
    return markup.meter(moment.step / asked.steps, words) + markup.tiles(moment.pixels, asked.names(model))
