"""The command line: what a person types, what it answers, and how it exits."""

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace

import pytest
from helpers.commands import refused

from undiffuse import __main__, cli
from undiffuse.cli import COMMANDS, main
from undiffuse.utils.terminal import console, log


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["train", "--data", "nowhere"], "no data at"),
        (["train", "--size", "big"], "--size big is not a size"),
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


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["sample", "x", "--steps", "1.5"], "Error parsing --steps: 1.5 is not a whole number."),
        (["train", "--minutes", "ten"], "Error parsing --minutes: ten is not a number."),
        (["train", "--keep", "all"], "Error parsing --keep: all is not a whole number."),
        (["sample", "x", "--sampler", "dpm"], "Expected one of ('ipndm', 'dpmpp_2m', 'heun', 'lms', 'euler', 'ddim',"),
    ],
)
def test_a_wrong_value_is_answered_in_words_that_are_not_pythons(
    capsys: pytest.CaptureFixture, words: list[str], says: str
) -> None:
    with pytest.raises(SystemExit) as end:
        main(words)
    assert end.value.code == 2
    said = " ".join(re.sub("[│╭╮╰╯─]", " ", capsys.readouterr().err).split())
    assert says in said
    assert "None" not in said


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


def help_of(name: str, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv("COLUMNS", "200")
    with pytest.raises(SystemExit) as end:
        main([name, "--help"])
    assert end.value.code == 0
    return capsys.readouterr().out


@pytest.mark.parametrize("name", sorted(COMMANDS))
def test_every_option_is_explained_and_shows_its_default(
    name: str, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = re.sub(r"[\u2500-\u257f|]", " ", help_of(name, capsys, monkeypatch))
    _, *options = re.split(r"\n +(?=--[a-z]|-h, |\[?RUN\]?  |SOURCE  )", text)
    assert len(options) > 0
    for option in options:
        words = option.split()
        if words[0] != "-h,":
            assert re.search(r"\((default|required|optional|fixed|repeatable)", option), option
            assert len(re.sub(r"\(.*?\)|--\S+|[A-Z_|{}\[\]]{3,}", "", option).split()) >= 2, f"no help: {option}"


@pytest.mark.parametrize("name", sorted(COMMANDS))
def test_help_is_answered_without_torch(name: str) -> None:
    code = (
        f"import sys; sys.argv[1:] = [{name!r}, '--help']; from undiffuse.cli import main\n"
        "try: main()\nexcept SystemExit: pass\nassert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, timeout=60)


def test_torchs_cpp_frames_are_not_shown_unless_asked_for(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("TORCH_CPP_LOG_LEVEL", "INFO")
    with pytest.raises(SystemExit):
        main(["explore", "--help"])
    assert os.environ["TORCH_CPP_LOG_LEVEL"] == "INFO"
    monkeypatch.delenv("TORCH_CPP_LOG_LEVEL")
    with pytest.raises(SystemExit):
        main(["explore", "--help"])
    assert os.environ["TORCH_CPP_LOG_LEVEL"] == "ERROR"


@contextmanager
def read_by_nobody(monkeypatch: pytest.MonkeyPatch) -> Generator[None, None, None]:
    """What is printed inside goes to a pipe without a reader, as after `| head -1` has ended."""
    read, write = os.pipe()
    os.close(read)
    monkeypatch.setattr(console, "quiet", False)  # Put back: rich silences it at the first failure.
    monkeypatch.setattr(sys, "stdout", os.fdopen(write, "w"))
    yield
    with console.capture():  # Takes what could not be written out of its buffer.
        pass


@pytest.mark.parametrize(
    "words", [[], ["--help"], ["--version"], *([name, "--help"] for name in sorted(COMMANDS))], ids=" ".join
)
def test_output_that_nobody_reads_ends_a_command_without_a_word(
    words: list[str], capfd: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    with read_by_nobody(monkeypatch), pytest.raises(SystemExit) as end:
        main(words)
    assert (end.value.code, capfd.readouterr().err) == (1, "")


@pytest.mark.parametrize("say", [lambda: log.info("a notice"), lambda: print("progress", flush=True)])
def test_work_whose_output_nobody_reads_ends_without_a_word(
    say: Callable[[], None], capfd: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cli, "_call", lambda name, arguments: say())
    with read_by_nobody(monkeypatch), pytest.raises(SystemExit) as end:
        main(["train"])
    assert (end.value.code, capfd.readouterr().err) == (1, "")


def test_another_broken_pipe_is_a_failure_with_a_sentence(
    capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(name: str, arguments: list[str]) -> None:
        raise BrokenPipeError(32, "Broken pipe", "storage")

    monkeypatch.setattr(cli, "_call", fail)
    assert "Broken pipe: storage" in refused(capsys, "train")


def test_ctrl_c_ends_each_command_with_what_is_kept(
    capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(name: str, arguments: list[str]) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(cli, "_call", stop)
    for name, command in COMMANDS.items():
        with pytest.raises(SystemExit) as end:
            main([name])
        assert end.value.code == 130
        assert capsys.readouterr().err == f"Stopped. {command.kept}\n"
        assert "the same command" in command.kept.lower()


def test_ctrl_c_raises_nothing_while_the_program_is_loaded_and_after_its_last_word(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    handlers = []

    def note() -> None:
        handlers.append(signal.getsignal(signal.SIGINT))

    def load(name: str) -> SimpleNamespace:
        note()
        return SimpleNamespace(main=note)

    monkeypatch.setattr(__main__.importlib, "import_module", load)
    monkeypatch.setattr(__main__.gc, "freeze", note)
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # Ignored where the tests run in the background.
    try:
        __main__.main()
        assert handlers == [signal.SIG_DFL, signal.default_int_handler, signal.SIG_DFL]
        handlers.clear()
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # As after `nohup` or a shell's `&`.
        __main__.main()
        assert handlers == 3 * [signal.SIG_IGN]
    finally:
        signal.signal(signal.SIGINT, before)


@pytest.mark.parametrize("words", [["--help"], ["train", "--help"]])
@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_a_process_leaves_a_closed_pipe_in_silence(words: list[str], unbuffered: str) -> None:
    read, write = os.pipe()
    os.close(read)
    environment = {**os.environ, "PYTHONUNBUFFERED": unbuffered}
    done = subprocess.run(
        [sys.executable, "-m", "undiffuse", *words], stdout=write, stderr=subprocess.PIPE, env=environment, timeout=60
    )
    os.close(write)
    assert (done.returncode, done.stderr) == (1, b"")
