"""Explore an image dataset, train a diffusion model on it from scratch, sample, and learn honestly how good it is.

    import undiffuse as ud

    model = ud.load("runs/quickstart")
    model.sample(8, label=3)

The names below are loaded when they are used, so that the command line answers at once.
"""

import importlib
from typing import Any

__all__ = [
    "Edited",
    "Evaluation",
    "Exploration",
    "FeatureNetwork",
    "Images",
    "Metric",
    "Model",
    "NetworkConfig",
    "Observer",
    "Run",
    "Tuned",
    "compare",
    "distill",
    "edit",
    "evaluate",
    "explore",
    "export",
    "import_model",
    "load",
    "measure",
    "quickstart",
    "sample",
    "samplers",
    "train",
    "tune_sampler",
]


def __getattr__(name: str) -> Any:
    if name == "__version__":
        return importlib.import_module("importlib.metadata").version("undiffuse")
    if name not in __all__:
        raise AttributeError(f"module 'undiffuse' has no attribute {name!r}: it has {', '.join(__all__)}")
    return getattr(importlib.import_module("undiffuse.api"), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
