"""A table beside the images, in a CSV file: for each image, numbers and categories that a network is told of."""

import csv
import hashlib
import io
import math
import re
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from undiffuse.data.columns import (
    MISSING_WORDS,
    NUMBER,
    AttributesConfig,
    CategoryColumn,
    Column,
    NumberColumn,
)
from undiffuse.data.paths import check_table
from undiffuse.utils.terminal import log
from undiffuse.utils.text import plural

FILE_COLUMNS = ("file", "filename", "path", "image")
"""What a column is called that names the images; without one it is the first."""

MOST_COLUMNS = 256
MOST_VALUES = 1000
"""Of a column of words."""

MISTAKES_AMONG = 10
"""A column is one of numbers if at most one in so many of its values is not; these are mistakes."""

NAMED = 5
"""Up to this many bad rows or values are named one by one."""

UNNAMED = re.compile(r"(Unnamed: \d+)?")
"""What pandas calls a column without a name, when it has read it."""


@dataclass(frozen=True)
class Table:
    """What the network is told of each image, in the order of the images."""

    config: AttributesConfig
    numbers: Float[np.ndarray, "n k"]
    """Standardized, float32; NaN where missing."""
    categories: Int[np.ndarray, "n m"]
    """Index of each column's value; -1 where missing."""

    def told(self, indices: Sequence[int] | np.ndarray) -> tuple[Tensor | None, Tensor | None]:
        """The numbers and the categories of the images with these indices; None without such columns."""
        rows = np.asarray(indices)
        parts = (torch.from_numpy(each[rows]) if each.shape[1] else None for each in (self.numbers, self.categories))
        numbers, categories = parts
        return numbers, categories


def read_table(
    path: Path,
    names: Sequence[str],
    skipped: Sequence[str] = (),
    known: AttributesConfig | None = None,
    elsewhere: Callable[[], Sequence[str]] = tuple,
) -> Table:
    """The table in a CSV file, for the images of these names.

    Cells are separated by commas, semicolons or tabs, and the first row names the columns. The column called file,
    filename, path or image, or else the first, names the images: by their paths in the folder or archive, or the last
    parts of them where no two are the same; in datasets and arrays by number, from 0. Other columns without a name are
    left out. A column is of numbers if nine in ten of its values are; others are of words. Empty cells and
    `MISSING_WORDS` are missing.

    Args:
        path: The file.
        names: Of the images, as `Store.names` has them.
        skipped: Names of images that cannot be decoded, whose rows are not mistakes.
        known: The columns of a model that training starts from: numbers of the same name keep their mean and standard
            deviation, so that they mean the same to the network.
        elsewhere: Names of the images in other splits too, whose rows are counted in a notice; called if needed.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is not such a table; bad rows are named.
    """
    cells = _read(path)
    key = next((i for i, name in enumerate(cells.header) if name.lower() in FILE_COLUMNS), 0)
    row_of_image = _matched(cells, key, names, skipped, elsewhere)
    without = int((row_of_image < 0).sum())
    if without == len(names):
        raise ValueError(f"{path.absolute()} has no row for any of the images: column {cells.header[key]} names none.")
    if without:
        log.warning(f"{without:,} of {plural(len(names), 'image')} have no row in {path.name}: all is missing there.")
    columns: list[Column] = []
    numbers, categories, digest = [], [], hashlib.sha256()
    for i in _named(cells, key):
        name, told = cells.header[i], [cells.rows[row][i] if row >= 0 else "" for row in row_of_image]
        if len(set(told) - {""}) < 2:
            log.warning(f"{path.name}: column {name} is left out, since it does not tell one image from another.")
            continue
        column = _numbers(cells, i, told, known) or _words(cells, i, told)
        columns.append(column)
        if isinstance(column, NumberColumn):
            values = np.array([column.encoded(float(text)) if text else math.nan for text in told])
            numbers.append(values)
        else:
            index = {"": -1} | {value: place for place, value in enumerate(column.values)}
            values = np.array([index[text] for text in told])
            categories.append(values)
        digest.update(repr(column).encode() + values.tobytes())
    if not columns:
        raise ValueError(f"{path.absolute()} has no column that tells one image from another: add one.")
    return Table(
        AttributesConfig(tuple(columns), digest.hexdigest(), str(path.absolute())),
        np.stack(numbers, axis=1).astype(np.float32) if numbers else np.empty((len(names), 0), np.float32),
        np.stack(categories, axis=1).astype(np.int64) if categories else np.empty((len(names), 0), np.int64),
    )


