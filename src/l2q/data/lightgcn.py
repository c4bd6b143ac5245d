"""Folders of LightGCN: ``train.txt`` and ``test.txt`` of ids, a line a user, and lists of names beside them."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np

from l2q.data import names
from l2q.data.splits import described
from l2q.errors import L2QError
from l2q.interactions import Dataset, Interactions, Reading, name_array

FILES = ("train.txt", "test.txt")


class Lines(NamedTuple):
    """The lines of a file: ``users`` (lines,) int64, ``sizes`` (lines,), how many items each has, and the ``items`` of
    all, (pairs,) int64."""

    users: np.ndarray
    sizes: np.ndarray
    items: np.ndarray

    @property
    def pairs(self) -> tuple[np.ndarray, np.ndarray]:
        return np.repeat(self.users, self.sizes), self.items


def read_lightgcn(path: str | Path) -> tuple[np.ndarray, np.ndarray]:
    """Pairs of a text file with one line per user, ``user item item ...``, as two int64 arrays.

    A line may name a user without items; empty lines count for nothing. O(bytes), without a loop over
    lines. Raises L2QError, with file and line number, for anything but whole numbers below 2^31.
    """
    return read_lines(path).pairs


def read_lines(path: str | Path) -> Lines:
    """As ``read_lightgcn``, line by line."""
    read = names.read_bytes(path)
    if b"\r" in read and (bare := re.search(rb"\r(?!\r*(\n|$))", read)):
        line = read.count(b"\n", 0, bare.start()) + 1
        raise L2QError(
            f"{path}:{line}: a carriage return within the line; save it with line ends \\n or \\r\\n"
        )
    text = np.frombuffer(read, np.uint8)
    digit = (text >= ord("0")) & (text <= ord("9"))
    newline = text == ord("\n")
    line_ends = np.flatnonzero(newline)

    def fail(position: int) -> L2QError:
        line = int(np.searchsorted(line_ends, position))
        start = 0 if line == 0 else line_ends[line - 1] + 1
        words = text[start:].tobytes().split(b"\n", 1)[0].decode("latin-1")  # one character a byte
        word = next(w[0] for w in re.finditer(r"[^ \r\t]+", words) if w.end() > position - start)
        why = "negative id" if re.fullmatch(r"-\d+", word) else "not a whole number below 2^31"
        return L2QError(f"{path}:{line + 1}: {word[:40]!r} is {why}; a line reads `user item item ...`")

    known = digit | newline | (text == ord(" ")) | (text == ord("\r")) | (text == ord("\t"))
    if not known.all():
        raise fail(int(np.argmin(known)))
    starts = np.flatnonzero(digit & ~np.concatenate(([False], digit[:-1])))
    ends = np.flatnonzero(digit & ~np.concatenate((digit[1:], [False]))) + 1
    too_long = ends - starts > 18  # such a word would not fit the int64 that it is parsed to
    if too_long.any():
        raise fail(starts[np.argmax(too_long)])
    if not len(starts):
        return Lines(*(np.empty(0, dtype=np.int64) for _ in Lines._fields))
    ids = np.fromstring(text.tobytes(), dtype=np.int64, sep=" ")
    if (ids >= 2**31).any():
        raise fail(starts[np.argmax(ids >= 2**31)])

    first = np.unique(np.concatenate(([0], np.searchsorted(starts, line_ends))))  # first id of every line
    first = first[first < len(ids)]
    is_item = np.ones(len(ids), dtype=bool)
    is_item[first] = False
    return Lines(ids[first], np.diff(np.append(first, len(ids))) - 1, ids[is_item])


def read_folder(path: str | Path, name: str, declared: bool = False) -> Dataset:
    """A dataset from ``train.txt`` and ``test.txt`` (see ``read_lightgcn``), with names from the lists beside them
    (``names.FILES``, ``names.read_list``).

    Without a list the ids that occur are the users and items. Where they do not count from 0 without gaps, they are
    numbered anew, and are names from then on; a ``declared`` set, whose counts are known, keeps its ids.

    Repeated pairs are merged, test pairs that train has are dropped, users and items that are in test alone are kept:
    ``train.reading`` counts each. Raises L2QError for what cannot be read and for a set without interactions.
    """
    path = Path(path)
    parts = [read_lines(path / file) for file in FILES]
    if not len(parts[0].items):
        raise L2QError(f"{path / FILES[0]} has no interactions")
    sides = {
        "user": np.unique(np.concatenate([part.users for part in parts])),
        "item": np.unique(np.concatenate([part.items for part in parts])),
    }
    notes, numbered, found = [], {}, {}
    for side, used in sides.items():
        numbered[side], found[side], note = _numbered(path, side, used, declared)
        notes += [note] if note else []
    train, test = (
        Interactions.from_pairs(
            np.searchsorted(numbered["user"], users),
            np.searchsorted(numbered["item"], items),
            len(numbered["user"]),
            len(numbered["item"]),
            found["user"],
            found["item"],
        )
        for users, items in (part.pairs for part in parts)
    )
    rows = sum(len(part.items) for part in parts)
    repeated = rows - len(train) - len(test)
    known = np.isin(test.keys, train.keys, assume_unique=True)
    test = test.select(~known)
    notes += [
        f"{file} is left out: train and test are read, and a run holds out a validation part of its own"
        for file in validation(path)
    ]
    reading = Reading(
        str(path),
        {},
        rows=rows,
        dropped={"test pairs that are in train too": int(known.sum())} if known.any() else {},
        merged=repeated,
        notes=tuple(notes),
        split=described("split of the folder's own", train, test),
    )
    return Dataset(name, replace(train, reading=reading), replace(test, reading=reading))


def validation(folder: Path) -> list[str]:
    """The files beside ``train.txt`` that hold a validation part."""
    return [
        file for word in ("valid", "validation", "val", "dev") if (folder / (file := f"{word}.txt")).is_file()
    ]


def _numbered(
    path: Path, side: str, used: np.ndarray, declared: bool
) -> tuple[np.ndarray, np.ndarray | None, str]:
    """The ids that rows stand for, ascending, their names, and what there is to say of it."""
    size = int(used.max(initial=-1)) + 1
    listed = next((path / file for file in names.FILES[side] if (path / file).is_file()), None)
    if listed is not None:
        found = names.read_list(listed, side, used)
        return found.ids, found.names, found.note
    if declared and size > 1_000_000 + 100 * len(used):
        raise L2QError(f"{path}: {side} id {used[-1]} leaves too many gaps; ids count from 0")
    if declared or len(used) == size:
        return np.arange(size), None, ""
    why = "have gaps" if len(used) < used[-1] - used[0] + 1 else f"count from {used[0]}"
    note = f"{side} ids, {used[0]} to {used[-1]}, {why}: the {len(used):,} {side}s are numbered anew and named by them"
    return used, name_array([str(number) for number in used.tolist()]), note
