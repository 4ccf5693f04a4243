"""Finding run folders by what people type; apart from `runs`, to answer a wrong name without loading torch."""

from pathlib import Path

RUNS = Path("runs")


def is_run(folder: Path) -> bool:
    return (folder / "config.json").is_file()


def find_run(name: str | None) -> Path:
    """The run folder that is meant: a path, a name under runs/, or without a name the newest there.

    Raises:
        FileNotFoundError: there is none.
    """
    there = [path for path in RUNS.iterdir() if is_run(path)] if RUNS.is_dir() else []
    if name is None:
        if not there:
            raise FileNotFoundError(f"There is no run in {RUNS.absolute()}: train one with: undiffuse train")
        return max(there, key=_last_written)
    for folder in (Path(name).expanduser(), RUNS / name):
        if is_run(folder):
            return folder
    names = ", ".join(sorted(path.name for path in there)[:8])
    hint = f"there are {names}" if there else "train one with: undiffuse train"
    raise FileNotFoundError(f"There is no run at {Path(name).expanduser().absolute()} or in {RUNS.absolute()}: {hint}.")


def _last_written(folder: Path) -> float:
    log = folder / "log.jsonl"
    return (log if log.exists() else folder).stat().st_mtime
