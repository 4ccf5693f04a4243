"""python test.py evaluates the newest run: the same as `undiffuse evaluate`."""

import sys

from undiffuse.cli import main

main(["evaluate", *sys.argv[1:]])
