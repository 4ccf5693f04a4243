"""The tab that makes images: noise becomes an image, step by step."""

from collections.abc import Iterator
from threading import Event
from typing import Any

import gradio as gr

from undiffuse.diffusion.sampler_table import SAMPLERS
from undiffuse.report.grids import Images
from undiffuse.sampling.model import Model
from undiffuse.studio import markup
from undiffuse.studio.context import Studio
from undiffuse.studio.sampling import EVERY_CLASS, MOST_IMAGES, Film, Request, Shown, label_choices, shown
from undiffuse.studio.visitors import streamed

NO_GUIDE = ("the run itself, without the class", "")

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
                    16, label="Images", precision=0, minimum=1, maximum=MOST_IMAGES, min_width=100,
                    elem_id="generate-count",
                )  # fmt: skip
            view = gr.Radio(VIEWS, value="x", label="Show")
            with gr.Accordion("Guidance interval and guide", open=False, elem_id="generate-more", elem_classes="more"):
                interval = gr.Textbox(
                    "", label="Guidance interval", placeholder="all noise levels, or such as 0.28-1.6", max_length=60,
                    elem_id="generate-interval",
                )  # fmt: skip
                guide = gr.Dropdown(
                    [NO_GUIDE], value="", label="Guide", info="a weaker model to guide away from",
                    elem_id="generate-guide",
                )  # fmt: skip
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
        interval: str | None,
        guide: str | None,
        request: gr.Request,
    ) -> Iterator[str]:
        """Samples a run, and yields the page's view of every step."""

        def work(stop: Event) -> Iterator[str]:
            wishes: dict[str, Any] = {"run": run, "label": label, "guidance": guidance, "sampler": sampler}
            wishes |= {"steps": steps, "seed": seed, "count": count, "view": view}
            asked = Request(**wishes, interval=interval or "", guide=guide or "")
            model = studio.models.load(asked.run, asked.guide)
            film, moment = Film(asked.steps), None
            for moment in shown(film.watch(asked.steps_of(model)), asked.view, stop):
                yield _step(moment, asked, model)
            assert moment is not None, "a sampler takes at least one step"
            yield _stopped(moment, asked, model) if moment.step < asked.steps else _done(moment, asked, model, film)

        yield from studio.in_turn(request, "generate", work)

    def choose(name: str) -> tuple:
        """What the run's model can do, and how it is sampled by default."""
        try:
            config, guides = studio.places.run(name).config, studio.models.guides(name)
        except (ValueError, OSError):  # Told when it is sampled.
            return 5 * (gr.skip(),)
        can_guide = bool(config.class_names) and config.training.label_dropout > 0
        return (
            gr.Dropdown(label_choices(config.class_names), value=EVERY_CLASS, interactive=bool(config.class_names)),
            gr.Slider(value=config.sampling.guidance if can_guide else 1, interactive=can_guide or bool(guides)),
            config.sampling.sampler,
            gr.Slider(maximum=max(200, config.sampling.steps), value=config.sampling.steps),
            gr.Dropdown([NO_GUIDE, *map(_guide_choice, guides)], value="", interactive=bool(guides)),
        )

    inputs = [run, label, guidance, sampler, steps, seed, count, view, interval, guide]
    chosen = [label, guidance, sampler, steps, guide]
    start.click(
        streamed(generate), inputs, result, api_name="generate", concurrency_limit=None,
        show_progress="minimal", trigger_mode="once",
    )  # fmt: skip
    halt.click(studio.stops.stopper("generate"), None, None, queue=False, api_visibility="private")
    run.change(choose, run, chosen, queue=False, api_visibility="private")
    page.load(lambda: gr.Dropdown(studio.places.trained()), None, run, queue=False, api_visibility="private").then(
        choose, run, chosen, queue=False, api_visibility="private"
    )


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
    levels = " at tuned noise levels" if asked.is_tuned(model) else ""
    words = f"{asked.steps} steps of {asked.sampler}{levels} · done in {moment.seconds:.1f} s"
    saved = f'<p class="downloads">{sheet}{animation}</p>'
    return markup.stage(_images(words, moment, asked, model) + about + saved)


def _images(words: str, moment: Shown, asked: Request, model: Model) -> str:
    return markup.meter(moment.step / asked.steps, words) + markup.tiles(moment.pixels, asked.names(model))
