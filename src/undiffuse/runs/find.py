"""Finding run folders by what people type. Imports no torch, so that a wrong name is answered at once."""

from pathlib import Path

from undiffuse.utils.parsing import parse_guide, parse_interval

RUNS = Path("runs")

SHIPPED = Path(__file__).parents[1] / "models"
"""Models that come with the package, each a run folder with the EMA of the weights alone."""


def is_run(folder: Path) -> bool:
    return (folder / "config.json").is_file()


def shipped_models() -> list[str]:
    """The names of the models that come with the package."""
    return sorted(path.name for path in SHIPPED.iterdir() if is_run(path)) if SHIPPED.is_dir() else []


def output_folder(run: Path) -> Path:
    """Where what is made with a run goes: into its folder or, for a model of the package, to runs/shipped/."""
    return RUNS / "shipped" / run.name if run.parent == SHIPPED else run


def find_run(name: str | None) -> Path:
    """The run folder for a path, a name under runs/ or that of a model of the package; for None the run in runs/ that
    was trained most recently.

    Raises:
        FileNotFoundError: there is no such run.
    """
    runs = [path for path in RUNS.iterdir() if is_run(path)] if RUNS.is_dir() else []
    if name is None:
        if not runs:
            raise FileNotFoundError(f"There is no run in {RUNS.absolute()}: train one with: undiffuse train")
        return max(runs, key=_last_written)
    for folder in (Path(name).expanduser(), RUNS / name):
        if is_run(folder):
            return folder
    if name in shipped_models():
        return SHIPPED / name
    names = ", ".join(sorted(path.name for path in runs)[:8])
    hint = f"there are {names}" if runs else "train one with: undiffuse train"
    shipped = f"; {', '.join(shipped_models())} come with undiffuse" if shipped_models() else ""
    raise FileNotFoundError(
        f"There is no run at {Path(name).expanduser().absolute()} or in {RUNS.absolute()}: {hint}{shipped}."
    )


def check_guide(guide: str | None, interval: str | None) -> None:
    """Raises FileNotFoundError or ValueError where --guide names no run, or --guidance-interval is none."""
    if guide is not None:
        find_run(parse_guide(guide)[0])
    if interval is not None:
        parse_interval(interval)


def _last_written(folder: Path) -> float:
    log = folder / "log.jsonl"
    return (log if log.exists() else folder).stat().st_mtime
