"""Explore an image dataset, train a diffusion model on it from scratch, sample, and learn honestly how good it is."""

from importlib.metadata import version

__version__ = version("undiffuse")
