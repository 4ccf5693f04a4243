"""A trained model: the denoiser, the samplers' steps, and images from seeds."""

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from undiffuse.config import Config, SamplingConfig
from undiffuse.data.given_images import GivenLike
from undiffuse.data.pixels import to_pixels
from undiffuse.diffusion import samplers
from undiffuse.diffusion.denoiser import Predict, clipped, predictor
from undiffuse.diffusion.guidance import ALWAYS, guided
from undiffuse.diffusion.recipe import DiffusionConfig
from undiffuse.diffusion.samplers import Step
from undiffuse.report.grids import Images
from undiffuse.runs.run import Checkpoint, Run
from undiffuse.sampling.attributes import Attributes, conditions_of
from undiffuse.sampling.binding import bound_sampler, in_precision, without_gradients
from undiffuse.sampling.conditions import conditions_for, find_labels, stated_for
from undiffuse.sampling.given import find_given, with_given
from undiffuse.sampling.guides import check_can_guide
from undiffuse.sampling.labels import Label, Pattern, label_tensor
from undiffuse.sampling.options import (
    Settings,
    as_settings,
    asks_guidance,
    noise_levels,
    sampling_config,
    with_acting_guidance,
)
from undiffuse.sampling.tuned import with_tuned
from undiffuse.utils.conditions import Condition, Conditions, as_conditions, says_something, simplest
from undiffuse.utils.device import state_dtype, upload
from undiffuse.utils.names import SamplingPrecision
from undiffuse.utils.randomness import ImageRandomness
from undiffuse.utils.terminal import Meter, speaking
from undiffuse.utils.text import in_batches

Wrap = Callable[[Predict], Predict]
"""Steers a model in sampling."""


