"""Readers of interactions: text files of LightGCN, and tables of events."""

from __future__ import annotations

import re
import warnings
from pathlib import Path
from typing import Any

import numpy as np
from scipy import sparse

from l2q.data.splits import split
from l2q.errors import L2QError
from l2q.interactions import LINE_BREAK, Dataset, Interactions, name_array

TABLES = (".csv", ".tsv", ".parquet")


def read_lightgcn(path: str | Path) -> tuple[np.ndarray, np.ndarray]:
    """Pairs of a text file with one line per user, ``user item item ...``, as two int64 arrays.

    A line may name a user without items; empty lines count for nothing. O(bytes), without a loop over
    lines. Raises L2QError, with file and line number, for anything but whole numbers below 2^31.
    """
    read = _read(path)
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
        return np.empty(0, dtype=np.int64), np.empty(0, dtype=np.int64)
    ids = np.fromstring(text.tobytes(), dtype=np.int64, sep=" ")
    if (ids >= 2**31).any():
        raise fail(starts[np.argmax(ids >= 2**31)])

    first = np.unique(np.concatenate(([0], np.searchsorted(starts, line_ends))))  # first id of every line
    first = first[first < len(ids)]
    is_item = np.ones(len(ids), dtype=bool)
    is_item[first] = False
    sizes = np.diff(np.append(first, len(ids))) - 1
    return np.repeat(ids[first], sizes), ids[is_item]


def read_dataset(path: str | Path, name: str, split_seed: int = 0, test_fraction: float = 0.2) -> Dataset:
    """A dataset from a folder or from one table of events.

    A folder holds ``train.txt`` and ``test.txt`` (see ``read_lightgcn``), ids counted from 0, and may hold
    ``users.txt`` and ``items.txt``, one name per line. A ``.csv``, ``.tsv`` or ``.parquet`` file has a header
    whose first two columns are user and item, any strings: ids follow the sorted names, and ``test_fraction`` of
    each user's items, drawn with ``split_seed``, is the test part (see ``holdout``); with 0 there is none.

    Repeated pairs are merged, test pairs that train has are dropped, users and items that are in test alone are
    kept: each is counted in a warning. Raises L2QError for what cannot be read and for a set without interactions.
    """
    path = Path(path)
    if path.suffix.lower() in TABLES:
        columns, table = _read_table(path)
        every = _encode(path, columns, table)
        if not test_fraction:
            nothing = every.select(np.zeros(len(every), bool))
            return Dataset(name, every, nothing, tuple(columns))
        train, test = split(every, "random", fraction=test_fraction, seed=split_seed)
        if not len(test):
            raise L2QError(
                f"{path}: no user, column {columns[0]!r}, has two items, column {columns[1]!r}, so there is none to "
                "test with; are these the columns of users and items? dataset.test_fraction=0 takes all for train"
            )
        if len(test) < test_fraction * len(every) / 10:
            _warn(
                path,
                len(test),
                f"of {len(every):,} events are test, since few users, column {columns[0]!r}, have two items, column "
                f"{columns[1]!r}; are these the columns of users and items?",
            )
        _warn_of_cold(path, train, test)
        return Dataset(name, train, test, tuple(columns))

    if not test_fraction:
        raise L2QError(f"{path}: dataset.test_fraction is of a table; of a folder, test.txt is the test part")
    pairs = [read_lightgcn(path / file) for file in ("train.txt", "test.txt")]
    files = [path / file for file in ("users.txt", "items.txt")]
    names = [read_names(file) if file.exists() else None for file in files]
    if not len(pairs[0][0]):
        raise L2QError(f"{path / 'train.txt'} has no interactions")
    shape = []
    for side, (file, lines) in enumerate(zip(("users.txt", "items.txt"), names, strict=True)):
        size = 1 + max(int(part[side].max(initial=-1)) for part in pairs)
        if size > 1_000_000 + 100 * sum(len(part[0]) for part in pairs):
            raise L2QError(f"{path}: {file[:-5]} id {size - 1} leaves too many gaps; ids count from 0")
        if lines is not None and len(lines) < size:
            raise L2QError(f"{path / file} has {len(lines)} names, but ids go up to {size - 1}")
        shape.append(size if lines is None else len(lines))
    train, test = (
        Interactions.from_pairs(users, items, shape[0], shape[1], names[0], names[1])
        for users, items in pairs
    )
    repeated = sum(len(part[0]) for part in pairs) - len(train) - len(test)
    _warn(path, repeated, "repeated pairs are counted once")
    known = np.isin(test.keys, train.keys, assume_unique=True)
    _warn(path, int(known.sum()), "test pairs are in train too and leave test")
    test = test.select(~known)
    _warn_of_cold(path, train, test)
    return Dataset(name, train, test)