@dataclass(frozen=True)
class _Cells:
    """What is in the file; cells of missing values are empty."""

    path: Path
    header: list[str]
    numbers: list[int]
    """Of each row in the file, as spreadsheets count: the header is in row 1."""
    rows: list[list[str]]

    def refuse(self, wrong: Sequence[tuple[int, str]], fix: str) -> None:
        """Raises ValueError if rows are wrong: what is wrong with each, by its place."""
        if wrong:
            named = "; ".join(f"row {self.numbers[row]}: {what}" for row, what in wrong[:NAMED])
            more = f"; and {len(wrong) - NAMED:,} more" if len(wrong) > NAMED else ""
            raise ValueError(f"{self.path.absolute()}: {named}{more}. {fix}")


def _read(path: Path) -> _Cells:
    check_table(path)
    content = path.read_bytes()
    encoding = "utf-16" if content[:2] in (b"\xff\xfe", b"\xfe\xff") else "utf-8-sig"
    try:
        text = content.decode(encoding)
    except UnicodeDecodeError as error:
        raise ValueError(f"{path.absolute()} is not UTF-8 ({error.reason}): save it as CSV in UTF-8.") from error
    try:
        first = text.lstrip().partition("\n")[0]
        delimiter = max(",;\t", key=lambda each: len(next(csv.reader([first], delimiter=each), [])))
        reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
        table = [(i, [cell.strip() for cell in row]) for i, row in enumerate(reader, 1)]
    except csv.Error as error:
        raise ValueError(f"{path.absolute()} is not a CSV file ({error}): save it again as one.") from error
    table = [(i, row) for i, row in table if any(row)]
    header = table[0][1] if table else []
    _check_header(path, header, len(table))
    points = delimiter != ","  # Where commas separate no cells, they may be decimal ones.
    rows = [["" if cell.lower() in MISSING_WORDS else _pointed(cell, points) for cell in row] for _, row in table[1:]]
    cells = _Cells(path, header, [i for i, _ in table[1:]], rows)
    uneven = [(i, plural(len(row), "cell")) for i, row in enumerate(rows) if len(row) != len(header)]
    cells.refuse(uneven, f"Give each row {len(header)}, as the first has.")
    return cells


def _check_header(path: Path, header: list[str], rows: int) -> None:
    if rows < 2 or len(header) < 2:
        raise ValueError(
            f"{path.absolute()} needs a first row with the names of its columns, one for the images and at least one "
            "more, and rows below it."
        )
    if len(header) > MOST_COLUMNS:
        raise ValueError(f"{path.absolute()} has {len(header):,} columns: leave all but {MOST_COLUMNS} out.")
    unfit = [name for name, times in Counter(header).items() if "=" in name or (name and times > 1)]
    if unfit:
        raise ValueError(f"{path.absolute()}: column {unfit[0]} is there twice, or has = in its name: rename it.")


def _pointed(cell: str, commas: bool) -> str:
    """The cell, with a point in a number that has a decimal comma."""
    pointed = cell.replace(",", ".", 1)
    return pointed if commas and NUMBER.fullmatch(pointed) else cell


def _named(cells: _Cells, key: int) -> list[int]:
    """The columns but that of the images; those without a name, as the index of a data frame, are left out."""
    others = [i for i in range(len(cells.header)) if i != key]
    unnamed = [i for i in others if UNNAMED.fullmatch(cells.header[i])]
    filled = [str(i + 1) for i in unnamed if any(row[i] for row in cells.rows)]
    if filled:
        which = " and ".join([", ".join(filled[:-1]), filled[-1]] if len(filled) > 1 else filled)
        has, is_ = ("column", "has no name and is") if len(filled) == 1 else ("columns", "have no name and are")
        log.warning(f"{cells.path.name}: {has} {which} {is_} left out.")
    return [i for i in others if i not in unnamed]


