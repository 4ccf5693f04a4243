"""python main.py trains: the same as `undiffuse train`."""

import sys

from undiffuse.cli import main

main(["train", *sys.argv[1:]])
