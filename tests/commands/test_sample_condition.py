"""Making images from others: undiffuse train --condition and sample --condition, and what refuses such models."""

import json
import os
from pathlib import Path

import numpy as np
import pytest
from helpers.commands import refused
from PIL import Image

import undiffuse as ud
from undiffuse.cli import main
from undiffuse.data.low_resolution import reduced
from undiffuse.data.pixels import to_nchw

TINY = ["--size", "8", "--images", "128", "--batch", "64", "--set", "network.channels=8", "network.groups=4"]
TINY += ["network.patch=1", "sampling.steps=3"]
