"""Names of users and items beside a folder of ids: one a line, or lists that say which id is whose."""

from __future__ import annotations

import csv
import re
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from l2q.errors import L2QError
from l2q.interactions import LINE_BREAK, name_array

FILES = {
    side: tuple(
        f"{stem}{ending}" for stem in (f"{side}s", f"{side}_list") for ending in (".txt", ".csv", ".tsv")
    )
    for side in ("user", "item")
}
"""What lists of names are called, the first that is there is read: ``users.txt``, ..., ``user_list.tsv``."""
ID_COLUMNS = ("remap_id", "remapped_id", "remap", "new_id", "inner_id", "internal_id", "index", "idx")
"""How headers call the ids that train and test files have, as ``org_id remap_id`` of KGAT and LightGCN does."""
HEADERS = ("org_id", "original_id", "id", "name", "names", "title")
"""Beside ``user``, ``user_id``, ``userid``, ...: what a line above a single column of names says."""


class Names(NamedTuple):
    """``ids`` (n,) int64, ascending, and the name of each; ``note``: how the list was understood, where it is not
    simply a name a line."""

    ids: np.ndarray
    names: np.ndarray
    note: str = ""


def read_names(path: str | Path) -> np.ndarray:
    """The lines of a UTF-8 text file, one name each. Raises L2QError for what cannot be read."""
    try:
        text = read_bytes(path).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise L2QError(f"{path} is not UTF-8 text: byte {error.start}") from error
    names = text.replace("\r\n", "\n").removesuffix("\n").split("\n")
    for line, name in enumerate(names, 1):
        if re.search(LINE_BREAK, name):
            raise L2QError(
                f"{path}:{line}: {name[:40]!r} holds a line break; a name is one line that ends in \\n"
            )
    return name_array(names)


def read_bytes(path: str | Path) -> bytes:
    try:
        return Path(path).read_bytes()
    except OSError as error:
        raise L2QError(f"cannot read {path}: {error.strerror}") from error


def read_list(path: Path, side: str, used: np.ndarray) -> Names:
    """The names of a side's ids, "user" or "item". ``used`` (n,) are the ids that pairs have, ascending.

    A list has a name a line, of the ids from 0 on; or it has columns, one of which holds the ids, in any order. The
    header names it (``ID_COLUMNS``), else it is the column of distinct whole numbers. A line's first other column is
    the name.

    Raises L2QError for what cannot be read, and for ids that the list does not have.
    """
    lines = read_names(path).tolist()
    found = _by_columns(path, lines) or _plain(path, lines, side, used)
    unknown = used[~np.isin(used, found.ids)]
    if len(unknown):
        raise L2QError(
            f"{path} has {len(found.ids)} names, but ids go up to {used[-1]}: id {unknown[0]} has none"
            if len(found.ids) <= used[-1]
            else f"{path} has no {side} id {unknown[0]}, which train or test has"
        )
    return found


def _plain(path: Path, lines: list[str], side: str, used: np.ndarray) -> Names:
    names, note = lines, ""
    if path.suffix == ".csv":
        names = [", ".join(cells) for cells in _of_csv(path, lines)]
    first = names[0].strip().lower()
    is_header = first in HEADERS or re.fullmatch(rf"{side}s?([_ ]?(id|name|key))?s?", first)
    if is_header and used.max(initial=-1) < len(names) - 1:
        names, note = names[1:], f"the first line of {path.name}, {names[0]!r}, is taken as its header"
    return Names(np.arange(len(names)), name_array(names), note)


def _by_columns(path: Path, lines: list[str]) -> Names | None:
    """None, where the lines have no column of ids."""
    rows = _cells(path, lines)
    header = [cell.strip().lower() for cell in rows[0]]
    known = [place for place, cell in enumerate(header) if cell in ID_COLUMNS]
    if known and len(header) > 1:
        place, below = known[0], [_fitted(cells, header) for cells in rows[1:]]
        for line, cells in enumerate(below, 2):
            if len(cells) <= place or not _is_id(cells[place]):
                raise L2QError(
                    f"{path}:{line}: no whole number for {rows[0][place]!r}; the header asks for one"
                )
        return _arranged(path, below, place, 2, rows[0][place])
    tabular = path.suffix in (".csv", ".tsv") or "\t" in lines[0]
    if tabular and len(header) > 1 and not any(map(_is_id, header)):
        places = _id_places(rows[1:], len(header))
        return _arranged(path, rows[1:], places[0], 2, rows[0][places[0]]) if places else None
    # without a header: a number behind or before each name, together all from 0 on, is its id and not part of it
    for place in (1, 0):
        parts = (
            rows if tabular else [line.rsplit(None, 1) if place else line.split(None, 1) for line in lines]
        )
        if all(len(cells) >= 2 and _is_id(cells[place]) for cells in parts):
            others = {cells[1 - place] for cells in parts}
            if {int(cells[place]) for cells in parts} == set(range(len(lines))) and len(others) == len(lines):
                return _arranged(path, parts, place, 1, f"column {place + 1}")
    return None


def _cells(path: Path, lines: list[str]) -> list[list[str]]:
    if path.suffix == ".csv":
        return _of_csv(path, lines)
    if "\t" in lines[0] or path.suffix == ".tsv":
        return [line.split("\t") for line in lines]
    return [line.split() for line in lines]


def _of_csv(path: Path, lines: list[str]) -> list[list[str]]:
    try:
        return list(csv.reader(lines))
    except csv.Error as error:  # a field without an end
        raise L2QError(f"{path} is no table of names: {error}") from error


def _fitted(cells: list[str], header: Sequence[str]) -> list[str]:
    """A line with more words than the header: the first column that is not the id is a name of several words."""
    more = len(cells) - len(header)
    if more <= 0:
        return cells
    name = 1 if header[0] in ID_COLUMNS else 0
    return [*cells[:name], " ".join(cells[name : name + more + 1]), *cells[name + more + 1 :]]


def _id_places(rows: list[list[str]], width: int) -> list[int]:
    """The columns of distinct whole numbers; those first that have all of them from 0 on."""
    places = []
    for place in range(width):
        cells = [row[place] for row in rows if len(row) == width]
        if len(cells) == len(rows) and all(map(_is_id, cells)) and len({*map(int, cells)}) == len(rows):
            places.append((max(map(int, cells), default=-1) != len(rows) - 1, place))
    return [place for _, place in sorted(places)]


def _arranged(path: Path, rows: list[list[str]], place: int, first_line: int, called: str) -> Names:
    ids = np.array([int(cells[place]) for cells in rows], np.int64)
    order = np.argsort(ids, kind="stable")
    repeated = np.flatnonzero(np.diff(ids[order]) == 0)
    if len(repeated):
        line = order[repeated[0] + 1] + first_line
        raise L2QError(f"{path}:{line}: id {ids[order[repeated[0]]]} stands there a second time")
    names = [cells[0 if place else 1] if len(cells) > 1 else "" for cells in rows]
    return Names(ids[order], name_array(names)[order], f"{path.name} names {len(ids):,} ids, by its {called}")


def _is_id(cell: str) -> bool:
    return bool(re.fullmatch(r"\s*\d{1,18}\s*", cell))
