"""Makes the images of README.md and docs/results.md: always the first seeds, and labels in turn.

.venv/bin/python docs/make_figures.py models             # of the models that come with undiffuse
.venv/bin/python docs/make_figures.py two-guidances      # of the flowers model
.venv/bin/python docs/make_figures.py neighbors          # of the same models, in their training images
.venv/bin/python docs/make_figures.py training runs/flowers32
.venv/bin/python docs/make_figures.py editing            # the edits, of held-out digits
.venv/bin/python docs/make_figures.py image-conditions   # trains two runs of digits first
.venv/bin/python docs/make_figures.py enlarging          # held-out flowers; the run is of benchmarks/editing.py
.venv/bin/python docs/make_figures.py few-steps          # digits and a student of it; docs/few-steps.md trains that
.venv/bin/python docs/make_figures.py nfe-curves         # what compare found, by its command in docs/few-steps.md
make quickstart && .venv/bin/python docs/make_figures.py quickstart
"""

import json
import shutil
import tempfile
from functools import partial
from pathlib import Path

import numpy as np
import PIL.Image
import torch
import tyro
from jaxtyping import UInt8
from matplotlib.axes import Axes
from matplotlib.figure import Figure

import undiffuse
from undiffuse.data.batches import split_held_out
from undiffuse.data.conditioned import conditioned
from undiffuse.data.low_resolution import enlarged
from undiffuse.data.pixels import to_nchw, to_nhwc, to_pixels
from undiffuse.data.store import DataConfig, Store, open_store
from undiffuse.diffusion.inverse_problems import area_downsampling, gaussian_blur
from undiffuse.evaluation.context import EvaluationContext
from undiffuse.evaluation.pages import costs
from undiffuse.evaluation.pages.costs import Point
from undiffuse.evaluation.references import run_references
from undiffuse.features.image_sets import of_gallery
from undiffuse.features.networks import load_features
from undiffuse.metrics.precision_recall import nearest
from undiffuse.report import grids
from undiffuse.report.before_after import Panel, Section, before_after
from undiffuse.report.curves import count_text, smoothed
from undiffuse.report.style import LIGHT, drawn_in, new_figure
from undiffuse.runs.find import shipped_models
from undiffuse.sampling.edits import signed
from undiffuse.sampling.model import Model
from undiffuse.sampling.nfe import nfe
from undiffuse.sampling.options import sampling_config
from undiffuse.utils.randomness import ImageRandomness
from undiffuse.utils.world import World

HERE = Path(__file__).parent
LEVELS = (0.0, 0.2, 0.5, 1.0, 2.5, 20.0)
SHOWN_GUIDANCE = {"flowers": 2.0}
"""Of models whose own guidance is not the one that README shows."""
INK, SOFT, BLUE = "#1c1e21", "#5f6670", "#2f6fde"


def models(names: tuple[str, ...] = (), /, out: Path = HERE) -> None:
    """Grids of seeds 0 to 63 and film strips of seeds 0 to 15.

    Args:
        names: Which of the models; all of them if none is named.
        out: Folder of the images.
    """
    for name in names or shipped_models():
        gallery = undiffuse.sample(name, count=64, guidance=SHOWN_GUIDANCE.get(name), film=True, progress=True)
        for image in ("grid", "film"):
            shutil.copyfile(gallery.folder / f"{image}.png", out / f"{name}-{image}.png")


def two_guidances(name: str = "flowers", out: Path = HERE) -> None:
    """NAME-guidance.png: seeds 0 to 63 with guidance 1 and with guidance 2.

    Args:
        name: A model of classes.
        out: Folder of the image.
    """
    figure = Figure(figsize=(9, 4.8), layout="constrained")
    for axis, guidance in zip(figure.subplots(1, 2), (1.0, 2.0), strict=True):
        gallery = undiffuse.sample(name, count=64, guidance=guidance, progress=True)
        axis.imshow(grids.grid(gallery.pixels(range(64)), columns=8), interpolation="nearest")
        axis.set_title(f"guidance {guidance:g}", fontsize=11, color=INK)
        axis.set_axis_off()
    figure.savefig(out / f"{name}-guidance.png", dpi=110, facecolor="white")


