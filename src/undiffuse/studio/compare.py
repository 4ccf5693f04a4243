"""The tab that puts runs and samplers side by side, from the same seeds."""

import threading
from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import product
from typing import Any

import gradio as gr

from undiffuse.diffusion.sampler_table import SAMPLERS
from undiffuse.studio import markup
from undiffuse.studio.context import Studio
from undiffuse.studio.sampling import Request, Shown, shown
from undiffuse.studio.visitors import explain, streamed

MOST_COLUMNS = 8
MOST_IMAGES = 16


def compare_tab(studio: Studio, tab: gr.Tab) -> None:
    """Builds the tab and its events."""
    names = studio.places.trained()
    with gr.Row(elem_classes="panes"):
        with gr.Column(elem_classes="controls", scale=0, min_width=300):
            runs = gr.Dropdown(names, value=names[:1], multiselect=True, label="Runs", elem_id="compare-runs")
            samplers = gr.CheckboxGroup(list(SAMPLERS), value=["euler", "heun", "ipndm"], label="Samplers")
            steps = gr.Slider(1, 200, value=10, step=1, label="Steps", elem_id="compare-steps")
            guidance = gr.Slider(0, 8, value=1, step=0.1, label="Guidance", info="where a run has classes")
            with gr.Row(elem_classes="pair"):
                seed = gr.Number(0, label="First seed", precision=0, minimum=0, min_width=100)
                count = gr.Number(9, label="Images", precision=0, minimum=1, maximum=MOST_IMAGES, min_width=100)
            with gr.Row(elem_classes="actions"):
                start = gr.Button("Compare", variant="primary", min_width=100, elem_id="compare-start")
                halt = gr.Button("Stop", min_width=80, elem_classes="stop", elem_id="compare-stop")
        with gr.Column(elem_classes="result", min_width=300):
            result = gr.HTML(
                markup.empty("The same seeds with every run and sampler, with their time and NFE."),
                elem_id="compare-stage",
            )

    def compare(
        runs: list[str] | None,
        samplers: list[str] | None,
        steps: int | None,
        guidance: float | None,
        seed: int | None,
        count: int | None,
        request: gr.Request,
    ) -> Iterator[str]:
        """Samples each run with each sampler, and yields all of them side by side."""

        def work(stop: threading.Event) -> Iterator[str]:
            requests = columns(runs, samplers, steps=steps, guidance=guidance, seed=seed, count=count)
            yield from compared(studio, requests, stop)

        yield from studio.in_turn(request, "compare", work)

    start.click(
        streamed(compare), [runs, samplers, steps, guidance, seed, count], result, api_name="compare",
        concurrency_limit=None, show_progress="minimal", trigger_mode="once",
    )  # fmt: skip
    halt.click(studio.stops.stopper("compare"), None, None, queue=False, api_visibility="private")
    tab.select(
        lambda: gr.Dropdown(studio.places.trained()), None, runs, queue=False, show_progress="hidden",
        api_visibility="private",
    )  # fmt: skip


def columns(runs: Sequence[str] | None, samplers: Sequence[str] | None, **wishes: Any) -> list[Request]:
    """Every run with every sampler; `wishes` are the other fields of `Request`.

    Raises:
        ValueError: there is nothing to compare, or too much for one page.
    """
    pairs = list(product(dict.fromkeys(runs or ()), dict.fromkeys(samplers or ())))
    if not pairs:
        raise ValueError("Choose at least one run and one sampler.")
    if len(pairs) > MOST_COLUMNS:
        raise ValueError(f"{len(pairs)} columns are too many to look at: choose at most {MOST_COLUMNS}.")
    requests = [Request(run=run, sampler=sampler, **wishes) for run, sampler in pairs]
    if requests[0].count > MOST_IMAGES:
        raise ValueError(f"{requests[0].count} images each are too many to look at: choose at most {MOST_IMAGES}.")
    return requests


def compared(studio: Studio, requests: Sequence[Request], stop: threading.Event) -> Iterator[str]:
    done: list[str] = []
    for asked in requests:
        if stop.is_set():
            break
        try:
            model = studio.models.load(asked.run)
            if model.config.image_condition is not None:
                raise ValueError("This run makes images from others: give it one in the tab Generate.")
            if not model.class_names:
                asked = replace(asked, guidance=model.config.sampling.guidance)
            nfe, names, moment = asked.nfe(model), asked.names(model), None
            for moment in shown(asked.steps_of(model), "x", stop):
                yield _side_by_side([*done, _column(asked, moment, nfe, names)], running=True)
            assert moment is not None, "a sampler takes at least one step"
            done.append(_column(asked, moment, nfe, names))
        except (ValueError, OSError) as error:  # The other columns are worth having.
            told = markup.note(explain(error), "trouble")
            done.append(f'<section class="column"><h3>{_title(asked)}</h3>{told}</section>')
    yield _side_by_side(done)


def _title(asked: Request) -> str:
    return f"{markup.escape(asked.run)} <span>{asked.sampler}</span>"


def _column(asked: Request, moment: Shown, nfe: int, names: Sequence[str]) -> str:
    each = f"{moment.seconds / asked.count:.3f} s an image"
    state = f"NFE {nfe} · {each}" if moment.step == asked.steps else f"step {moment.step} of {asked.steps}"
    return (
        f'<section class="column"><h3>{_title(asked)}</h3>{markup.tiles(moment.pixels, names)}'
        f'<p class="status">{state}</p></section>'
    )


def _side_by_side(done: Sequence[str], running: bool = False) -> str:
    return markup.stage(f'<div class="columns">{"".join(done)}</div>', running)
