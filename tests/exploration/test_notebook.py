"""The notebook runs from the first cell to the last, and what is committed is small."""

from pathlib import Path

import nbformat
from nbclient import NotebookClient

NOTEBOOK = Path(__file__).parents[2] / "notebooks" / "data_analysis.ipynb"
MAX_BYTES = 1_000_000


def shown(notebook: nbformat.NotebookNode) -> list[list[str]]:
    """The types of the outputs of each code cell."""
    outputs = [cell.outputs for cell in notebook.cells if cell.cell_type == "code"]
    return [sorted({kind for output in of_cell for kind in output.get("data", {})}) for of_cell in outputs]


def test_the_notebook_runs_and_matches_what_is_committed(tmp_path: Path) -> None:
    committed = nbformat.read(NOTEBOOK, as_version=4)
    ran = nbformat.read(NOTEBOOK, as_version=4)
    NotebookClient(ran, timeout=120, resources={"metadata": {"path": str(tmp_path)}}).execute()
    assert shown(ran) == shown(committed)
    assert sum("image/png" in kinds for kinds in shown(ran)) >= 8
    words = "".join(output.get("text", "") for cell in ran.cells for output in cell.get("outputs", []))
    assert "0 exact groups, 6 near pairs" in words
    assert "undiffuse train --data digits --images " in words  # 32k, or fewer where the machine is busy.


def test_the_committed_outputs_are_small_and_anonymous() -> None:
    assert NOTEBOOK.stat().st_size < MAX_BYTES
    text = NOTEBOOK.read_text(encoding="utf-8")
    assert "Traceback" not in text
    assert str(NOTEBOOK.parents[1]) not in text


def test_the_notebook_needs_few_imports() -> None:
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    lines = [line for cell in notebook.cells if cell.cell_type == "code" for line in cell.source.splitlines()]
    assert sum(line.startswith(("import ", "from ")) for line in lines) <= 3