def neighbors(names: tuple[str, ...] = (), /, out: Path = HERE) -> None:
    """NAME-neighbors.png: seeds 0 to 15, and the images nearest to them among those of the training data.

    Args:
        names: Which of the models; all of them if none is named.
        out: Folder of the images.
    """
    world = World.alone()
    networks = {each: load_features(each, None, world.device) for each in ("efficientnet-lite0", "pixels")}
    for name in names or shipped_models():
        gallery = undiffuse.sample(name, count=16, guidance=SHOWN_GUIDANCE.get(name), progress=True)
        fake = of_gallery(gallery, range(16), name, None)
        real = run_references(undiffuse.load(name).origin[0], "auto", None).sets[0]
        rows = {"samples": fake.read(range(16))}
        for what, network in networks.items():
            x, y = (EvaluationContext(network, world, 64).feature_set(images) for images in (fake, real))
            index = nearest(x.features, y.features, world.device).index
            rows[f"nearest in {what}"] = real.read(index.numpy())
        figure = Figure(figsize=(9, 2.4), layout="constrained")
        for axis, (title, images) in zip(figure.subplots(len(rows), 1), rows.items(), strict=True):
            axis.imshow(grids.grid(to_nchw(images), columns=16), interpolation="nearest")
            axis.set_title(title, fontsize=9, color=SOFT, loc="left", pad=2)
            axis.set_axis_off()
        figure.savefig(out / f"{name}-neighbors.png", dpi=130, facecolor="white")


def training(folder: Path, /, out: Path = HERE) -> None:
    """NAME-training.png: the loss of a run against minutes and images, in training and on held-out images.

    Args:
        folder: The run's folder.
        out: Folder of the image.
    """
    lines = [line for line in undiffuse.load(folder).origin[0].log_lines() if line["loss"] is not None]
    measured = [line for line in lines if "held_out_loss" in line]
    with drawn_in(LIGHT):
        figure, (axes,) = new_figure(2.8)
        minutes = np.array([line["seconds"] / 60 for line in lines])
        images = np.array([line["images"] for line in lines])
        axes.plot(minutes, smoothed(np.array([line["loss"] for line in lines])), color="C0", label="training, smoothed")
        points = [(line["seconds"] / 60, line["held_out_loss"]) for line in measured]
        axes.plot(*zip(*points, strict=True), "o", color="C1", label="held out, EMA weights")
        axes.set(xlabel="minutes", ylabel="loss", yscale="log")
        axes.yaxis.set_minor_formatter(lambda value, _: f"{value:g}")
        above = axes.secondary_xaxis(
            "top", functions=(lambda x: np.interp(x, minutes, images), lambda x: np.interp(x, images, minutes))
        )
        above.xaxis.set_major_formatter(lambda value, _: count_text(value))
        above.set_xlabel("images seen")
        axes.legend()
        figure.savefig(out / f"{folder.name}-training.png", dpi=150)