@dataclass(frozen=True)
class Model:
    """A model that was trained, ready to denoise and to sample. `undiffuse.load` opens one."""

    predict: Predict
    """All that the network predicts: see `diffusion.denoiser`."""
    config: Config
    device: torch.device
    network: nn.Module | None = None
    run: Run | None = None
    """Where it was loaded from."""
    checkpoint: Checkpoint | None = None
    weights: str = "ema"
    """Which of the checkpoint's weights: ema, or network for those that are being trained."""
    guide: "Model | None" = None
    """The weaker model that guides it (autoguidance); None: it guides itself, without the label."""

    @property
    def diffusion(self) -> DiffusionConfig:
        return self.config.diffusion

    @property
    def class_names(self) -> tuple[str, ...]:
        return self.config.class_names

    @property
    def origin(self) -> tuple[Run, Checkpoint]:
        """The run and the checkpoint that it was loaded from.

        Raises:
            ValueError: it was not loaded from a run.
        """
        if self.run is None or self.checkpoint is None:
            raise ValueError("This model was not loaded from a run: give the run.")
        return self.run, self.checkpoint

    @property
    def shape(self) -> tuple[int, int, int]:
        """(channels, height, width) of an image."""
        return self.config.network.image_channels, *self.config.network.size

    def denoise(
        self,
        x: Float[Tensor, "b c h w"] | Float[np.ndarray, "b c h w"],
        sigma: float | Tensor | np.ndarray,
        label: Label | Sequence[Label] | Tensor | None = None,
        attributes: Attributes = (),
        condition: GivenLike | None = None,
    ) -> Float[Tensor, "b c h w"]:
        """D(x; sigma, label): the expected clean image behind x = x0 + sigma * eps, pixels in [-1, 1].

        The one function that samplers need. Gradients flow through it.

        Args:
            x: Noisy images.
            sigma: Noise levels above 0, one for all or `(b,)`.
            label: A class by name or index, one for all or one each; "none" or None for no label (in `sample`, None
                takes every class in turn).
            attributes: As in `sample`.
            condition: As in `sample`; None for no other image.

        Raises:
            ValueError: the model has no such class or attribute, or cannot be told of other images.

        Example:
            x = torch.randn(4, *model.shape) * 10
            x0 = model.denoise(x, 10.0, label=3)
        """
        noisy = torch.as_tensor(x)
        noisy = noisy.to(self.device, state_dtype(self.device) if noisy.dtype == torch.float64 else noisy.dtype)
        sigmas = torch.as_tensor(sigma, dtype=noisy.dtype, device=self.device).expand(len(noisy))
        labels = label_tensor(self.class_names, label, len(noisy))
        images = range(len(noisy))
        stated = stated_for(self.config, attributes, images)
        told = conditions_of(self.config, None if labels is None else labels.tolist(), stated, images)
        given = None if condition is None else find_given(self.config, condition)
        told = as_conditions(with_given(told, given, self.shape, images))
        return self.predict(noisy, sigmas, simplest(told.map(lambda each: each.to(self.device)))).x0

    def steps(
        self,
        count: int = 1,
        *,
        label: Label | Sequence[Label] | Tensor | None = None,
        attributes: Attributes = (),
        guidance: float | None = None,
        guidance_interval: str | tuple[float, float] | None = None,
        sampler: str | None = None,
        steps: int | None = None,
        precision: SamplingPrecision | None = None,
        set: Settings = (),
        seed: int = 0,
        condition: GivenLike | None = None,
    ) -> Iterator[Step]:
        """Samples `count` images at once and yields sigma, x and x0, `(count, channels, height, width)`, at every step.

        The options are those of `sample`. The last step's x is the sample, in [-1, 1] up to what the model overshoots.

        Example:
            for step in model.steps(8, sampler="heun", steps=18):
                print(f"{step.sigma:.3f}")
        """
        _check_seeds(count, seed)
        given = sampler, steps, guidance, precision, as_settings(set), guidance_interval
        sampling = sampling_config(self.config, *given, guide=self.guide is not None)
        seeds = range(seed, seed + count)
        told = self.told(seeds, label, attributes, condition)
        asked = asks_guidance(guidance, guidance_interval, as_settings(set))
        return sample_steps(self, seeds, told, self.tuned(self._guided_as_told(sampling, told, asked)))

    def sample(
        self,
        count: int = 1,
        *,
        label: Label | Sequence[Label] | Tensor | None = None,
        attributes: Attributes = (),
        guidance: float | None = None,
        guidance_interval: str | tuple[float, float] | None = None,
        sampler: str | None = None,
        steps: int | None = None,
        precision: SamplingPrecision | None = None,
        set: Settings = (),
        seed: int = 0,
        batch: int = 64,
        condition: GivenLike | None = None,
        progress: bool = False,
    ) -> Images:
        """Makes images, uint8 of shape `(count, height, width, channels)`.

        An image depends on its seed and the options alone, not on `count` or `batch`.

        Args:
            count: How many; at least 1.
            label: A class by name or index, or "none"; a mix that seeds take in turn, such as "rose*4,sunflower*2"; a
                sequence with one for each image; None or "all" takes every class in turn.
            attributes: Of a model trained with a table, such as {"age": 30, "smile": "yes"}; a list has one value for
                each image, and "20*3,30" those that seeds take in turn. What is not stated is missing.
            guidance: 1 follows the label and attributes as trained; more exaggerates them. None: the run's.
            guidance_interval: Guidance acts at noise levels above the first and up to the second, as in (0.28, 1.6).
            sampler: See `undiffuse sample --help`; None: the run's.
            steps: At least 1; None: the run's. Below 100, ipndm replaces a run's ancestral or ddim. Noise levels that
                `tune_sampler` found for so many steps are used; `set={"sigmas": "karras"}` takes Karras et al.'s.
            precision: Of the network's convolutions and matrix products: fp32; tf32, which GPUs from Ampere on have
                and which is fp32 elsewhere; bf16, about twice as fast where the hardware has it; or auto, which is bf16
                there and fp32 elsewhere. None: the run's.
            set: Further options, such as {"eta": 0.5}.
            seed: Of the first image, from 0; the others count up from it.
            batch: Images at once.
            condition: The images that a model makes others from: a file, or a folder, which seeds take in turn; an
                array `(n, height, width, channels)` or a list, the first for the first image and so on, over and
                over; small ones for a model that enlarges. "none" makes images without.
            progress: Shows a progress bar.

        Raises:
            ValueError: an option is out of range, or the model cannot do it.

        Example:
            model.sample(8, label="rose", seed=0).save_grid("roses.png")
        """
        _check_seeds(count, seed, batch)
        given = sampler, steps, guidance, precision, as_settings(set), guidance_interval
        sampling = sampling_config(self.config, *given, guide=self.guide is not None)
        seeds, chunks = range(seed, seed + count), []
        told = as_conditions(self.told(seeds, label, attributes, condition))
        asked = asks_guidance(guidance, guidance_interval, as_settings(set))
        sampling = self.tuned(self._guided_as_told(sampling, told, asked))
        with speaking(progress), Meter("sampling", count * sampling.steps) as meter:
            for start in range(0, count, batch):
                chunk, part = seeds[start : start + batch], slice(start, start + batch)

                def show(step: int, start: int = start, size: int = len(chunk)) -> None:
                    note = in_batches(start, size, count, step, sampling.steps)
                    meter.reach(start * sampling.steps + step * size, note)

                chunk_told = told.map(lambda each, part=part: each[part])
                steps_taken = sample_steps(self, chunk, simplest(chunk_told), sampling)
                chunks.append(to_pixels(last(watched(steps_taken, show)).x))
        return Images(torch.cat(chunks))

    def told(
        self,
        seeds: Sequence[int],
        label: Label | Sequence[Label] | Tensor | None = None,
        attributes: Attributes = (),
        condition: GivenLike | None = None,
    ) -> Condition:
        """All that the network is told of the images of these seeds, where `sample` gets these options.

        Raises:
            ValueError: an option is out of range, or the model cannot be told that.
        """
        return conditions_for(self.config, seeds, label, attributes, condition)

    def _guided_as_told(self, sampling: SamplingConfig, told: Condition, asked: bool) -> SamplingConfig:
        acts = not self.config.is_conditional or self.guide is not None or says_something(told)
        return with_acting_guidance(sampling, acts, asked)

    def find_labels(self, label: Label | None) -> Pattern | None:
        """The labels that seeds take in turn; None for every class.

        Without `label` that is every class or, where the model makes images from others, of unknown class, none.

        Raises:
            ValueError: the model has no such class, or never saw an image without its label.
        """
        return find_labels(self.config, label)

    def guided_by(self, guide: "Model") -> "Model":
        """The same model with a weaker one as its guide (Karras et al. 2024a): an earlier checkpoint, or a smaller run.

        Raises:
            ValueError: the guide makes other images, or has other classes or conditions.

        Example:
            model.guided_by(undiffuse.load("runs/small")).sample(8, guidance=2)
        """
        check_can_guide(guide.config, self.config, f"{guide.name} cannot guide {self.name}")
        if self.run is not None and guide.run is not None and _digest(guide) == _digest(self):
            kept = ", ".join(f"{each.images:,}" for each in self.run.checkpoints())
            raise ValueError(
                f"The guide is the model itself, which changes nothing: give a weaker one. {self.run.name} has "
                f"checkpoints after {kept} images; --keep keeps more of them in training."
            )
        return replace(self, guide=guide)

    def tuned(self, sampling: SamplingConfig) -> SamplingConfig:
        """The options with the noise levels that `tune_sampler` found for them, where there are any.

        Raises:
            ValueError: sigmas is "tuned" and there are none, or the run's file of them is damaged.
        """
        if self.run is None or self.checkpoint is None:
            return sampling
        return with_tuned(sampling, self.run, self.checkpoint, self.weights, self.guide is not None)

    @property
    def name(self) -> str:
        """Its run's, for messages."""
        return "A model of no run" if self.run is None else self.run.name

    def __repr__(self) -> str:
        c, height, width = self.shape
        where = f" of {self.run.folder}" if self.run else ""
        seen = f", {self.checkpoint.images:,} images seen" if self.checkpoint else ""
        classes = f", {len(self.class_names)} classes" if self.class_names else ""
        return f"Model{where}: {height}x{width}, {c} channels{classes}{seen}, {self.weights} weights on {self.device}"


