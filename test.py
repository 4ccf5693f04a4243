"""python test.py samples from the newest run: the same as `undiffuse sample`."""

import sys

from undiffuse.cli import main

main(["sample", *sys.argv[1:]])
