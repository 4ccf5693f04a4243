"""Finding run folders by what people type. Imports no torch, so that a wrong name is answered at once."""

from pathlib import Path

RUNS = Path("runs")


def is_run(folder: Path) -> bool:
    return (folder / "config.json").is_file()


def find_run(name: str | None) -> Path:
    """The run folder for a path, for a name under runs/, or for None: the one trained most recently in runs/.

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
    names = ", ".join(sorted(path.name for path in runs)[:8])
    hint = f"there are {names}" if runs else "train one with: undiffuse train"
    raise FileNotFoundError(f"There is no run at {Path(name).expanduser().absolute()} or in {RUNS.absolute()}: {hint}.")


def _last_written(folder: Path) -> float:
    log = folder / "log.jsonl"
    return (log if log.exists() else folder).stat().st_mtime
