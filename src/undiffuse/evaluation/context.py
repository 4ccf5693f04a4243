"""What all steps of an evaluation need."""

from collections.abc import Sequence
from dataclasses import dataclass

from undiffuse.evaluation.feature_sets import FeatureSet
from undiffuse.evaluation.metrics import METRICS, Measurement, Metric, compute_metrics
from undiffuse.features.cache import features_of
from undiffuse.features.image_sets import ImageSet
from undiffuse.features.networks import FeatureNetwork
from undiffuse.utils.world import World


@dataclass(frozen=True)
class EvaluationContext:
    """How images are measured: by which network and metrics, and on which machine."""

    network: FeatureNetwork
    world: World
    batch: int
    """Images at once; changes speed and memory only."""
    metrics: tuple[Metric, ...] = METRICS

    def feature_set(self, images: ImageSet, is_real: bool = False) -> FeatureSet:
        """The images with their features, which the processes compute together."""
        need_less = "--real-count 10000 needs fewer images." if is_real and len(images) > 10_000 else ""
        extracted = features_of(self.network, images, self.batch, self.world, need_less)
        return FeatureSet(images, self.network, extracted, self.world.device)

    def measure(self, fake: ImageSet, references: Sequence[ImageSet]) -> list[Measurement]:
        """Measures generated images against each set of real ones; empty in all but the main process.

        Raises:
            ValueError: there are too few images to measure anything.
        """
        fakes = self.feature_set(fake)
        reals = [self.feature_set(images, is_real=True) for images in references]
        return [compute_metrics(real, fakes, self.metrics) for real in reals] if self.world.is_main else []
