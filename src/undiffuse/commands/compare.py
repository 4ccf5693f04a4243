"""undiffuse compare"""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import tyro

from undiffuse.commands import asked, values
from undiffuse.commands.evaluate import weights_file
from undiffuse.commands.options import unless_given
from undiffuse.runs.find import find_run
from undiffuse.utils.names import FeaturesName, SamplerName, Split
from undiffuse.utils.terminal import log

if TYPE_CHECKING:
    from undiffuse.evaluation.compare import Contestant
    from undiffuse.evaluation.evaluate import Work
    from undiffuse.runs.run import Run

DEFAULT_COUNT = "1000"


def compare(
    runs: Annotated[tuple[str, ...], tyro.conf.Positional, unless_given("the newest", metavar="RUN")] = (),
    samplers: Annotated[tuple[SamplerName, ...], unless_given("each run's")] = (),
    steps: Annotated[tuple[int, ...], unless_given("each run's")] = (),
    count: str = DEFAULT_COUNT,
    real_count: Annotated[str | None, unless_given("all")] = None,
    features: FeaturesName = "inception",
    weights: Annotated[str | None, unless_given("the published ones, downloaded", metavar="FILE")] = None,
    split: Split = "auto",
    guidance: Annotated[float | None, unless_given("each run's")] = None,
    seed: int = 0,
    batch: int = 64,
    out: str = "runs/comparison",
) -> None:
    """Measure several runs, or several samplers and numbers of steps of a run: one table, one page, at equal N.

    For example: undiffuse compare RUN --samplers ddim heun ipndm --steps 5 10 20

    Args:
        runs: Run folders, or their names under runs/.
        samplers: Each run is sampled with each of these.
        steps: And each of them with each of these.
        count: Samples of each, of the same seeds.
        real_count: How many real images, drawn at random.
        features: As in undiffuse evaluate.
        weights: The feature network's.
        split: Part of the real images. auto: what the runs were trained on.
        guidance: 1 follows the label as trained.
        seed: Of the first sample.
        batch: Images at once; changes speed and memory only.
        out: Folder for comparison.html and comparison.json.
    """
    total = values.count(count, "--count")
    real_total = values.count(real_count, "--real-count") if real_count else None
    asked.at_least(1, batch=batch)
    asked.at_least(0, seed=seed)
    folders = list({find_run(name).resolve(): find_run(name) for name in runs or (None,)}.values())
    file = weights_file(features, weights)
    target = asked.output(Path(out))

    from undiffuse.evaluation import compare as comparing
    from undiffuse.evaluation.evaluate import Work, load_net, references
    from undiffuse.features.cache import Share
    from undiffuse.runs.run import open_run
    from undiffuse.utils.world import init_distributed

    with init_distributed() as world:
        work = Work(batch, Share(world.rank, world.size, world.barrier), world.device)
        opened = [open_run(folder) for folder in folders]
        comparing.check_same_data(opened)
        asked.outside(target, opened[0].config.data.data)
        names = [run.name for run in opened]
        labels = [name if names.count(name) == 1 else str(run.folder) for name, run in zip(names, opened, strict=True)]
        contestants = [
            each
            for label, run in zip(labels, opened, strict=True)
            for each in _contestants(run, label, samplers, steps, guidance, work)
        ]
        net = load_net(features, file, weights is not None, world.device)
        real = references(opened[0], split, real_total).sets[0]
        seeds = range(seed, seed + total)
        measured = comparing.compare(net, contestants, real, seeds, target, work)
        for each in measured:
            found = " ".join(
                f"{metric} {value:.4g}"
                for metric in comparing.metrics_of(net)
                if (value := each.value(metric)) is not None
            )
            log.info(f"{each.contestant.name}, {each.contestant.how.steps} steps: {found}")
        log.info(f"Open {(target / 'comparison.html').absolute()}")


def _contestants(
    run: "Run",
    label: str,
    samplers: tuple[SamplerName, ...],
    steps: tuple[int, ...],
    guidance: float | None,
    work: "Work",
) -> list["Contestant"]:
    """The run, sampled in each of the ways."""
    from undiffuse.evaluation.compare import Contestant
    from undiffuse.sampling.model import load_model

    ways = [
        asked.sampling(run.config, sampler, number, guidance)
        for sampler in samplers or (None,)
        for number in steps or (None,)
    ]
    model, checkpoint = load_model(run, work.device, "average")
    return [Contestant(run, label, model, checkpoint, how) for how in dict.fromkeys(ways)]