def read_names(path: str | Path) -> np.ndarray:
    """The lines of a UTF-8 text file, one name each. Raises L2QError for what cannot be read."""
    try:
        text = _read(path).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise L2QError(f"{path} is not UTF-8 text: byte {error.start}") from error
    names = text.replace("\r\n", "\n").removesuffix("\n").split("\n")
    for line, name in enumerate(names, 1):
        if re.search(LINE_BREAK, name):
            raise L2QError(
                f"{path}:{line}: {name[:40]!r} holds a line break; a name is one line that ends in \\n"
            )
    return name_array(names)


def _read(path: str | Path) -> bytes:
    try:
        return Path(path).read_bytes()
    except OSError as error:
        raise L2QError(f"cannot read {path}: {error.strerror}") from error


def read_events(source: Any, user: str | None = None, item: str | None = None) -> Interactions:
    """Which user has which items, by name, from a table of events: a ``.csv``, ``.tsv`` or ``.parquet`` file with a
    header, a pandas, polars or Arrow table, or a SciPy sparse matrix of users x items (rows and columns are the
    names, entries that are not zero the events).

    ``user`` and ``item`` name the columns; by default they are the first two. Ids follow the sorted names; a repeated
    pair counts once and is counted in a warning. Other columns are not read. Raises L2QError for what cannot be read,
    a column that is not there, a row without user or item, and for no events at all.

        events = l2q.read_events("ratings.csv", user="user_id", item="movie_id")
    """
    if sparse.issparse(source):
        if source.ndim != 2 or user is not None or item is not None:
            raise L2QError("a sparse matrix has users for rows and items for columns, and no other names")
        pairs = source.tocoo()
        kept = pairs.data != 0
        if not kept.any():
            raise L2QError("the matrix has no interactions")
        return Interactions.from_pairs(pairs.row[kept], pairs.col[kept], *source.shape)
    if isinstance(source, str | Path):
        path = Path(source)
        if path.suffix.lower() not in TABLES:
            raise L2QError(f"{path} is no table of events; give one of {', '.join(TABLES)}")
        where, (columns, table) = str(path), _read_table(path, user, item)
    else:
        where, (columns, table) = "the table", _arrow(source, user, item)
    return _encode(where, columns, table)


def _arrow(table: Any, user: str | None, item: str | None) -> tuple[list[str], Any]:
    """The two columns of anything that gives itself as an Arrow stream."""
    import pyarrow as pa

    if not hasattr(table, "__arrow_c_stream__"):
        raise L2QError(
            f"events of type {type(table).__name__} cannot be read: give a path, a pandas, polars or Arrow table, or a "
            "SciPy sparse matrix"
        )
    try:
        table = pa.table(table)
    except pa.ArrowException as error:
        raise L2QError(f"cannot read the table: {str(error.args[-1]).splitlines()[0]}") from error
    columns = _chosen("the table", table.column_names, user, item)
    return columns, table.select(columns)


