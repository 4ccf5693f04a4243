"""Makes the images of README.md and docs/results.md: always the first seeds, and labels in turn.

.venv/bin/python docs/make_figures.py models             # of the models that come with undiffuse
make quickstart && .venv/bin/python docs/make_figures.py quickstart
"""

import shutil
from pathlib import Path

import numpy as np
import torch
import tyro
from matplotlib.axes import Axes
from matplotlib.figure import Figure

import undiffuse
from undiffuse.data.store import Store, open_store
from undiffuse.runs.find import shipped_models
from undiffuse.sampling.model import Model
from undiffuse.utils.randomness import ImageRandomness

HERE = Path(__file__).parent
LEVELS = (0.0, 0.2, 0.5, 1.0, 2.5, 20.0)
INK, SOFT, BLUE = "#1c1e21", "#5f6670", "#2f6fde"


def models(names: tuple[str, ...] = (), /, out: Path = HERE) -> None:
    """Grids of seeds 0 to 63 and film strips of seeds 0 to 15.

    Args:
        names: Which of the models; all of them if none is named.
        out: Folder of the images.
    """
    for name in names or shipped_models():
        gallery = undiffuse.sample(name, count=64, film=True, progress=True)
        for image in ("grid", "film"):
            shutil.copyfile(gallery.folder / f"{image}.png", out / f"{name}-{image}.png")


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
    axis.imshow(np.clip(x[0, 0].numpy(), -1, 1), cmap="gray", vmin=-1, vmax=1, interpolation="nearest")
    axis.set_axis_off()


def _arrow(figure: Figure, y: float, text: str, back: bool = False) -> None:
    ends = ((0.97, y), (0.03, y)) if back else ((0.03, y), (0.97, y))
    axis = figure.add_axes((0, 0, 1, 1), zorder=-1)
    axis.set_axis_off()
    axis.annotate("", xy=ends[1], xytext=ends[0], arrowprops={"arrowstyle": "-|>", "color": BLUE, "lw": 1.6})
    axis.text(0.5, y, f" {text} ", ha="center", va="center", fontsize=10.5, color=INK, backgroundcolor="white")


if __name__ == "__main__":
    tyro.extras.subcommand_cli_from_dict({"models": models, "quickstart": quickstart})