def _digest(model: Model) -> str:
    _, checkpoint = model.origin
    return checkpoint.digest(model.weights)


def model_of(network: nn.Module, config: Config, device: torch.device) -> Model:
    """The model around a network that is on `device` already."""
    return Model(predictor(network, config.diffusion.make_parametrization()), config, device, network)


def sample_steps(
    model: Model,
    seeds: Sequence[int],
    told: Condition | Sequence[int],
    sampling: SamplingConfig,
    wrap: Wrap = lambda predict: predict,
) -> Iterator[Step]:
    """The steps of one batch, one image per seed. An image depends on its seed and condition alone, not on the batch.

    `told` are labels, or all that the model is told. `wrap` steers the model, guidance included: see
    `diffusion.inverse_problems`.

    Raises:
        ValueError: the number of steps does not fit the model's discrete schedule.
    """
    return sampler_steps(model, sampling, seeded_noise(model, seeds), told, wrap)


def seeded_noise(model: Model, seeds: Sequence[int]) -> samplers.Noise:
    """Unit normal noise for a batch, one image per seed, new at each call: first what sampling starts from."""
    # One generator an image, on the CPU: the same seed is the same noise on every device.
    randomness = ImageRandomness("sampling", 0, seeds)
    return lambda: upload(randomness.normal(*model.shape), model.device)


