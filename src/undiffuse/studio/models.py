"""The models that the studio keeps loaded, at most two, and loads again when a run has a newer checkpoint."""

import threading
from collections import OrderedDict

from undiffuse.runs.run import Run
from undiffuse.sampling.guides import check_can_guide
from undiffuse.sampling.loading import load_model
from undiffuse.sampling.model import Model
from undiffuse.studio.places import Places
from undiffuse.utils.parsing import parse_count

LOADED = 2
"""Models kept in memory."""


class Models:
    """Opens models by the names of their runs.

    Example:
        models = Models(Places())
        models.load("digits").sample(4)
    """

    def __init__(self, places: Places):
        self.places = places
        self._loaded: OrderedDict[tuple[str, int], Model] = OrderedDict()
        self._one_at_a_time = threading.Lock()

    def load(self, name: str, guide: str = "") -> Model:
        """The model of the run's newest checkpoint, with its guide: a run, or RUN@IMAGES.

        Raises:
            ValueError: there is no such run, it cannot be read, or the guide makes other images.
            FileNotFoundError: it has no whole checkpoint yet.
        """
        with self._one_at_a_time:
            model = self._load(name, None)
            return model.guided_by(self._load(*self._parts(guide))) if guide else model

    def _load(self, name: str, images: int | None) -> Model:
        run = self.places.run(name)
        newest = next(iter(run.checkpoints()), None)
        key = str(run.folder), images if images is not None else newest.images if newest else -1
        if key not in self._loaded:
            while len(self._loaded) >= LOADED:  # Before the next one is read, so that no third is in memory.
                self._loaded.popitem(last=False)
            self._loaded[key] = load_model(run, images=images)
        self._loaded.move_to_end(key)
        return self._loaded[key]

    def _parts(self, guide: str) -> tuple[str, int | None]:
        name, at, images = guide.rpartition("@")
        if not at or guide in self.places.runs():  # An @ in the name of a run.
            return guide, None
        return name, parse_count(images, "The checkpoint of a guide, RUN@IMAGES:")

    def guides(self, name: str) -> list[str]:
        """What may guide the run: its earlier checkpoints as RUN@IMAGES, and other runs of the same images.

        Raises:
            ValueError: there is no such run, or its config cannot be read.
        """
        run = self.places.run(name)
        found = [f"{name}@{each.images}" for each in run.checkpoints()[1:]]
        others = (other for other in self.places.trained() if other != name)
        return found + [other for other in others if _can_guide(self.places.run(other), run)]

    def __len__(self) -> int:
        return len(self._loaded)


def _can_guide(guide: Run, guided: Run) -> bool:
    try:
        check_can_guide(guide.config, guided.config)
    except ValueError:
        return False
    return True
