"""Images passed as Python objects: any sequence of images, or of (image, label) pairs."""

import hashlib
import operator
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from threading import Lock
from typing import Any

import numpy as np
import PIL.Image
import torch

from undiffuse.data.paths import UNSORTED, ImageSequence, data_name, printable, source_name
from undiffuse.data.pixels import to_nhwc
from undiffuse.data.source import NO_CLASS, Image, Source
from undiffuse.utils.names import Split
from undiffuse.utils.terminal import track

EXIF_ORIENTATION = 0x0112

FORMS = "PIL images, uint8 arrays (height, width, channels) or uint8 tensors (channels, height, width)"

Label = int | str | None


class WrongType(ValueError):
    """Not a damaged image but a mistake that concerns the whole sequence, which must not be skipped."""


def sequence_source(data: ImageSequence, split: Split = "auto") -> Source:
    """The images of a sequence: anything with a length and items by index, such as a list or a torchvision dataset.

    Each item is an image or a pair (image, label).

    - An image is a PIL image, a uint8 array (height, width) or (height, width, channels), or a uint8 tensor
      (height, width) or (channels, height, width), with 1, 3 or 4 channels. One array (n, height, width, channels) is a
      sequence of n images.
    - A label is an int, a str, or None; -1 is None. Classes are sorted, and named by the sequence's `classes` where it
      has them, as torchvision's datasets do. If only some images have labels, the others are of the class `unsorted`.

    Every item is read once here, for its label and a digest of all pixels, and again when it is decoded, one at a time
    and never by two threads at once. Items must be the same each time: leave random transforms out.

    An item that is not an image, or that raises, is skipped and named when the images are decoded.

    Raises:
        ValueError: there are no images, pixels are not uint8, or labels are of several kinds; `split` is not auto or
            all.
    """
    where = data_name(data)
    if split not in ("auto", "all"):
        raise ValueError(f"{where} has no split {split}: pass the images of that split, and leave split out.")
    _check(data, where)
    lock, width = Lock(), len(str(len(data)))
    labels, reasons, digest = _read_all(data, lock, where)
    class_names, index = _classes([label for i, label in enumerate(labels) if i not in reasons], _known(data), where)

    def images(start: int = 0, stop: int | None = None, /) -> Iterator[Image]:
        for i, label in enumerate(labels[start:stop], start):
            opener = partial(_fail, reasons[i]) if i in reasons else partial(_open, data, i, lock)
            yield Image(f"{i:0{width}}", index.get(label, NO_CLASS), opener)

    return Source(
        name=source_name(data),
        split="all",
        class_names=class_names,
        total_images=len(labels),
        images=images,
        content=lambda: digest,
        where=where,
    )


def to_image(value: Any) -> PIL.Image.Image:
    """A PIL image of its own from any form that an image may have.

    Raises:
        WrongType: pixels are not uint8.
        ValueError: it is not an image.
    """
    if isinstance(value, PIL.Image.Image):
        return value.copy()  # The reader closes it, but the original is the user's.
    if not hasattr(value, "__array__"):  # NumPy's arrays, torch's tensors and those of others.
        raise ValueError(f"it is a {type(value).__name__}, not an image")
    if isinstance(value, torch.Tensor):
        _check_pixels(value.dtype, tuple(value.shape), channels_at=0)
        array = to_nhwc(value[None])[0] if value.ndim == 3 else value.cpu().numpy()
    else:
        array = np.asarray(value)
        _check_pixels(array.dtype, array.shape, channels_at=2)
    return PIL.Image.fromarray(np.ascontiguousarray(array[..., 0] if array.shape[2:] == (1,) else array))


def _check_pixels(dtype: torch.dtype | np.dtype, shape: tuple[int, ...], channels_at: int) -> None:
    if dtype not in (torch.uint8, np.dtype(np.uint8)):
        raise WrongType(
            f"has pixels of type {str(dtype).removeprefix('torch.')}: give uint8 pixels from 0 to 255, without "
            "transforms that turn them into floats"
        )
    fits = len(shape) == 2 or (len(shape) == 3 and shape[channels_at] in (1, 3, 4))
    if not fits or 0 in shape:
        raise ValueError(f"its shape {shape} is not that of an image")


