"""Explore an image dataset, train a diffusion model on it from scratch, sample, and learn honestly how good it is.

    import undiffuse as ud

    model = ud.load("runs/quickstart")
    model.sample(8, label=3)

The names below are loaded when they are used, so that the command line answers at once.
"""

import importlib
from typing import Any

WHERE = {
    "Edited": "api.edit",
    "Evaluation": "evaluation.result",
    "Exploration": "exploration.explore",
    "FeatureNetwork": "features.networks",
    "Images": "report.grids",
    "Metric": "evaluation.metrics",
    "Model": "sampling.model",
    "NetworkConfig": "networks.network",
    "Observer": "training.observers",
    "Run": "runs.run",
    "Tuned": "api.tune",
    "TunedEMA": "api.tune_ema",
    "compare": "api.compare",
    "distill": "api.distill",
    "edit": "api.edit",
    "evaluate": "api.evaluate",
    "explore": "api.explore",
    "export": "api.exchange",
    "import_model": "api.exchange",
    "load": "api.sample",
    "measure": "api.evaluate",
    "quickstart": "api.quickstart",
    "sample": "api.sample",
    "samplers": "diffusion",
    "train": "api.train",
    "tune_ema": "api.tune_ema",
    "tune_sampler": "api.tune",
}
"""The module of each public name, which is loaded with no other: sampling does not wait for what evaluation imports."""

__all__ = list(WHERE)


def __getattr__(name: str) -> Any:
    if name == "__version__":
        return importlib.import_module("importlib.metadata").version("undiffuse")
    if name not in __all__:
        raise AttributeError(f"module 'undiffuse' has no attribute {name!r}: it has {', '.join(__all__)}")
    return getattr(importlib.import_module(f"undiffuse.{WHERE[name]}"), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