def _read_table(path: Path, user: str | None = None, item: str | None = None) -> tuple[list[str], Any]:
    """The two columns of a file by name, and the Arrow table of them."""
    import pyarrow as pa
    from pyarrow import csv, parquet

    columns: list[str] = []
    try:
        if path.suffix.lower() == ".parquet":
            columns = _chosen(path, parquet.read_schema(path).names, user, item)
            return columns, parquet.read_table(path, columns=columns)
        delimiter = "\t" if path.suffix.lower() == ".tsv" else ","
        parse = csv.ParseOptions(delimiter=delimiter, newlines_in_values=True)  # of other columns' texts
        with csv.open_csv(path, parse_options=parse) as reader:
            columns = _chosen(path, reader.schema.names, user, item)
        if any(re.fullmatch(r"\s*-?\d+(\.\d+)?\s*", column) for column in columns):
            raise L2QError(
                f"{path}: the first line, {', '.join(columns)}, has a number where names of columns are "
                "expected; put a header above it, or name the columns, such as user,item"
            )
        text = csv.ConvertOptions(include_columns=columns, column_types={c: pa.string() for c in columns})
        table = csv.read_csv(path, parse_options=parse, convert_options=text)
        with path.open("rb") as file:
            lines = sum(not line.isspace() for line in file)
        _warn(
            path,
            max(lines - 1 - len(table), 0),
            "lines lie inside quotes: texts of several lines, or a stray quote",
        )
        return columns, table
    except (OSError, pa.ArrowException) as error:
        reason = str(error).splitlines()[0]
        if columns and (wrong := re.search(r"CSV column #([01]): .*invalid UTF8", reason)):
            reason = f"column {columns[int(wrong[1])]!r} is not UTF-8 text; save the file as UTF-8"
        raise L2QError(f"cannot read {path}: {reason}") from error


def _encode(where: str | Path, columns: list[str], table: Any) -> Interactions:
    """Names of any type as strings, and rows by the sorted names."""
    import pyarrow as pa
    import pyarrow.compute as pc

    if not table.num_rows:
        raise L2QError(f"{where} has no interactions")
    names: list[np.ndarray] = []
    ids: list[np.ndarray] = []
    for column, given in zip(columns, table.columns, strict=True):
        try:
            side = given.cast(pa.string())
        except pa.ArrowException as error:
            raise L2QError(f"cannot read {where}: {str(error).splitlines()[0]}") from error
        missing = pc.or_kleene(pc.is_null(given, nan_is_null=True), pc.equal(side, ""))
        for bad, what in ((missing, "no"), (pc.match_substring_regex(side, LINE_BREAK), "a line break in")):
            if pc.any(bad).as_py():
                row = pc.index(bad, True).as_py() + 1
                raise L2QError(f"{where}: row {row} below the header has {what} {column}")
        encoded = side.combine_chunks().dictionary_encode()
        found = name_array(encoded.dictionary.to_pylist())
        order = np.argsort(found)
        rank = np.empty(len(order), dtype=np.int64)
        rank[order] = np.arange(len(order))
        names.append(found[order])
        ids.append(rank[encoded.indices.to_numpy()])
    every = Interactions.from_pairs(ids[0], ids[1], len(names[0]), len(names[1]), names[0], names[1])
    _warn(where, len(ids[0]) - len(every), "repeated pairs are counted once")
    return every


def _chosen(where: str | Path, columns: list[str], user: str | None, item: str | None) -> list[str]:
    """The columns of users and items: those that are named, else the first two."""
    for option, column in (("user", user), ("item", item)):
        if column is not None and column not in columns:
            raise L2QError(
                f"{where} has no column {column!r} for {option}; it has {', '.join(map(repr, columns))}"
            )
    if (user is None) != (item is None):
        raise L2QError("name both columns, user and item, or neither")
    if user is not None and item is not None:
        if user == item:
            raise L2QError(f"{where}: users and items are in one column, {user!r}; name two")
        chosen = [user, item]
    else:
        chosen = _two(where, columns)
    for column in chosen:
        if columns.count(column) > 1:
            raise L2QError(f"{where} has {columns.count(column)} columns named {column!r}; name them apart")
    return chosen


def _two(path: str | Path, columns: list[str]) -> list[str]:
    if len(columns) < 2:
        between = ", with commas between them in a .csv, tabs in a .tsv" if isinstance(path, Path) else ""
        raise L2QError(
            f"{path} has one column, {', '.join(columns)!r}; the first two are user and item{between}"
        )
    if columns[0] == columns[1]:
        raise L2QError(f"{path}: the first two columns are both named {columns[0]!r}; name them apart")
    return columns[:2]


def _warn(path: str | Path, count: int, what: str) -> None:
    if count:
        warnings.warn(f"{path}: {count:,} {what}", stacklevel=3)


def _warn_of_cold(path: Path, train: Interactions, test: Interactions) -> None:
    for side, others in (("user", "items"), ("item", "users")):
        known, asked = (getattr(part, f"{side}_degrees") for part in (train, test))
        cold = int(((known == 0) & (asked > 0)).sum())
        _warn(path, cold, f"{side}s have test {others} but no train {others}")