def _check(data: ImageSequence, where: str) -> None:
    if isinstance(data, Mapping) or not isinstance(data, ImageSequence):
        raise ValueError(f"{where} is not a sequence of images: give a list of {FORMS}, or of (image, label) pairs.")
    shape = tuple(getattr(data, "shape", ()))
    if len(shape) == 3 and (shape[0] if isinstance(data, torch.Tensor) else shape[2]) in (1, 3, 4):
        raise ValueError(f"{where} of shape {shape} is one image: put it in a list.")
    if not len(data):
        raise ValueError(f"{where} is empty: give at least one image.")


def _read(data: ImageSequence, i: int, lock: Lock) -> tuple[PIL.Image.Image, Any]:
    with lock:  # A user's dataset need not be safe to read from several threads.
        item = data[i]
        image, label = item if isinstance(item, tuple | list) and len(item) == 2 else (item, None)
        return to_image(image), label


def _open(data: ImageSequence, i: int, lock: Lock) -> PIL.Image.Image:
    return _read(data, i, lock)[0]


def _fail(reason: str) -> PIL.Image.Image:
    raise ValueError(reason)


def _read_all(data: ImageSequence, lock: Lock, where: str) -> tuple[list[Label], dict[int, str], str]:
    """The label of each item, the reasons why some are not images, and a digest of everything."""
    labels: list[Label] = []
    reasons: dict[int, str] = {}
    digest = hashlib.sha256()
    for i in track(range(len(data)), "reading images", len(data)):
        try:
            image, label = _read(data, i, lock)
            pixels = _bytes(image)
        except WrongType as error:
            raise ValueError(f"Item {i} of {where} {error}.") from error
        except Exception as error:  # The user's code may raise anything; one bad item must not end the run.
            reasons[i] = printable(str(error)).strip() or type(error).__name__
            labels.append(None)
            digest.update(b"not an image\n")
            continue
        labels.append(_label(label, i, where))
        digest.update(f"{labels[-1]!r} {len(pixels)}\n".encode() + pixels)
    if len(reasons) == len(labels):
        raise ValueError(f"None of the {len(labels):,} items of {where} is an image (0: {reasons[0]}): give {FORMS}.")
    return labels, reasons, digest.hexdigest()


def _bytes(image: PIL.Image.Image) -> bytes:
    """Everything that the decoder looks at."""
    header = (image.mode, image.size, image.getpalette(), image.info.get("transparency"))
    return f"{header} {image.getexif().get(EXIF_ORIENTATION, 1)}\n".encode() + image.tobytes()


def _label(value: Any, i: int, where: str) -> Label:
    if value is None or isinstance(value, str):
        return None if value is None else str(value)
    try:
        number = operator.index(value)
    except TypeError as error:
        raise ValueError(
            f"The label of item {i} of {where} is a {type(value).__name__}: give an int, a str or None."
        ) from error
    return None if number == NO_CLASS else int(number)


def _known(data: object) -> tuple[str, ...]:
    """The names of the classes as torchvision's datasets have them, also inside a torch.utils.data.Subset."""
    names = getattr(data, "classes", None) or getattr(getattr(data, "dataset", None), "classes", None)
    if not isinstance(names, Sequence) or isinstance(names, str):
        return ()
    # ImageNet has several names for each class.
    return tuple(printable(", ".join(map(str, name)) if isinstance(name, tuple) else str(name)) for name in names)


def _classes(labels: Sequence[Label], known: tuple[str, ...], where: str) -> tuple[tuple[str, ...], dict[Label, int]]:
    """The names of the classes, and the class index of each label."""
    numbers = sorted({label for label in labels if isinstance(label, int)})
    texts = sorted({label for label in labels if isinstance(label, str)})
    if numbers and texts:
        raise ValueError(f"Some labels of {where} are int and others str: give labels of one type.")
    values: Sequence[Label] = numbers or texts
    names = tuple(printable(str(value)) for value in values)
    if numbers and known:
        for number in (numbers[0], numbers[-1]):
            if not 0 <= number < len(known):
                raise ValueError(f"The label {number} in {where} is not one of its {len(known)} classes, 0 and up.")
        values, names = range(len(known)), known
    elif texts and set(texts) <= set(known):
        values, names = known, known
    index: dict[Label, int] = {value: i for i, value in enumerate(values)}
    if index and None in labels:
        names = names if UNSORTED in names else (*names, UNSORTED)
        index[None] = names.index(UNSORTED)
    return (names, index) if len(names) > 1 else ((), {})
