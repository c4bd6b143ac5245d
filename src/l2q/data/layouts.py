"""What a folder of data holds: ids of LightGCN, a train and a test table, or neither."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from l2q.data.lightgcn import FILES, Lines, read_lines, validation
from l2q.errors import L2QError

TABLES = (
    "csv",
    "tsv",
    "txt",
    "dat",
    "data",
    "inter",
    "json",
    "jsonl",
    "ndjson",
    "parquet",
    "feather",
    "arrow",
)
PACKED = ("gz", "zip", "zst", "bz2", "xz")
PARTS = {
    "train": ("train", "training", "base"),  # u1.base, u1.test: MovieLens
    "test": ("test", "testing"),
    "validation": ("valid", "validation", "val", "dev"),
}
SAMPLED = 2000
"""Lines that are looked at to tell events from lists of items."""
MOST_RATINGS = 20
"""At most so many values do ratings have."""
FIRST_MOMENT = 10**8
"""Numbers from here on, 1973 in seconds, are times."""
FORCE = "dataset.user=1 dataset.item=2 reads them as events"


class Pair(NamedTuple):
    """Two tables of events, paths or patterns: a split that is made already. ``options`` of the reader that their form
    asks for; files of a validation part beside them are ``unused``."""

    train: str
    test: str
    options: dict[str, Any]
    unused: list[str]


def pair(folder: Path, forced: bool = False) -> Pair | None:
    """The train and the test table of a folder; None where it holds ids of LightGCN, or something else.

    ``train.txt`` and ``test.txt`` are a pair where their lines are events, ``user item rating``, and not ``user item
    item ...``; ``forced`` says that they are. Raises L2QError where they may be either, and for several pairs.
    """
    if all((folder / file).is_file() for file in FILES):
        options = {"user": 1, "item": 2} if forced else events(folder)
        if options is None:
            return None
        return Pair(str(folder / FILES[0]), str(folder / FILES[1]), options, validation(folder))
    found: dict[tuple[str, ...], dict[str, str]] = {}
    for path in sorted(folder.iterdir()):
        name = re.sub(r"-\d{5}-of-\d{5}\b", "-*-of-*", path.name)  # shards of one table
        words = re.split(r"([._\- ])", name)
        for place, word in enumerate(words):
            part = next((part for part, known in PARTS.items() if word.lower() in known), None)
            if part and (path.is_dir() or place == len(words) - 1 or _ending(name) in TABLES):
                key = (*words[:place], "", *words[place + 1 :])
                found.setdefault(key, {})[part] = str(folder / name)
                break
    whole = [parts for parts in found.values() if {"train", "test"} <= parts.keys()]
    if len(whole) > 1:
        listed = ", ".join(f"{Path(parts['train']).name} with {Path(parts['test']).name}" for parts in whole)
        raise L2QError(
            f"{folder} has several train and test tables: {listed}; put one pair into a folder of its own"
        )
    for parts in whole:
        unused = [Path(parts["validation"]).name] if "validation" in parts else []
        return Pair(parts["train"], parts["test"], {}, unused)
    return None


def events(folder: Path) -> dict[str, Any] | None:
    """What ``train.txt`` and ``test.txt`` ask of a reader of events; None where they are read line by line, as lists
    of items. Raises L2QError where they may be either."""
    kinds = [_kind(folder / file) for file in FILES]
    if kinds[0] is None and isinstance(kinds[1], dict) and _lines(folder / FILES[1]) is not None:
        raise L2QError(
            f"{folder / FILES[1]} has several lines of the same user, all of one length, and {FILES[0]} has not: are "
            f"they events? {FORCE}"
        )
    return kinds[0]


def _kind(path: Path) -> dict[str, Any] | None:
    lines = _lines(path)
    if lines is not None:
        return _of_numbers(path, lines)
    with path.open("rb") as file:
        sample = [line for _, line in zip(range(SAMPLED), file, strict=False)]
    texts = [line.decode("latin-1").strip("\r\n\ufeff") for line in sample if line.strip()]
    for delimiter in ("::", "\t", ",", ";", "|", None):
        sizes = {len(text.split(delimiter)) for text in texts}
        if len(sizes) == 1 and sizes.pop() >= 2 and (delimiter or len(texts) > 1):
            cells = list(zip(*(text.split(delimiter) for text in texts), strict=True))
            if not all(map(_is_number, next(zip(*cells, strict=True)))):
                return {}  # a header, or names
            return _options([all(map(_is_moment, column)) for column in cells[2:]])
    return None  # its reader names the line that is wrong


def _of_numbers(path: Path, lines: Lines) -> dict[str, Any] | None:
    """Whole numbers, all lines of one length, several of a user: ``user item rating``, or items in batches?"""
    sizes, users = np.unique(lines.sizes), np.unique(lines.users)
    if len(sizes) != 1 or sizes[0] < 2 or len(users) == len(lines.users):
        return None
    columns = lines.items.reshape(-1, sizes[0]).T[1:]
    # a time tells events; a single further column of few small values is a rating
    is_time = [bool(column.min() >= FIRST_MOMENT) for column in columns]
    is_rating = [len(np.unique(column)) <= MOST_RATINGS and column.max() <= 100 for column in columns]
    if len(columns) <= 2 and all(time or rating for time, rating in zip(is_time, is_rating, strict=True)):
        return _options(is_time)
    raise L2QError(
        f"{path} has {len(lines.users):,} lines of {sizes[0] + 1} numbers each, of {len(users):,} users: are they "
        f"events, user item value, or lists, user item item? {FORCE}; of lists, put all items of a user into one line"
    )


def _options(is_time: Sequence[bool]) -> dict[str, Any]:
    """Those of ``user item ...`` without a header, by whether the further columns are times: the first one that is none
    is the value."""
    roles = {"time" if moment else "value": place for place, moment in reversed([*enumerate(is_time, 3)])}
    return {"header": False, "user": 1, "item": 2} | roles


def _lines(path: Path) -> Lines | None:
    """The lines of a file of whole numbers; None of another file."""
    try:
        return read_lines(path)
    except L2QError:
        return None


def _is_number(text: str) -> bool:
    return bool(re.fullmatch(r"\s*-?\d+([.,]\d+)?([eE][+-]?\d+)?\s*", text))


def _is_moment(text: str) -> bool:
    return _is_number(text) and float(text.replace(",", ".")) >= FIRST_MOMENT


def _ending(name: str) -> str:
    words = name.lower().split(".")
    return words[-2] if words[-1] in PACKED and len(words) > 1 else words[-1]