def sampler_steps(
    model: Model,
    sampling: SamplingConfig,
    noise: samplers.Noise,
    told: Condition | Sequence[int],
    wrap: Wrap = lambda predict: predict,
) -> Iterator[Step]:
    """The steps that begin with the first `noise`; samplers that add noise take the others.

    Raises:
        ValueError: the number of steps does not fit the model's discrete schedule.
    """
    sigmas = noise_levels(model.diffusion, sampling).to(state_dtype(model.device))
    start = samplers.starting_noise(noise(), sigmas[0])
    return steps_from(model, start, sigmas, told, sampling, noise, wrap)


def steps_from(
    model: Model,
    x: Float[Tensor, "b c h w"],
    sigmas: Float[Tensor, " n"],
    told: Condition | Sequence[int],
    sampling: SamplingConfig,
    noise: samplers.Noise,
    wrap: Wrap = lambda predict: predict,
) -> Iterator[Step]:
    """The steps of the sampler from any x at level `sigmas[0]` along these sigmas, wherever they lead."""
    conditions = as_conditions(told)
    predict = wrap(_guided(model, sampling, conditions))
    condition = simplest(conditions.map(lambda each: upload(each, model.device)))
    sampler = bound_sampler(model.diffusion, sampling, noise)
    sigmas = sigmas.to(state_dtype(model.device))
    return without_gradients(sampler(clipped(predict) if sampling.clip else predict, x, sigmas, condition))


def _guided(model: Model, sampling: SamplingConfig, told: Conditions) -> Predict:
    predict, interval = (
        in_precision(model.predict, model.device, sampling.precision),
        sampling.guidance_interval or ALWAYS,
    )
    if model.guide is None:
        # Told nothing, the network would be guided by itself.
        return guided(predict, sampling.guidance, interval=interval) if says_something(told) else predict
    weaker = in_precision(model.guide.predict, model.device, sampling.precision)
    told_too = model.guide.config.is_conditional
    guide = weaker if told_too else lambda x, sigma, label: weaker(x, sigma, None)
    return guided(predict, sampling.guidance, guide, interval)


def watched(steps: Iterator[Step], show: Callable[[int], object]) -> Iterator[Step]:
    """Passes the steps on and calls `show` with the number of each, from 1."""
    for i, step in enumerate(steps, 1):
        show(i)
        yield step


def last(steps: Iterator[Step]) -> Step:
    """The last step, whose x is the sample; the others are not kept."""
    return deque(steps, maxlen=1)[0]


def _check_seeds(count: int, seed: int, batch: int = 1) -> None:
    """Raises ValueError where there is nothing to sample."""
    if min(count, batch) < 1 or seed < 0:
        raise ValueError(f"count {count}, batch {batch}, seed {seed}: give at least 1, 1 and 0.")
