"""The commands that README and docs show are run, word by word, but with small budgets and images of ours."""

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from helpers import forking
from PIL import Image
from torch.distributed.run import parse_args as torchrun_arguments

from undiffuse.cli import main

TOP = Path(__file__).parents[1]
PAGES = [TOP / "README.md", *sorted((TOP / "docs").glob("*.md"))]

SMALLER = {"--images": "128", "--minutes": "0.02", "--count": "4", "--steps": "3"}
"""What is run in place of a shown budget; every other word is run as it stands."""

TINY = ["network.channels=8", "network.groups=4", "network.blocks=1", "training.microbatch=32"]
"""Settings of commands that train, so that the presets' networks do not take minutes."""

OUTSIDE = (
    "git ",
    "cd ",
    "make ",
    "pip ",
    "python3 -m venv",
    ". ",
    "source ",
    "tensorboard ",
    "UNDIFFUSE_DATA=",
    ".venv/",
)
"""Commands for the reader's own shell, which are not ours to run inside a test."""


def shown_commands(page: Path) -> list[str]:
    blocks = re.findall(r"```bash\n(.*?)```", page.read_text(encoding="utf-8"), flags=re.DOTALL)
    lines = [line.split(" #")[0].strip() for block in blocks for line in block.replace("\\\n", " ").splitlines()]
    return [line for line in lines if line and not line.startswith(("#", *OUTSIDE))]


def smaller(command: str) -> list[str]:
    words = shlex.split(command)
    for i, word in enumerate(words[:-1]):
        words[i + 1] = SMALLER.get(word, words[i + 1])
    if "sample" in words and "--steps" not in words:
        words += ["--steps", SMALLER["--steps"]]
    if not {"train", "main.py"} & {*words} or "--help" in words:
        return words
    if not {"--images", "--minutes"} & {*words}:
        words += ["--images", SMALLER["--images"]]
    given = words.index("--set") + 1 if "--set" in words else None
    return [*words, "--set", *TINY] if given is None else [*words[:given], *TINY, *words[given:]]


def exit_code(words: list[str]) -> object:
    try:
        main(words)
    except SystemExit as end:
        return end.code
    return 0


def run(command: str, folder: Path) -> None:
    program, *words = smaller(command)
    if program == "undiffuse":  # In this process, which has loaded torch already.
        assert exit_code(words) == 0, command
        return
    if program == "torchrun":  # Its options are read by torchrun itself, which test_processes.py starts as well.
        started = torchrun_arguments(words)
        assert (started.module, started.training_script) == (True, "undiffuse")
        forking.together(int(started.nproc_per_node), main, started.training_script_args)
        return
    assert program == "python", f"{command}: teach this test how to run {program}"
    done = subprocess.run([sys.executable, *words], capture_output=True, text=True, timeout=300, cwd=folder)
    assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"


@pytest.fixture
def readers_folder(tmp_path: Path) -> Path:
    """What the reader is taken to have: a folder photos/ with two classes, and the project's scripts."""
    for name, color in (("roses", "red"), ("irises", "blue")):
        folder = tmp_path / "photos" / name
        folder.mkdir(parents=True)
        for i in range(4):
            Image.new("RGB", (40 + i, 36), color).save(folder / f"{i}.jpg")
    for script in ("main.py", "test.py"):
        (tmp_path / script).write_bytes((TOP / script).read_bytes())
    return tmp_path


@pytest.mark.parametrize("page", [page for page in PAGES if shown_commands(page)], ids=lambda page: page.name)
def test_the_commands_of_a_page_run_in_order(page: Path, readers_folder: Path) -> None:
    for command in shown_commands(page):
        run(command, readers_folder)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_no_figure_is_left_to_be_filled_in(page: Path) -> None:
    assert re.findall(r"\b(?:QUICKSTART|CIFAR|TBD)\b(?!-)", page.read_text(encoding="utf-8")) == []


@pytest.mark.parametrize("page", [*PAGES, TOP / "CONTRIBUTING.md"], ids=lambda page: page.name)
def test_the_files_that_a_page_points_to_exist(page: Path) -> None:
    targets = re.findall(r"\]\(([^)#:]+)\)", page.read_text(encoding="utf-8"))
    missing = [target for target in targets if not (page.parent / target).exists()]
    assert missing == []


@pytest.mark.parametrize(
    ("words", "images"),
    [
        pytest.param(["models", "digits"], 2, id="models", marks=pytest.mark.slow),
        pytest.param(["quickstart", "--run", "digits"], 2, id="quickstart"),
        pytest.param(["editing"], 1, id="editing", marks=pytest.mark.slow),
        pytest.param(["image-conditions", "--images", "256"], 1, id="image-conditions", marks=pytest.mark.slow),
    ],
)
def test_the_script_that_makes_the_figures_runs(words: list[str], images: int, tmp_path: Path) -> None:
    command = [sys.executable, str(TOP / "docs" / "make_figures.py"), *words, "--out", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert all(Image.open(image).size[0] > 500 for image in tmp_path.glob("*.png"))
    assert len(list(tmp_path.glob("*.png"))) == images
