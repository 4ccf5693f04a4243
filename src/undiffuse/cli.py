"""The command line: a subcommand's name leads to its function, imported when it is called. Nothing else reads argv."""

import difflib
import importlib
import os
import sys
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from typing import NamedTuple

from pydantic import ValidationError
from rich.console import Console
from rich.control import Control
from rich.segment import ControlType

import undiffuse
from undiffuse.utils import validation
from undiffuse.utils.errors import Interrupted, PeerFailed, WorkFailed, sentence
from undiffuse.utils.terminal import console, errors, shown, speaking


class Command(NamedTuple):
    """A row of the table of subcommands."""

    function: str
    """Where it is, as module:function."""
    about: str
    """What the overview says of it."""
    kept: str
    """What is left of its work after Ctrl-C, and what goes on with it."""


RESUMES = "The last checkpoint, if there is one yet, is kept: the same command goes on from it."
FILLS = "Finished images are kept: the same command makes the rest."
REUSES = "Finished samples and features are kept: the same command goes on with them."

COMMANDS = {
    "explore": Command(
        "undiffuse.commands.explore:explore",
        "look at images before training, in one page",
        "Decoded images are kept: the same command starts again with them.",
    ),
    "train": Command("undiffuse.commands.train:train", "train a diffusion model on images, or resume", RESUMES),
    "distill": Command(
        "undiffuse.commands.distill:distill", "train a student of a model that needs one or two steps", RESUMES
    ),
    "sample": Command("undiffuse.commands.sample:sample", "make images with a trained model", FILLS),
    "tune-sampler": Command(
        "undiffuse.commands.tune_sampler:tune_sampler",
        "find the noise levels that make the most of few steps",
        "What was measured is kept: the same command goes on with it.",
    ),
    "tune-ema": Command(
        "undiffuse.commands.tune_ema:tune_ema", "choose the length of the EMA after the training", REUSES
    ),
    "edit": Command(
        "undiffuse.commands.edit:edit", "inpaint, vary, interpolate, colorize, deblur or enlarge an image", FILLS
    ),
    "evaluate": Command(
        "undiffuse.commands.evaluate:evaluate",
        "measure how good a model is: FID and more, with the whole protocol",
        REUSES,
    ),
    "measure": Command(
        "undiffuse.commands.measure:measure",
        "measure any two sets of images against each other",
        "Decoded images and finished features are kept: the same command goes on with them.",
    ),
    "compare": Command(
        "undiffuse.commands.compare:compare", "compare runs or samplers in one table, at equal N", REUSES
    ),
    "import": Command(
        "undiffuse.commands.import_model:import_run",
        "import a model that was trained elsewhere as a run",
        "No run was written: the same command starts again.",
    ),
    "export": Command(
        "undiffuse.commands.export:export",
        "write a trained model for diffusers, ONNX or a web page",
        "Nothing was exported: the same command starts again.",
    ),
    "studio": Command(
        "undiffuse.commands.studio:studio",
        "a page in the browser: generate, train, watch, compare",
        "The same command opens the studio again.",
    ),
    "quickstart": Command(
        "undiffuse.commands.quickstart:quickstart", "train on digits, sample and report, in five minutes", RESUMES
    ),
    "doctor": Command(
        "undiffuse.commands.doctor:doctor",
        "what this machine has, and what is missing",
        "Nothing was written: the same command starts again.",
    ),
}


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs a subcommand. Exits with 2 for a wrong command, 1 for work that failed and 130 for work that was stopped."""
    with _reader_may_leave():
        _main(arguments)


@contextmanager
def _reader_may_leave() -> Generator[None, None, None]:
    """Ends without a word, with 1, where nobody reads the output any more: `undiffuse train --help | head -1`."""
    try:
        try:
            yield
        finally:
            print(end="", flush=True)  # What is left must fail here, not when Python itself ends.
    except BrokenPipeError:
        if not _is_unread():  # It was a connection of the command's own.
            raise
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # For what Python flushes in the end.
        sys.exit(1)


def _is_unread() -> bool:
    """Whether nobody reads the output: an empty line cannot be written either."""
    try:
        print(flush=True)
    except BrokenPipeError:
        return True
    return False


def _main(arguments: Sequence[str] | None) -> None:
    words = list(sys.argv[1:] if arguments is None else arguments)
    debug = "--debug" in words
    words = [word for word in words if word != "--debug"]
    if not words or words[0] in ("-h", "--help", "help"):
        _overview()
        return
    if words[0] == "--version":
        console.print(f"undiffuse {undiffuse.__version__}")
        return
    name, *rest = words
    if name not in COMMANDS:
        close = difflib.get_close_matches(name, COMMANDS, 1)
        hint = f"did you mean {close[0]}?" if close else f"choose {', '.join(COMMANDS)}."
        errors.print(f"undiffuse: there is no command {name}; {hint}")
        sys.exit(2)
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        # Of a process that is gone, torch warns with pages of C++ frames before the sentence that says so.
        os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")  # Read when torch is loaded, which the command does.
    try:
        with speaking(os.environ.get("RANK", "0") == "0"):  # Under torchrun one of the processes speaks.
            _call(name, rest)
    except Interrupted as stopped:
        _tell(console, str(stopped))
    except KeyboardInterrupt:
        errors.control(Control(ControlType.CARRIAGE_RETURN))  # Over the ^C that a terminal shows.
        _tell(errors, f"Stopped. {COMMANDS[name].kept}")
        sys.exit(130)
    except (
        PeerFailed
    ) as error:  # Raised in one process only, which need not be rank 0: that may be the one that is gone.
        errors.print(f"undiffuse {name}: {error}")
        _exit(1)
    except WorkFailed as error:
        if debug:
            raise
        _tell(errors, f"undiffuse {name}: {error}")
        _exit(1)
    except (ValueError, OSError) as error:
        if debug or (isinstance(error, BrokenPipeError) and _is_unread()):
            raise
        _tell(errors, f"undiffuse {name}: {_sentence(error)}")
        _exit(2)


def _exit(code: int) -> None:
    """Exits; one of several processes at once, since work on a GPU that waits for another process would not end."""
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
    sys.exit(code)


def _call(name: str, arguments: list[str]) -> None:
    import tyro

    from undiffuse.commands.typed import REGISTRY

    module, _, function = COMMANDS[name].function.partition(":")
    command = getattr(importlib.import_module(module), function)
    config = (tyro.conf.FlagCreatePairsOff, tyro.conf.DisallowNone)
    with REGISTRY:
        tyro.cli(command, prog=f"undiffuse {name}", args=arguments, config=config)


def _overview() -> None:
    console.print("undiffuse: explore images, train a diffusion model on them, sample, and learn how good it is.\n")
    width = max(map(len, COMMANDS))
    for name, command in COMMANDS.items():
        console.print(f"  undiffuse {name:<{width}}  {command.about}")
    console.print("\nEvery command explains itself: undiffuse train --help. --debug shows where an error came from.")


def _tell(where: Console, text: str) -> None:
    if os.environ.get("RANK", "0") == "0":  # Under torchrun one of the processes speaks.
        where.print(shown(text))


def _sentence(error: ValueError | OSError) -> str:
    return validation.sentence(error) if isinstance(error, ValidationError) else sentence(error)
