"""The noise levels for a few steps of one model: GITS' path along its own trajectories, then a search with the sampler
itself. What is done is kept in the run folder, so that an interrupted search goes on.
"""

import time
from dataclasses import replace
from pathlib import Path

import safetensors.torch
import torch
from jaxtyping import Float
from torch import Tensor

from undiffuse.config import SamplingConfig
from undiffuse.diffusion.sampler_table import SAMPLERS
from undiffuse.sampling.model import Model
from undiffuse.sampling.options import noise_levels, on_device
from undiffuse.sampling.tuned import TunedSchedule, comparable
from undiffuse.tuning.progress import Outcome, Progress, key, read_progress, read_tensors, write_progress
from undiffuse.tuning.search import TRIALS, Sigmas, refined
from undiffuse.tuning.teacher import LEVELS, Memory, end_points, euler_costs, gits_sigmas, teacher_levels, trajectories
from undiffuse.utils.files import write_atomically
from undiffuse.utils.terminal import Meter, log
from undiffuse.utils.text import duration

LEAST_IMAGES, MOST_IMAGES = 32, 256
"""To search with; as many others are checked with."""

MOST_VALUES = 2**19
"""In a batch of images: 61 times as many are kept at once."""

SEARCHED, CHECKED = 10**9, 2 * 10**9
"""The first seeds of the images that levels are found with, and of those that they are checked with."""

COEFFICIENTS = (1.0, 1.1, 1.2)
"""Of `cheapest_path`: each, with each cost, gives levels to start from."""

STARTS = 1 + 2 * len(COEFFICIENTS)
"""Those, and the levels that are used without tuning."""

MOST_STEPS = 30


def tune(model: Model, sampling: SamplingConfig, folder: Path, minutes: float) -> Outcome:
    """Searches noise levels for the sampler and number of steps of `sampling`, with as many images as `minutes` allow.

    Args:
        sampling: With the noise levels that are used without tuning, which the result is compared with.
        folder: Of what is kept between interruptions.

    Raises:
        ValueError: there are too few or too many steps, or the model was not loaded from a run.
        OSError: the folder cannot be written to.
    """
    if not 2 <= sampling.steps <= MOST_STEPS:
        raise ValueError(f"--steps {sampling.steps} cannot be tuned: choose 2 to {MOST_STEPS}.")
    sampling = on_device(sampling, model.device)
    digest = model.origin[1].digest(model.weights)
    file = folder / f"{sampling.sampler}-{sampling.steps}-{key(digest, sampling)}" / "search.json"
    progress = read_progress(file)
    if progress is not None and progress.found is not None:
        return Outcome(progress.found, again=True)
    if progress is None:
        progress = Progress(_images(model, sampling, minutes))
        write_progress(file, progress)
    search = _Search(model, sampling, folder / f"teacher-{key(digest, _taught_by(sampling))}", file, progress)
    return Outcome(search.run(), again=False)


