"""The tab that shows what images hold, before anything is trained on them."""

from collections.abc import Iterator

import gradio as gr

from undiffuse.studio import markup
from undiffuse.studio.context import Studio
from undiffuse.studio.explored import as_markup, explored
from undiffuse.studio.visitors import explain, streamed


def data_tab(studio: Studio, tab: gr.Tab) -> None:
    """Builds the tab and its events."""
    with gr.Row(elem_classes="panes"):
        with gr.Column(elem_classes="controls", scale=0, min_width=300):
            data = gr.Dropdown(["digits"], value="digits", label="Images", elem_id="data-name",
                               info="those of the runs, and what was uploaded in the tab Train")  # fmt: skip
            start = gr.Button("Look", variant="primary", elem_id="data-start")
        with gr.Column(elem_classes="result", min_width=300):
            result = gr.HTML(
                markup.empty("How many, of which classes and sizes, and what is wrong with them."), elem_id="data-stage"
            )

    def look(name: str | None) -> Iterator[str]:
        """Explores images, and yields progress and what was found."""
        try:
            known = studio.places.data()
            if name is None or name not in known:
                raise ValueError(
                    f"The studio knows no images {str(name)[:60]!r}: choose one of {', '.join([*known][:8])}."
                )
            looks = explored(known[name], False, studio.exploring)
            while True:
                try:
                    yield next(looks)
                except StopIteration as end:
                    found, _ = end.value
                    break
            yield markup.stage(as_markup(found, studio.reports.add(found.write)))
        except Exception as error:
            yield markup.stage(markup.note(explain(error), "trouble"))

    start.click(
        streamed(look), data, result, api_name="look", concurrency_limit=None,
        show_progress="minimal", trigger_mode="once",
    )  # fmt: skip
    tab.select(
        lambda: gr.Dropdown(list(studio.places.data())), None, data, queue=False, show_progress="hidden",
        api_visibility="private",
    )  # fmt: skip
