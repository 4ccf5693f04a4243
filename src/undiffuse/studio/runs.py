"""The tab that lists all runs, with their curves, previews and what is left of the budget."""

import gradio as gr

from undiffuse.runs.find import SHIPPED
from undiffuse.studio import markup
from undiffuse.studio.context import Studio
from undiffuse.studio.progress import card
from undiffuse.studio.visitors import explain

REFRESH_SECONDS = 3.0

MOST_RUNS = 20
"""Runs that are shown; the newest."""


def runs_tab(studio: Studio, tab: gr.Tab) -> None:
    """Builds the tab and its events; it is refreshed while it is looked at."""
    shown = gr.HTML(elem_id="runs-list")
    timer = gr.Timer(REFRESH_SECONDS, active=False)
    before = gr.State("")

    def refresh(before: str) -> tuple:
        now = run_list(studio)
        return (gr.skip(), gr.skip()) if now == before else (now, now)

    timer.tick(refresh, before, [shown, before], queue=False, show_progress="hidden", api_visibility="private")
    tab.select(
        lambda: (gr.Timer(active=True), *2 * [run_list(studio)]), None, [timer, shown, before], queue=False,
        show_progress="hidden", api_visibility="private",
    )  # fmt: skip


def run_list(studio: Studio) -> str:
    """All runs, the newest first; one that cannot be read is a sentence."""
    places, job = studio.places, studio.trainer.job
    cards, runs = [], [name for name, folder in places.runs().items() if folder.parent != SHIPPED]
    for name in runs[:MOST_RUNS]:
        mine = job is not None and job.folder == places.folder(name)
        try:
            cards.append(card(places.run(name), is_training=job.is_running if mine and job else None))
        except (ValueError, OSError, ArithmeticError, KeyError, TypeError) as error:  # Its files may hold anything.
            told = markup.note(explain(error), "trouble")
            cards.append(f'<article class="run"><header><h3>{markup.escape(name)}</h3></header>{told}</article>')
    if not cards:
        return markup.empty("There are no runs yet. Train one in the tab Train, and it appears here.")
    more = markup.note(f"{len(runs) - MOST_RUNS} older runs are not shown.") if len(runs) > MOST_RUNS else ""
    return "".join(cards) + more