class _Search:
    """A search with its files and its progress bar."""

    def __init__(self, model: Model, sampling: SamplingConfig, teacher: Path, file: Path, progress: Progress):
        self.model, self.sampling, self.teacher, self.file, self.progress = model, sampling, teacher, file, progress
        self.errors = dict(progress.errors)
        self.memories: dict[int, Memory] = {}
        self.batch = _batch(model)
        self.nfe = SAMPLERS[sampling.sampler].nfe(sampling.steps)
        self.default: Sigmas = tuple(noise_levels(model.diffusion, sampling)[:-1].tolist())

    def run(self) -> TunedSchedule:
        images, done = self.progress.images, 0
        total = 2 * images * (LEVELS - 1) + images * _search_nfe(self.sampling)
        with Meter("tuning", total) as self.meter:
            ends, cost = self._taught(SEARCHED, 0)
            checked, _ = self._taught(CHECKED, images * (LEVELS - 1))
            done = 2 * images * (LEVELS - 1)
            levels = teacher_levels(self.model, self.sampling)
            starts = [
                gits_sigmas(levels, each, self.sampling.steps, coefficient)
                for each in cost
                for coefficient in COEFFICIENTS
            ]
            asked: set[Sigmas] = set()

            def error(sigmas: Sigmas) -> float:
                if sigmas not in self.errors:
                    self.errors[sigmas] = self._error(sigmas, SEARCHED, ends)
                    self.progress = replace(self.progress, errors=tuple(self.errors.items()))
                    write_progress(self.file, self.progress)
                asked.add(sigmas)
                known = [self.errors[each] for each in asked]
                note = f"error {min(known):.4f}, without tuning {self.errors[self.default]:.4f}"
                trials = max(0, len(asked) - STARTS)
                reached = (len(asked) - trials) * self.nfe + trials * (self.nfe + 1) // 2
                self.meter.reach(done + images * reached, note)
                return self.errors[sigmas]

            lowest = float(self.model.diffusion.sigma_range()[0])
            sigmas = refined(error, [self.default, *dict.fromkeys(starts)], lowest)
            errors = [self._error(each, CHECKED, checked) for each in (sigmas, self.default)]
        checkpoint = self.model.origin[1]
        found = TunedSchedule(
            sampling=replace(self.sampling, sigmas=sigmas),
            weights_sha256=checkpoint.digest(self.model.weights),
            images_seen=checkpoint.images,
            measure="pixel error",
            error=errors[0],
            default_error=errors[1],
            images_measured=images,
        )
        write_progress(self.file, replace(self.progress, found=found))
        return found

    def _error(self, sigmas: Sigmas, first: int, ends: Tensor) -> float:
        """The root mean square difference between what the sampler makes along these levels and what many steps do."""
        squares = 0.0
        for i in range(0, len(ends), self.batch):
            seeds = range(first + i, first + i + self.batch)
            memory = self.memories.setdefault(first + i, Memory(2 * self.nfe))
            made = end_points(self.model, self.sampling, sigmas, seeds, memory.wrap(sigmas))
            squares += float((made.cpu().float() - ends[i : i + self.batch]).square().sum(dtype=torch.float64))
        return (squares / ends.numel()) ** 0.5

    def _taught(self, first: int, done: int) -> tuple[Float[Tensor, "b d"], Float[Tensor, "2 n n"]]:
        """Where the many steps lead the seeds from `first` on, and what Euler's steps cost along the way."""
        sigmas, batches = teacher_levels(self.model, self.sampling), []
        for i in range(0, self.progress.images, self.batch):
            file = self.teacher / f"{first + i}.safetensors"

            def show(step: int, before: int = done + i * (LEVELS - 1), i: int = i) -> None:
                self.meter.reach(before + step * self.batch, f"many steps, {i:,}/{self.progress.images:,} images")

            if not file.exists():
                taught = trajectories(self.model, self.sampling, range(first + i, first + i + self.batch), show)
                tensors = {"ends": taught[0][-1].cpu().float().contiguous(), "cost": euler_costs(sigmas, *taught)}
                write_atomically(file, safetensors.torch.save(tensors))
            batches.append(read_tensors(file, "ends", "cost"))
        ends, costs = zip(*batches, strict=True)
        return torch.cat(ends), torch.stack(costs).mean(dim=0)


def _images(model: Model, sampling: SamplingConfig, minutes: float) -> int:
    """How many images can be searched with in so many minutes, by the speed of an evaluation."""
    sigmas = (float(noise_levels(model.diffusion, sampling)[0]),)
    seconds, batch = 0.0, _batch(model)
    for _ in range(2):  # The first one warms up.
        began = time.monotonic()
        end_points(model, replace(sampling, sampler="euler"), sigmas, range(SEARCHED, SEARCHED + batch)).cpu()
        seconds = (time.monotonic() - began) / batch
    each = seconds * (2 * (LEVELS - 1) + _search_nfe(sampling))
    images = max(LEAST_IMAGES, min(MOST_IMAGES, int(60 * minutes / each) // LEAST_IMAGES * LEAST_IMAGES))
    log.info(
        f"{images} images to search with and as many others to check with: at most about {duration(images * each)}."
    )
    return images


def _batch(model: Model) -> int:
    """Images at once, and in a file of the many steps' results: fewer of large ones."""
    values = torch.Size(model.shape).numel()
    return next((size for size in (32, 16, 8) if size * values <= MOST_VALUES), 4)


def _search_nfe(sampling: SamplingConfig) -> int:
    """How often the network sees an image of the search, at most: about half of each trial is remembered."""
    nfe = SAMPLERS[sampling.sampler].nfe(sampling.steps)
    return (STARTS + 2) * nfe + TRIALS * (sampling.steps - 1) * (nfe + 1) // 2


def _taught_by(sampling: SamplingConfig) -> SamplingConfig:
    """What the images of many steps depend on: guidance, clipping and precision, not the sampler that is tuned."""
    kept = comparable(SamplingConfig())
    same = {"guidance": sampling.guidance, "guidance_interval": sampling.guidance_interval}
    return replace(kept, clip=sampling.clip, precision=sampling.precision, **same)
