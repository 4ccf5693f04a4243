"""The models that the studio keeps loaded, at most two, and loads again when a run has a newer checkpoint."""

import threading
from collections import OrderedDict

from undiffuse import api
from undiffuse.sampling.model import Model
from undiffuse.studio.places import Places

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

    def load(self, name: str) -> Model:
        """The model of the run's newest checkpoint.

        Raises:
            ValueError: there is no such run, or it cannot be read.
            FileNotFoundError: it has no whole checkpoint yet.
        """
        with self._one_at_a_time:
            run = self.places.run(name)
            newest = next(iter(run.checkpoints()), None)
            key = str(run.folder), newest.images if newest else -1
            if key not in self._loaded:
                while len(self._loaded) >= LOADED:  # Before the next one is read, so that no third is in memory.
                    self._loaded.popitem(last=False)
                self._loaded[key] = api.load(run)
            self._loaded.move_to_end(key)
            return self._loaded[key]

    def __len__(self) -> int:
        return len(self._loaded)
