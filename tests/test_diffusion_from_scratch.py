"""The student's notebook runs from its first cell to its last, and every code cell ends in something to look at."""

from pathlib import Path

import nbformat
from nbclient import NotebookClient

NOTEBOOK = Path(__file__).parents[1] / "notebooks" / "diffusion_from_scratch.ipynb"
MAX_BYTES = 1_000_000

SHORTER = {
    'images="16k"': "images=1300",  # 21 steps: the curve is drawn of means over 20.
    "karras_sigmas(200,": "karras_sigmas(20,",
    "[4, 8, 16, 32, 64]": "[2, 4, 8]",
    "count=300": "count=20",
}
"""So much less work is done here than by a reader."""


def images_shown(notebook: nbformat.NotebookNode) -> list[bool]:
    """Whether each code cell shows an image."""
    outputs = [cell.outputs for cell in notebook.cells if cell.cell_type == "code"]
    return [any("image/png" in output.get("data", {}) for output in of_cell) for of_cell in outputs]


def test_the_notebook_runs_and_every_code_cell_shows_an_image(tmp_path: Path) -> None:
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    assert all(images_shown(notebook)), "as committed"
    for long, short in SHORTER.items():
        (cell,) = (cell for cell in notebook.cells if long in cell.source)
        cell.source = cell.source.replace(long, short)
    NotebookClient(notebook, timeout=300, resources={"metadata": {"path": str(tmp_path)}}).execute()
    assert all(images_shown(notebook))
    assert (tmp_path / "runs" / "from-scratch" / "config.json").exists()


def test_every_text_cell_of_the_notebook_explains_and_the_file_is_small() -> None:
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    texts = [cell.source for cell in notebook.cells if cell.cell_type == "markdown"]
    assert sum("$" in text for text in texts) >= 5, "formulas"
    assert NOTEBOOK.stat().st_size < MAX_BYTES
    assert "Traceback" not in NOTEBOOK.read_text(encoding="utf-8")
