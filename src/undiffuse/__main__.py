"""The program: what `undiffuse` and `python -m undiffuse` run."""

import gc
import importlib
import signal


def main() -> None:
    """Runs the command line. While it is loaded, and after its last word, Ctrl-C ends the program without a word."""
    usual = signal.getsignal(signal.SIGINT)
    if usual is signal.default_int_handler:  # A shell may have it ignored.
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    command_line = importlib.import_module("undiffuse.cli")
    signal.signal(signal.SIGINT, usual)
    try:
        command_line.main()
    finally:
        if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
            signal.signal(signal.SIGINT, signal.SIG_DFL)
        gc.freeze()  # As it ends, Python would search all of torch for garbage, which takes seconds.


if __name__ == "__main__":
    main()
