"""Assembles the page, and serves it on this machine alone."""

import os
import shutil
import signal
import socket
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from threading import Event

import gradio as gr
from starlette.middleware import Middleware

from undiffuse.studio import theme
from undiffuse.studio.compare import compare_tab
from undiffuse.studio.context import Studio
from undiffuse.studio.data import data_tab
from undiffuse.studio.edit import EditTab
from undiffuse.studio.generate import GenerateTab
from undiffuse.studio.guard import Guard
from undiffuse.studio.line import MOST_WAITING
from undiffuse.studio.places import Places
from undiffuse.studio.runs import runs_tab
from undiffuse.studio.train import TrainTab
from undiffuse.utils.terminal import silence

HOST = "127.0.0.1"
FIRST_PORT = 7860
PORTS = 100

THREADS = 4 * MOST_WAITING
"""For the requests of visitors: each that waits in a line takes one."""

DELETE_SECONDS = 600
"""How often temporary files are deleted, and how old they are then."""

MOST_UPLOADED = "4gb"


def build(studio: Studio) -> gr.Blocks:
    """The page, not served yet."""
    with gr.Blocks(
        title="undiffuse studio",
        analytics_enabled=False,
        fill_width=True,
        delete_cache=(DELETE_SECONDS, DELETE_SECONDS),
    ) as page:
        gr.HTML('<header class="masthead"><h1>undiffuse <span>studio</span></h1></header>', padding=False)
        with gr.Tabs(elem_id="tabs"):
            with gr.Tab("Generate", id="generate"):
                GenerateTab(studio, page)
            with gr.Tab("Edit", id="edit"):
                EditTab(studio, page)
            with gr.Tab("Train", id="train") as tab:
                TrainTab(studio, tab)
            with gr.Tab("Runs", id="runs") as tab:
                runs_tab(studio, tab)
            with gr.Tab("Compare", id="compare") as tab:
                compare_tab(studio, tab)
            with gr.Tab("Data", id="data") as tab:
                data_tab(studio, tab)
        page.unload(studio.stops.stopper())
    page.queue(max_size=THREADS, default_concurrency_limit=4, status_update_rate="auto")
    return page


class Server:
    """A studio that is being served.

    Example:
        with Server(["runs/flowers"]) as server:
            print(server.address)
    """

    def __init__(self, runs: Sequence[str] = (), port: int | None = None):
        """Serves it.

        Args:
            port: None takes 7860, or the next one that is free.

        Raises:
            FileNotFoundError: there is no such run.
            ValueError: the port is taken.
        """
        places = Places(runs)
        port = free_port(port)
        self.temporary = Path(tempfile.mkdtemp(prefix="undiffuse-studio-"))
        # gradio reads its folder for uploads and temporary files from here alone.
        os.environ["GRADIO_TEMP_DIR"] = str(self.temporary / "uploaded")
        os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
        self.studio = Studio(places, self.temporary)
        self.page = build(self.studio)
        self.page.launch(
            server_name=HOST,
            server_port=port,
            share=False,
            prevent_thread_lock=True,
            quiet=True,
            show_error=True,
            theme=theme.make(),
            head=theme.head(),  # Styles given as css= would lose their rules for narrow and dark screens.
            footer_links=[],
            run_history=False,
            ssr_mode=False,
            pwa=False,
            mcp_server=False,
            enable_monitoring=False,
            max_file_size=MOST_UPLOADED,
            max_threads=THREADS,
            allowed_paths=[],
            app_kwargs={"middleware": [Middleware(Guard)], "routes": [self.studio.reports.route()]},
        )
        self.address = f"http://{HOST}:{port}"

    def close(self) -> None:
        """Stops training with everything saved, and the server, and deletes temporary files."""
        self.studio.trainer.close()
        self.page.close(verbose=False)
        shutil.rmtree(self.temporary, ignore_errors=True)

    def __enter__(self) -> "Server":
        return self

    def __exit__(self, *error: object) -> None:
        self.close()


def serve(runs: Sequence[str], port: int | None, say: Callable[[str], object]) -> None:
    """Serves the studio until Ctrl-C or SIGTERM."""
    ended = Event()
    with silence(), Server(runs, port) as server:  # Progress is shown in the page.
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, lambda *_: ended.set())
        say(f"The studio is at {server.address} (Ctrl-C ends it)")
        ended.wait()
        say("Ending, with what is in training saved ..." if server.studio.trainer.is_running else "Ended.")


def free_port(port: int | None) -> int:
    """The port, or the first that is free.

    Raises:
        ValueError: it is not a port, or taken.
    """
    if port is not None and not 1 <= port < 2**16:
        raise ValueError(f"--port {port} is not a port: give 1 to {2**16 - 1}.")
    for each in [port] if port is not None else range(FIRST_PORT, FIRST_PORT + PORTS):
        with socket.socket() as tried:
            tried.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                tried.bind((HOST, each))
                return each
            except OSError:
                continue
    raise ValueError(f"Port {port or FIRST_PORT} of this machine is taken: give another --port.")
