"""The command line: what a person types, what it answers, and how it exits."""

import subprocess
import sys
import time
from pathlib import Path

import pytest

from undiffuse.cli import COMMANDS, main


def refused(capsys: pytest.CaptureFixture, *words: str) -> str:
    """What a refused command says: exit code 2, one sentence, no traceback, nothing made."""
    before = sorted(Path.cwd().rglob("*"))
    with pytest.raises(SystemExit) as end:
        main(list(words))
    assert end.value.code == 2
    said = capsys.readouterr().err.strip()
    assert "Traceback" not in said
    assert len(said.splitlines()) == 1
    after = [path for path in Path.cwd().rglob("*") if "cache" not in path.parts]
    assert sorted(after) == [path for path in before if "cache" not in path.parts]
    return said


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["train", "--data", "nowhere"], "no data at"),
        (["train", "--data", "nowhere.zip"], "no data at"),
        (["train", "--preset", "huge"], "choose digits, small, flowers64, cifar10-ddpm"),
        (["train", "--size", "big"], "--size big is no size"),
        (["train", "--size", "0"], "--size 0 is no size"),
        (["train", "--size", "8x8x8"], "--size 8x8x8 is no size"),
        (["train", "--size", "17"], "choose height and width that are multiples of 4, such as 16x16"),
        (["train", "--size", "9999"], "sides go from 4 to 4096"),
        (["train", "--images", "many"], "--images many is no count"),
        (["train", "--images", "-5"], "--images -5 is no count"),
        (["train", "--images", "1.5"], "--images 1.5 is no count"),
        (["train", "--images", "1k", "--minutes", "1"], "either --images or --minutes"),
        (["train", "--minutes", "0"], "more than 0"),
        (["train", "--batch", "0"], "more than 0"),
        (["train", "--split", "val"], "digits has no split val"),
        (["train", "--set", "network.depth=3"], "--set network.depth=3"),
        (["train", "--set", "network.channels=wide"], "network.channels"),
        (["train", "--set", "seed=3"], "--set seed=3"),
        (["train", "--set", "network.classes=3"], "use --unconditional instead"),
        (["train", "--set", "data.fit=pad"], "use the options for data instead"),
        (["train", "--set", "optimizer.learning_rate=-1"], "learning_rate -1.0 is out of range"),
        (["train", "--set", "network.dropout=1.5"], "dropout 1.5 is out of range"),
        (["train", "--set", "training.log_batches=0"], "log_batches 0 is out of range"),
        (["train", "--keep", "0"], "keep at least 1"),
        (["sample", "no-such-run"], "no run at"),
        (["sample"], "no run in"),
        (["sample", "x", "--count", "0"], "no run at"),
        (["paint"], "no command paint"),
        (["trian"], "did you mean train?"),
    ],
)
def test_a_wrong_command_is_answered_in_one_sentence(
    capsys: pytest.CaptureFixture, words: list[str], says: str
) -> None:
    assert says in refused(capsys, *words)


def test_settings_that_fit_no_image_are_refused_before_images_are_opened(
    capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    from undiffuse.data import store

    monkeypatch.setattr(store, "open_source", lambda *asked: pytest.fail("images were opened"))
    for words in (["--size", "17"], ["--batch", "0"], ["--minutes", "0"], ["--set", "network.depth=3"]):
        refused(capsys, "train", *words)


def test_a_folder_that_is_no_run_is_refused(capsys: pytest.CaptureFixture) -> None:
    Path("photos").mkdir()
    assert "no run at" in refused(capsys, "sample", "photos")


def test_a_config_that_is_none_is_refused_with_its_path(capsys: pytest.CaptureFixture) -> None:
    Path("run").mkdir()
    Path("run/config.json").write_text('{"preset": 3}')
    assert str(Path("run/config.json")) in refused(capsys, "sample", "run")


@pytest.mark.parametrize(
    "words", [["train", "--data", "nowhere"], ["train", "--preset", "huge"], ["train", "--size", "x"], ["sample", "x"]]
)
def test_a_wrong_command_is_answered_before_torch_is_loaded(words: list[str]) -> None:
    began = time.monotonic()
    done = subprocess.run([sys.executable, "-m", "undiffuse", *words], capture_output=True, text=True, timeout=60)
    assert done.returncode == 2
    assert time.monotonic() - began < 5
    loads = "import sys; sys.argv[1:] = %r; from undiffuse.cli import main\ntry: main()\nexcept SystemExit: pass\n"
    code = loads % words + "assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, timeout=60)


def test_debug_shows_where_an_error_came_from() -> None:
    with pytest.raises(FileNotFoundError):
        main(["train", "--data", "nowhere", "--debug"])


def test_the_overview_names_every_command(capsys: pytest.CaptureFixture) -> None:
    main([])
    overview = capsys.readouterr().out
    assert all(f"undiffuse {name}" in overview for name in COMMANDS)


def _words(text: str) -> list[str]:
    """Without the boxes and line breaks, which differ with the terminal."""
    return [word for word in text.split() if not set(word) <= set("─│╭╮╰╯|+-")]


@pytest.mark.parametrize("name", sorted(COMMANDS))
def test_help_says_what_it_said(capsys: pytest.CaptureFixture, name: str) -> None:
    """After a wanted change: for each command, undiffuse NAME --help > tests/commands/help/NAME.txt"""
    with pytest.raises(SystemExit) as end:
        main([name, "--help"])
    assert end.value.code == 0
    expected = Path(__file__).parent / "help" / f"{name}.txt"
    assert _words(capsys.readouterr().out) == _words(expected.read_text())


def test_a_dry_run_shows_everything_and_makes_no_run(capsys: pytest.CaptureFixture) -> None:
    main(["train", "--dry-run", "--images", "1k"])
    said = capsys.readouterr().out
    for words in ("optimizer.learning_rate = ", "1,698,628 parameters", "memory", "images/s", "runs/digits-16x16"):
        assert words in said
    assert not Path("runs").exists()


def test_doctor_says_what_there_is(capsys: pytest.CaptureFixture) -> None:
    main(["doctor"])
    said = capsys.readouterr().out
    for words in ("torch", "device", "bf16", "GiB free", "GFLOP/s"):
        assert words in said
