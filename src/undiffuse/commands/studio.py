"""undiffuse studio"""

import importlib.util
from typing import Annotated

import tyro

from undiffuse.commands.options import unless_given
from undiffuse.runs.find import find_run
from undiffuse.utils.parsing import at_least
from undiffuse.utils.terminal import console, loading


def studio(
    runs: Annotated[tuple[str, ...], tyro.conf.Positional, unless_given("those under runs/", metavar="RUN")] = (),
    port: Annotated[int | None, unless_given("7860, or the next that is free")] = None,
) -> None:
    """Open a page in the browser: generate step by step, train on photos, watch runs, compare.

    It answers to this machine alone, at 127.0.0.1, and fetches nothing from elsewhere. Ctrl-C ends it; a training that
    it started is saved first.

    Args:
        runs: Run folders, or their names under runs/, to show besides those under runs/ and the models that come with
            undiffuse.
        port: Port of this machine.
    """
    if importlib.util.find_spec("gradio") is None:
        raise ValueError("The studio needs gradio: pip install 'undiffuse[studio]'")
    for name in runs:
        find_run(name)
    if port is not None:
        at_least(1, port=port)

    with loading():
        from undiffuse.studio import app

    app.serve(runs, port, console.print)
