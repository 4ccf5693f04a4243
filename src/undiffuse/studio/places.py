"""Which runs and images the studio may read: those that it was given, those under runs/, and what was uploaded."""

import hashlib
import shutil
from collections.abc import Sequence
from pathlib import Path

from undiffuse.config import Config
from undiffuse.data.paths import ARCHIVE_SUFFIXES, DATASETS, data_name, folder_name, is_image, source_name
from undiffuse.runs.find import RUNS, SHIPPED, find_run, is_run, shipped_models
from undiffuse.runs.run import Run, open_run
from undiffuse.utils.files import atomic_path

READ_BYTES = 2**20


class Places:
    """Names that visitors choose from, and the folders behind them. What a visitor sends is a name, never a path.

    Example:
        places = Places(["runs/flowers"])
        places.run("flowers").config
    """

    def __init__(self, runs: Sequence[str] = ()):
        """Raises FileNotFoundError if one of the runs does not exist."""
        self.given = {folder.name: folder for folder in (find_run(name).absolute() for name in runs)}
        self.runs_folder = RUNS.absolute()
        self.uploads = self.runs_folder / "uploads"

    def runs(self) -> dict[str, Path]:
        """The folders of all runs by name: the given ones, those under runs/ with the newest first, the shipped."""
        there = [folder for folder in self.runs_folder.glob("*") if is_run(folder)]
        there.sort(key=lambda folder: (folder / "config.json").stat().st_mtime, reverse=True)
        found = {**self.given}
        for folder in [*there, *(SHIPPED / name for name in shipped_models())]:
            found.setdefault(folder.name, folder)
        return found

    def folder(self, name: str) -> Path:
        """The folder of a run.

        Raises:
            ValueError: the studio has no run of that name.
        """
        runs = self.runs()
        if name not in runs:
            raise ValueError(f"The studio has no run {name[:60]!r}: choose one of {', '.join([*runs][:8])}.")
        return runs[name]

    def run(self, name: str) -> Run:
        """The run of that name.

        Raises:
            ValueError: there is none, or its config cannot be read.
        """
        return open_run(self.folder(name))

    def trained(self) -> list[str]:
        """The names of the runs that have a checkpoint and a config that can be read."""
        return [name for name in self.runs() if self._config(name) and self.run(name).checkpoints()]

    def data(self) -> dict[str, str]:
        """Images to look at, by the name that is shown: digits, those of the runs, and what was uploaded."""
        found = {"digits": "digits"}
        for name in self.runs():
            config = self._config(name)
            if config and (config.data.data in DATASETS or Path(config.data.data).exists()):
                found.setdefault(f"{source_name(config.data.data)} (run {name})", config.data.data)
        for path in sorted(self.uploads.glob("*")):
            found[f"{path.name} (uploaded)"] = str(path)
        shown = {}
        for name, data in found.items():  # Once each, under the first name.
            shown.setdefault(data_name(data), name)
        return {name: data for data, name in shown.items()}

    def _config(self, name: str) -> Config | None:
        """The run's config; None for a broken run, which has its own sentence in the list of runs."""
        try:
            return self.run(name).config
        except (ValueError, OSError):
            return None

    def keep(self, files: Sequence[str]) -> Path:
        """Moves what was uploaded to where it stays: one archive, or a folder of the images. Opens none of it.

        Raises:
            ValueError: it is neither one archive nor images.
        """
        paths = [Path(file) for file in files]
        archives = [path for path in paths if path.suffix.lower() in ARCHIVE_SUFFIXES]
        images = [path for path in paths if is_image(path.name)]
        if len(paths) == 1 and archives:
            kept = self.uploads / f"{source_name(paths[0])}-{_digest(paths)}{''.join(_archive_suffixes(paths[0]))}"
            if not kept.exists():
                with atomic_path(kept, durable=False) as temporary:
                    shutil.copyfile(paths[0], temporary)
            return kept
        if not images or len(images) < len(paths):
            raise ValueError("Drop photos, or one .zip or .tar of photos: folders in it become classes.")
        kept = self.uploads / f"photos-{_digest(images)}"
        if not kept.exists():
            with atomic_path(kept, durable=False) as temporary:
                temporary.mkdir(parents=True)
                for i, path in enumerate(images):
                    name = f"{i:05d}-{folder_name(path.stem)}{path.suffix.lower()}"
                    shutil.copyfile(path, temporary / name)
        return kept


def _archive_suffixes(path: Path) -> list[str]:
    return [suffix.lower() for suffix in path.suffixes[-2:] if suffix.lower() in ARCHIVE_SUFFIXES]


def _digest(paths: Sequence[Path]) -> str:
    digest = hashlib.sha256()
    for path in paths:
        with open(path, "rb") as file:
            while block := file.read(READ_BYTES):
                digest.update(block)
    return digest.hexdigest()[:8]
