"""The tab that makes images: noise becomes an image, step by step."""

from collections.abc import Iterator
from typing import Any

import gradio as gr

from undiffuse.diffusion.sampler_table import SAMPLERS
from undiffuse.report.grids import Images
from undiffuse.sampling.model import Model
from undiffuse.studio import markup
from undiffuse.studio.context import SAMPLING, Studio
from undiffuse.studio.sampling import EVERY_CLASS, MOST_IMAGES, Film, Request, Shown, label_choices, shown
from undiffuse.studio.visitors import explain, streamed

VIEWS = [("noise becoming an image", "x"), ("what the model expects", "x0")]


def generate_tab(studio: Studio, page: gr.Blocks) -> None:
    """Builds the tab and its events."""
    runs = studio.places.trained()
    with gr.Row(elem_classes="panes"):
        with gr.Column(elem_classes="controls", scale=0, min_width=300):
            run = gr.Dropdown(runs, value=runs[0], label="Run", elem_id="generate-run")
            label = gr.Dropdown([("every class in turn", EVERY_CLASS)], value=EVERY_CLASS, label="Class")
            guidance = gr.Slider(0, 8, value=1, step=0.1, label="Guidance", info="1 follows the class as trained")
            sampler = gr.Dropdown(list(SAMPLERS), value="ipndm", label="Sampler")
            steps = gr.Slider(1, 200, value=18, step=1, label="Steps", elem_id="generate-steps")
            with gr.Row(elem_classes="pair"):
                seed = gr.Number(0, label="First seed", precision=0, minimum=0, min_width=100, elem_id="generate-seed")
                count = gr.Number(
                    16,
                    label="Images",
                    precision=0,
                    minimum=1,
                    maximum=MOST_IMAGES,
                    min_width=100,
                    elem_id="generate-count",
                )
            view = gr.Radio(VIEWS, value="x", label="Show")
            with gr.Row(elem_classes="actions"):
                start = gr.Button("Generate", variant="primary", min_width=100, elem_id="generate-start")
                halt = gr.Button("Stop", min_width=80, elem_classes="stop", elem_id="generate-stop")
        with gr.Column(elem_classes="result", min_width=300):
            result = gr.HTML(markup.empty("Press Generate, and watch noise become images."), elem_id="generate-stage")

    def generate(
        run: str | None,
        label: str | None,
        guidance: float | None,
        sampler: str | None,
        steps: int | None,
        seed: int | None,
        count: int | None,
        view: str | None,
        request: gr.Request,
    ) -> Iterator[str]:
        """Samples a run, and yields the page's view of every step."""
        try:
            with studio.stops.working(request, "generate") as stop:
                wishes: dict[str, Any] = {"run": run, "label": label, "guidance": guidance, "sampler": sampler}
                wishes |= {"steps": steps, "seed": seed, "count": count, "view": view}
                asked = Request(**wishes)
                model = studio.models.load(asked.run)
                film, moment = Film(asked.steps), None
                for moment in shown(film.watch(asked.steps_of(model)), asked.view, stop):
                    yield _step(moment, asked, model)
                assert moment is not None, "a sampler takes at least one step"
                yield _stopped(moment, asked, model) if moment.step < asked.steps else _done(moment, asked, model, film)
        except Exception as error:
            yield markup.stage(markup.note(explain(error), "trouble"))

    def choose(name: str) -> tuple:
        """What the run's model can do, and how it is sampled by default."""
        try:
            config = studio.places.run(name).config
        except (ValueError, OSError):  # Told when it is sampled.
            return gr.skip(), gr.skip(), gr.skip(), gr.skip()
        can_guide = bool(config.class_names) and config.training.label_dropout > 0
        return (
            gr.Dropdown(label_choices(config.class_names), value=EVERY_CLASS, interactive=bool(config.class_names)),
            gr.Slider(value=config.sampling.guidance, interactive=can_guide),
            config.sampling.sampler,
            gr.Slider(maximum=max(200, config.sampling.steps), value=config.sampling.steps),
        )

    inputs = [run, label, guidance, sampler, steps, seed, count, view]
    start.click(
        streamed(generate), inputs, result, api_name="generate", concurrency_id=SAMPLING, concurrency_limit=1,
        show_progress="minimal", trigger_mode="once",
    )  # fmt: skip
    halt.click(studio.stops.stopper("generate"), None, None, queue=False, api_visibility="private")
    run.change(choose, run, [label, guidance, sampler, steps], queue=False, api_visibility="private")
    page.load(lambda: gr.Dropdown(studio.places.trained()), None, run, queue=False, api_visibility="private").then(
        choose, run, [label, guidance, sampler, steps], queue=False, api_visibility="private"
    )


def _step(moment: Shown, asked: Request, model: Model) -> str:
    words = f"Step {moment.step} of {asked.steps} · σ {moment.sigma:.3g} · {moment.seconds:.1f} s"
    return markup.stage(_images(words, moment, asked, model), running=True)


def _stopped(moment: Shown, asked: Request, model: Model) -> str:
    words = f"Stopped after step {moment.step} of {asked.steps} · {moment.seconds:.1f} s"
    return markup.stage(_images(words, moment, asked, model))


def _done(moment: Shown, asked: Request, model: Model, film: Film) -> str:
    name, last = f"{asked.run}-{asked.seed}", asked.seed + asked.count - 1
    sheet = markup.download(markup.png_bytes(Images(moment.pixels).grid()), "png", f"{name}.png", "Save PNG")
    animation = markup.download(film.gif(), "gif", f"{name}.gif", "Save GIF")
    about = markup.facts(
        [
            ("Time", f"{moment.seconds:.2f} s"),
            ("Per image", f"{moment.seconds / asked.count:.3f} s"),
            ("NFE", f"{asked.nfe(model)}"),
            ("Seeds", f"{asked.seed} to {last}" if last > asked.seed else f"{last}"),
        ]
    )
    words = f"{asked.steps} steps of {asked.sampler} · done in {moment.seconds:.1f} s"
    saved = f'<p class="downloads">{sheet}{animation}</p>'
    return markup.stage(_images(words, moment, asked, model) + about + saved)


def _images(words: str, moment: Shown, asked: Request, model: Model) -> str:
    return markup.meter(moment.step / asked.steps, words) + markup.tiles(moment.pixels, asked.names(model))