def editing(out: Path = HERE) -> None:
    """editing.png: every edit that a model of gray images can make, of digits that it never trained on.

    Args:
        out: Folder of the images.
    """
    model = undiffuse.load("digits")
    store = open_store(model.config.data)
    _, held_out = split_held_out(len(store), model.config.training.held_out_images)
    of_class = {label: store.read([i])[0] for i, label in zip(held_out, store.labels[held_out], strict=True)}
    small = area_downsampling(model.shape, (4, 4))(signed(to_nchw(of_class[5][None])))
    blurred = gaussian_blur(model.shape, 2.0)(signed(to_nchw(of_class[4][None])))
    mask = np.zeros((*store.size, 1), np.uint8)
    mask[store.size[0] // 2 :] = 255
    with tempfile.TemporaryDirectory() as folder:
        edit = partial(undiffuse.edit, "digits", count=6)
        made = {
            "Inpaint: the lower half is regenerated": edit(
                "inpaint", image=of_class[9], mask=mask, out=f"{folder}/inpaint"
            ),
            "Vary: half of the steps": edit("vary", image=of_class[2], strength=0.5, out=f"{folder}/vary"),
            "Interpolate: from one image to another, by way of their noise": edit(
                "interpolate", image=[of_class[0], of_class[6]], out=f"{folder}/interpolate"
            ),
            "Deblur: a Gaussian of 2 pixels": edit(
                "deblur", image=to_pixels(blurred)[0], blur=2.0, out=f"{folder}/deblur"
            ),
            "Enlarge: from 4x4 to 16x16": edit("enlarge", image=to_pixels(small)[0], out=f"{folder}/enlarge"),
        }
        sections = [edited.section._replace(title=title) for title, edited in made.items()]
    with drawn_in(LIGHT):
        before_after(sections).savefig(out / "editing.png", dpi=110)


def image_conditions(runs: Path = Path("runs"), images: str = "32k", out: Path = HERE) -> None:
    """conditions-images.png: held-out digits, made from 4x4 pixels by one run and from outlines by another.

    Args:
        runs: Folder of the two runs, which are trained unless they are there, and of the outlines.
        images: Each is trained for.
        out: Folder of the images.
    """
    store = open_store(DataConfig(size=(16, 16)))
    _, held_out = split_held_out(len(store), None)
    of_class = {label: i for i, label in zip(held_out, store.labels[held_out], strict=True)}
    (runs / "outlines").mkdir(parents=True, exist_ok=True)
    for name, pixels in zip(store.names, store.read(range(len(store))), strict=True):
        PIL.Image.fromarray(_outline(pixels[:, :, 0])).save(runs / "outlines" / f"{name}.png")
    train = partial(undiffuse.train, "digits", unconditional=True, images=images, progress=True)
    low = train(condition="low-res:4", out=runs / "digits-low-res-4-unconditional")
    drawn = train(condition=runs / "outlines", out=runs / "digits-outlines")
    sections = []
    for title, run, digits in (
        ("train --condition low-res:4, and sample --condition small.png", low, (3, 5)),
        ("train --condition outlines/, and sample --condition outline.png", drawn, (2, 8)),
    ):
        model = undiffuse.load(run)
        whole = conditioned(store, str(run.config.image_condition), run.config.data)
        assert whole.image_condition is not None
        for digit in digits:
            index = [of_class[digit]]
            given, _ = whole.image_condition.given(store.read(index), index)
            made = model.sample(6, condition=given, seed=0).to_torch()
            before = [Panel(to_nchw(given)[0], f"given, {given.shape[1]}x{given.shape[2]}")]
            if whole.image_condition.config.low_res:
                bicubic = to_pixels(enlarged(to_nchw(given), store.size))[0]
                before.append(Panel(bicubic, "bicubic"))
            before.append(Panel(to_nchw(store.read(index))[0], "the image itself"))
            sections.append(Section(title, [], before, [Panel(x, f"seed {i}") for i, x in enumerate(made)]))
            title = ""
    with drawn_in(LIGHT):
        before_after(sections).savefig(out / "conditions-images.png", dpi=110)


def enlarging(run: str = "runs/flowers-low-res-4", flowers: int = 6, out: Path = HERE) -> None:
    """enlarging.png: the first flowers held out, from 8x8 by `edit enlarge` and by a run trained for it.

    Args:
        run: Trained with `--condition low-res:4` on what the flowers model was trained on.
        flowers: How many.
        out: Folder of the image.
    """
    trained = undiffuse.load(run)
    store = open_store(trained.config.data)
    _, held_out = split_held_out(len(store), trained.config.training.held_out_images)
    small_size = store.size[0] // 4, store.size[1] // 4
    operator = area_downsampling(trained.shape, small_size)
    sections = []
    for index in held_out[:flowers]:
        image = to_nchw(store.read([index]))
        small = to_pixels(operator(signed(image)))
        bicubic = to_pixels(enlarged(small, store.size))
        with tempfile.TemporaryDirectory() as folder:
            edited = undiffuse.edit("flowers", "enlarge", image=to_nhwc(small)[0], count=3, out=f"{folder}/enlarged")
        given = to_nhwc(small.expand(3, -1, -1, -1))
        made = trained.sample(3, condition=given, label="none", sampler="euler_ancestral", steps=18).to_torch()
        before = zip((small, bicubic, image), ("given, 8x8", "bicubic", "the photo"), strict=True)
        after = [panel._replace(caption=f"enlarge, {panel.caption}") for panel in edited.section.after]
        after += [Panel(x, f"low-res:4, seed {i}") for i, x in enumerate(made)]
        title = trained.class_names[store.labels[index]]
        sections.append(Section(title, [], [Panel(x[0], caption) for x, caption in before], after))
    with drawn_in(LIGHT):
        before_after(sections).savefig(out / "enlarging.png", dpi=110)


def few_steps(student: str = "runs/digits-student", teacher: str = "digits", count: int = 10, out: Path = HERE) -> None:
    """few-steps-TEACHER.png: the same seeds, by a student and by its teacher.

    Args:
        student: A run that was distilled from the teacher.
        teacher: The run.
        count: Images in each row.
        out: Folder of the image.
    """
    models = {"student": undiffuse.load(student), "teacher": undiffuse.load(teacher)}
    own = models["teacher"].config.sampling
    asked = [("student", 1, 1.0), ("student", 2, 1.0), ("student", 4, 1.0)]
    asked += [("teacher", 1, 1.0), ("teacher", 2, 1.0), ("teacher", 4, 1.0), ("teacher", 10, 1.0)]
    asked.append(("teacher", own.steps, own.guidance))
    figure = Figure(figsize=(1.9 + 0.62 * count, 0.66 * len(asked)))
    grid = {"left": 1.9 / (1.9 + 0.62 * count), "right": 0.995, "top": 0.99, "bottom": 0.01}
    for row, (name, steps, guidance) in zip(
        figure.subplots(len(asked), count, gridspec_kw=grid | {"wspace": 0.05, "hspace": 0.05}), asked, strict=True
    ):
        model = models[name]
        evaluations = nfe(model, sampling_config(model.config, steps=steps, guidance=guidance), [0])
        made = to_nchw(np.asarray(model.sample(count, steps=steps, guidance=guidance)))
        for axis, pixels in zip(row, made, strict=True):
            _show(axis, signed(pixels[None]))
        where = row[0].get_position()
        guided = f", guidance {guidance:g}" if guidance != 1 else ""
        text = f"{name}, NFE {evaluations}{guided}"
        figure.text(where.x0 - 0.012, (where.y0 + where.y1) / 2, text, ha="right", va="center", fontsize=8, color=INK)
    figure.savefig(out / f"few-steps-{Path(teacher).name}.png", dpi=130, facecolor="white")


def nfe_curves(comparison: Path = Path("runs/comparison-flowers/comparison.json"), out: Path = HERE) -> None:
    """few-steps.png: distance against NFE, from what compare found.

    Args:
        comparison: Its comparison.json.
        out: Folder of the image.
    """
    curves: dict[str, list[Point]] = {}
    for entry in json.loads(comparison.read_text())["entries"]:
        tuned = "" if isinstance(entry["sigmas"], str) else ", tuned"
        name = "student" if entry["sampler"] == "consistency" else f"{entry['sampler']}{tuned}"
        found = next(each for each in entry["metrics"] if each["metric"] == "FD-EffNet")
        curves.setdefault(name, []).append(Point(entry["nfe"], found["value"], found["spread"]))
    with drawn_in(LIGHT):
        costs.one({"NFE": curves}, "NFE", "FD-EffNet").savefig(out / "few-steps.png", dpi=150)


def _outline(pixels: UInt8[np.ndarray, "h w"]) -> UInt8[np.ndarray, "h w"]:
    """White where a bright pixel has a dark neighbor."""
    inside = np.pad(pixels >= 128, 1)
    neighbors = [np.roll(inside, shift, axis) for shift in (-1, 1) for axis in (0, 1)]
    return (255 * (inside & ~np.logical_and.reduce(neighbors))[1:-1, 1:-1]).astype(np.uint8)


def quickstart(run: str = "runs/quickstart", out: Path = HERE) -> None:
    """digits.png and how-it-works.png.

    Args:
        run: A run of digits.
        out: Folder of the images.
    """
    model = undiffuse.load(run)
    model.sample(64).save_grid(out / "digits.png", columns=8)
    how_it_works(model, open_store(model.config.data)).savefig(out / "how-it-works.png", dpi=110, facecolor="white")


def how_it_works(model: Model, store: Store) -> Figure:
    """Above: a real image at rising noise levels. Below: a sample's way back down the same levels."""
    figure = Figure(figsize=(9, 4.3))
    columns = len(LEVELS)
    axes = figure.subplots(2, columns, gridspec_kw={"left": 0.03, "right": 0.97, "wspace": 0.12, "hspace": 0.75})
    real = torch.from_numpy(store.read([3])).permute(0, 3, 1, 2) / 127.5 - 1
    eps = ImageRandomness("figure", 0, [0]).normal(*model.shape)
    for axis, sigma in zip(axes[0], LEVELS, strict=True):
        _show(axis, (real + sigma * eps) / (1 + sigma**2) ** 0.5)
        axis.set_title(f"σ = {sigma:g}", fontsize=10, color=SOFT)
    steps = list(model.steps(1, label=3, seed=3))
    for axis, sigma in zip(axes[1], LEVELS, strict=True):
        step = min(steps, key=lambda step: abs(float(torch.log((step.sigma + 0.002) / (sigma + 0.002)))))
        _show(axis, step.x / torch.sqrt(1 + step.sigma**2))
        axis.set_title(f"σ = {float(step.sigma):.2g}", fontsize=10, color=SOFT)
    _arrow(figure, 0.545, "training: add noise of any strength σ to a real image; the network learns to see through it")
    _arrow(
        figure, 0.035, "sampling: start from noise; again and again, ask the network and take a small step", back=True
    )
    return figure


def _show(axis: Axes, x: torch.Tensor) -> None:
    pixels = to_nhwc(to_pixels(x))[0]
    axis.imshow(np.broadcast_to(pixels, (*pixels.shape[:2], 3)), interpolation="nearest")
    axis.set_axis_off()


def _arrow(figure: Figure, y: float, text: str, back: bool = False) -> None:
    ends = ((0.97, y), (0.03, y)) if back else ((0.03, y), (0.97, y))
    axis = figure.add_axes((0, 0, 1, 1), zorder=-1)
    axis.set_axis_off()
    axis.annotate("", xy=ends[1], xytext=ends[0], arrowprops={"arrowstyle": "-|>", "color": BLUE, "lw": 1.6})
    axis.text(0.5, y, f" {text} ", ha="center", va="center", fontsize=10.5, color=INK, backgroundcolor="white")


if __name__ == "__main__":
    tyro.extras.subcommand_cli_from_dict(
        {
            "models": models,
            "two-guidances": two_guidances,
            "neighbors": neighbors,
            "training": training,
            "editing": editing,
            "image-conditions": image_conditions,
            "enlarging": enlarging,
            "few-steps": few_steps,
            "nfe-curves": nfe_curves,
            "quickstart": quickstart,
        }
    )