def _matched(
    cells: _Cells, key: int, names: Sequence[str], skipped: Sequence[str], elsewhere: Callable[[], Sequence[str]]
) -> Int[np.ndarray, " n"]:
    """The row of each image; -1 for none."""
    index = _index([*names, *skipped])
    if not skipped and not any(name.isdecimal() or PurePosixPath(name).suffix for name in names):
        index = {str(i): i for i in range(len(names))} | index  # Datasets: these are neither files nor numbers.
    if _normal(cells.header[key]) in index:
        raise ValueError(
            f"{cells.path.absolute()}: row 1 is of an image, {cells.header[key]}: add a row before it, which must name "
            "the columns."
        )
    row_of_image, unknown, wrong = np.full(len(names), -1), [], []
    for row, values in enumerate(cells.rows):
        image = index.get(_normal(values[key]))
        if image is None:
            unknown.append(row)
        elif image < len(names) and row_of_image[image] >= 0:
            wrong.append((row, f"{values[key]} is in row {cells.numbers[row_of_image[image]]} too"))
        elif image < len(names):
            row_of_image[image] = row
    others = _index([*set(elsewhere()).difference(names)]) if unknown else {}
    mistakes = [row for row in unknown if _normal(cells.rows[row][key]) not in others]
    wrong += [(row, f"{cells.rows[row][key] or 'no name'} is not among the images") for row in mistakes]
    examples = ", ".join(names[:2])
    cells.refuse(sorted(wrong), f"Correct or remove these rows. Images are named as in {examples}.")
    if unknown:
        are = "is of an image" if len(unknown) == 1 else "are of images"
        log.info(f"{plural(len(unknown), 'row')} of {cells.path.name} {are} in other splits.")
    return row_of_image


def _index(names: Sequence[str]) -> dict[str, int]:
    """The place of each name, and of the last part of a path that is the last part of no other."""
    last_parts = [PurePosixPath(name).name for name in names]
    times = Counter(last_parts)
    alone = {last: i for i, last in enumerate(last_parts) if times[last] == 1 and not last.isdecimal()}
    return {_normal(name): i for name, i in alone.items()} | {_normal(name): i for i, name in enumerate(names)}


def _normal(name: str) -> str:
    """The same for every way to write a path or a number."""
    path = name.replace("\\", "/").removeprefix("./")
    return str(int(path)) if path.isdecimal() else path


def _numbers(cells: _Cells, i: int, told: list[str], known: AttributesConfig | None) -> NumberColumn | None:
    """The column, if it is one of numbers.

    Raises:
        ValueError: it is, but a few values are not.
    """
    name = cells.header[i]
    texts = [(row, values[i]) for row, values in enumerate(cells.rows) if values[i]]
    wrong = [(row, text) for row, text in texts if not NUMBER.fullmatch(text) or not abs(float(text)) < 1e30]
    if MISTAKES_AMONG * len(wrong) > len(texts):
        if 2 * len(wrong) < len(texts):
            others = list(dict.fromkeys(text for _, text in wrong))
            some = ", ".join(others[:NAMED]) + (", ..." if len(others) > NAMED else "")
            log.warning(
                f"{cells.path.name}: {name} is taken as words: {len(texts) - len(wrong):,} of its {len(texts):,} "
                f"values are numbers, but not {some}."
            )
        return None
    cells.refuse(
        [(row, f"{name} is {text!r}") for row, text in wrong],
        f"Of {len(texts):,} values of {name} all others are numbers: correct these, or leave them empty.",
    )
    values = np.array([float(text) for text in told if text])
    mean, deviation = float(values.mean()), float(values.std())
    for column in known.numbers if known else []:
        if column.name == name:
            mean, deviation = column.mean, column.deviation
    if deviation <= 0:
        raise ValueError(
            f"{cells.path.absolute()}: the values of {name} are too close to each other: remove the column."
        )
    return NumberColumn(name, mean, deviation, float(values.min()), float(values.max()))


def _words(cells: _Cells, i: int, told: list[str]) -> CategoryColumn:
    """Raises ValueError if there are too many different ones."""
    name, values = cells.header[i], sorted({text for text in told if text})
    total = sum(1 for text in told if text)
    if len(values) > MOST_VALUES or (len(values) > 10 and 2 * len(values) > total):
        raise ValueError(
            f"{cells.path.absolute()}: column {name} has {len(values):,} different values in {total:,} images, too "
            "many to learn what each means: remove it, or sort them into fewer."
        )
    return CategoryColumn(name, tuple(values))
