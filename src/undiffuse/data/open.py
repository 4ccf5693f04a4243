"""From what `--data` names, or Python passes, to a Source."""

from dataclasses import replace
from pathlib import Path

from undiffuse.data.paths import DATASETS, DataLike, check_data, is_remote, source_name
from undiffuse.data.readers import builtin
from undiffuse.data.readers.archive import archive_signature, archive_source
from undiffuse.data.readers.arrays import array_source, is_array_file
from undiffuse.data.readers.folder import folder_signature, folder_source
from undiffuse.data.readers.sequence import sequence_source
from undiffuse.data.remote import find_remote
from undiffuse.data.source import Source
from undiffuse.utils.names import Split


def quick_signature(data: DataLike) -> str | None:
    """A digest that changes when the images do, in about a second for any archive or 100,000 files in a folder.

    None where opening takes no longer, or fails and says why. See `folder_signature`, `archive_signature` and
    `Remote.signature` for what it cannot see.

    Raises:
        FileNotFoundError, ValueError: see `find_remote`.
    """
    check_data(data)
    if not isinstance(data, str | Path) or str(data) in DATASETS:
        return None
    if is_remote(data):
        return find_remote(data).signature()
    path = Path(data).expanduser().absolute()
    try:
        return folder_signature(path) if path.is_dir() else archive_signature(path)
    except (OSError, ValueError):
        return None


def open_source(data: DataLike, data_root: str | Path | None = None, split: Split = "auto") -> Source:
    """Opens `digits`, `cifar10`, `flowers102`, a folder, a .zip or .tar of images, an .npy or .npz
    file, or a sequence of images.

    A folder or archive may also be elsewhere, as in s3://bucket/photos.tar: see `data.remote`.

    Args:
        data: What to open. A sequence holds images or (image, label) pairs: see `sequence_source`.
        data_root: Where cifar10 and flowers102 are, or are downloaded to; the folder data/ by default.
        split: Part of the data. `auto` takes train where there are splits, and all of flowers102.

    Raises:
        FileNotFoundError: there is nothing at that path, or a dataset is not on this machine and cannot be downloaded.
        ValueError: there are no images or no such split, or an archive cannot be read.
    """
    if not isinstance(data, str | Path):
        return sequence_source(data, split)
    check_data(data)
    if str(data) in DATASETS:
        return getattr(builtin, str(data))(Path(data_root or "data").expanduser(), split)
    path = find_remote(data).fetch() if is_remote(data) else Path(data).expanduser()
    if is_array_file(path) and not path.is_dir():
        source = array_source(path, split)
    else:
        source = folder_source(path, split) if path.is_dir() else archive_source(path, split)
    return replace(source, name=source_name(data), where=data) if is_remote(data) else source
