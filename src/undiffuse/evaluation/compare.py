"""Several runs and samplers compared: the same reference, equally many samples, the same seeds."""

import time
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from typing import Any

import torch

from undiffuse.evaluation.comparison import Comparison
from undiffuse.evaluation.context import EvaluationContext
from undiffuse.evaluation.entry import Candidate, Entry, LeftOut, Repeat
from undiffuse.evaluation.measured import measured
from undiffuse.evaluation.samples import RunSamples, run_samples
from undiffuse.features.image_sets import ImageSet
from undiffuse.runs.run import Run
from undiffuse.sampling.generate import seconds_per_evaluation
from undiffuse.utils.terminal import Meter, log, progress_to, silence
from undiffuse.utils.text import duration

FEATURES_TIMED = 8
"""Images at once, where the speed of a feature network is measured."""


def check_same_data(runs: Sequence[Run]) -> None:
    """Raises ValueError if runs were trained on other images or read them differently: no table can compare them."""
    first = runs[0]
    for run in runs[1:]:
        if _data_key(run) != _data_key(first):
            raise ValueError(
                f"{run.folder.absolute()} and {first.folder.absolute()} were trained on other images, or at another "
                "size, fit or number of channels, so their metrics cannot be compared: give runs of the same data."
            )


def _data_key(run: Run) -> tuple[Any, ...]:
    data = run.config.data
    return run.config.data_content, data.split, data.size, data.fit, data.channels


def compare_candidates(
    candidates: Sequence[Candidate],
    real: ImageSet,
    seed_ranges: Sequence[range],
    context: EvaluationContext,
    left_out: Sequence[LeftOut] = (),
) -> Comparison:
    """Samples and measures each candidate at the same seeds.

    What was sampled or measured before is taken from there, so a comparison that was interrupted goes on.
    """
    for each in left_out:
        log.warning(f"{each.title} is left out: {each.reason}")
    reference, entries = context.feature_set(real, is_real=True), []
    with silence():
        samples = [run_samples(each.model, each.sampling, len(seed_ranges[0]), context) for each in candidates]
    progress = _Progress(_expected_seconds(samples, seed_ranges, context))
    with progress.meter:
        for candidate, each in zip(candidates, samples, strict=True):
            repeats, made_by = [], {}
            for i, seeds in enumerate(seed_ranges):
                with progress.of_next(candidate.title):
                    made = each.make(seeds, context)
                    fake = context.feature_set(made.images)
                    if context.world.is_main:
                        measurement = measured(reference, fake, context.metrics)
                        repeats.append(Repeat(seeds, measurement, made.timing))
                made_by = made_by if i else made.made_by
            if repeats:
                entries.append(Entry(candidate, made_by, tuple(repeats)))
                log.info(str(entries[-1]))
    return Comparison(tuple(entries), tuple(left_out))


class _Progress:
    """One bar for the whole comparison, which counts expected seconds, in place of those of its parts."""

    def __init__(self, expected: Sequence[float]):
        self.expected, self.finished = expected, 0
        self.meter = Meter("comparing", sum(expected))

    @contextmanager
    def of_next(self, title: str) -> Generator[None, None, None]:
        """The next of the parts is done inside."""
        before, own = sum(self.expected[: self.finished]), self.expected[self.finished]
        note = f"{title}, {self.finished + 1:,}/{len(self.expected):,}"

        def show(what: str, fraction: float) -> None:
            self.meter.reach(before + own * (fraction if what == "sampling" else 1), note)

        with silence(), progress_to(show):
            yield
        self.finished += 1
        self.meter.reach(before + own, note)


def _expected_seconds(
    samples: Sequence[RunSamples], seed_ranges: Sequence[range], context: EvaluationContext
) -> list[float]:
    """How long each range of seeds of each will take: images that are missing are made, and their features computed."""
    missing = [[each.missing(seeds, context.world) for seeds in seed_ranges] for each in samples]
    total, making = len(samples) * sum(map(len, seed_ranges)), sum(map(sum, missing))
    if making < total:
        log.info(f"{total - making:,} of {total:,} images are there already.")
    expected, per_image, per_evaluation = [], 0.0, {}
    for each, counts in zip(samples, missing, strict=True):
        model, seeds = each.model, seed_ranges[0]
        if any(counts) and id(model) not in per_evaluation:
            batch = seeds[: context.batch]
            per_evaluation[id(model)] = seconds_per_evaluation(each.gallery, model, batch) / len(batch)
            per_image = per_image or _seconds_per_feature(each, context)
        each_image = per_evaluation.get(id(model), 0.0) * each.nfe(seeds) + per_image
        expected += [count * each_image / context.world.size for count in counts]
    if making:
        ways = "one way" if len(samples) == 1 else f"{len(samples)} ways"
        log.info(f"{making:,} images, made in {ways}, and their features: about {duration(sum(expected))}.")
    return expected


def _seconds_per_feature(samples: RunSamples, context: EvaluationContext) -> float:
    """How long the features of one image take, measured the second time: the first warms up."""
    seconds, images = 0.0, torch.zeros(min(FEATURES_TIMED, context.batch), 3, *samples.gallery.shape[1:])
    for _ in range(2):
        began = time.monotonic()
        context.network(images.to(torch.uint8))
        seconds = time.monotonic() - began
    return seconds / len(images)
