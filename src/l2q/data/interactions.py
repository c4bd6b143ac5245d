"""Implicit feedback as one record: which user has which items; its readers and its splits."""

from __future__ import annotations

import hashlib
import re
import warnings
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from scipy import sparse

from l2q.errors import L2QError

TABLES = (".csv", ".tsv", ".parquet")
LINE_BREAK = r"[\r\n]"  # what ends a line where text files of names are read, so that no name may hold it


@dataclass(frozen=True)
class Interactions:
    """Binary interactions R in {0, 1}^(num_users x num_items) in compressed rows.

    ``indptr`` (num_users + 1,) int64 and ``items`` (nnz,) int32; the items of user u are
    ``items[indptr[u]:indptr[u + 1]]``, ascending, without duplicates.
    """

    indptr: np.ndarray
    items: np.ndarray
    num_items: int

    @classmethod
    def from_pairs(cls, users, items, num_users: int, num_items: int) -> Interactions:
        """Rows from pairs in any order; a repeated pair counts once. O(edges) apart from one sort.

        Raises L2QError for an id outside 0 .. num_users - 1 or 0 .. num_items - 1.
        """
        users = np.asarray(users, dtype=np.int64)
        items = np.asarray(items, dtype=np.int64)
        for name, ids, size in (("user", users, num_users), ("item", items, num_items)):
            if len(ids) and not (ids.min() >= 0 and ids.max() < size):
                worst = ids.min() if ids.min() < 0 else ids.max()
                raise L2QError(f"{name} id {worst} is outside 0 .. {size - 1}")
        keys = np.sort(users * num_items + items)  # faster than np.unique, which hashes
        keys = keys[np.diff(keys, prepend=-1) != 0]
        indptr = np.zeros(num_users + 1, dtype=np.int64)
        np.cumsum(np.bincount(keys // max(num_items, 1), minlength=num_users), out=indptr[1:])
        return cls(indptr, (keys % max(num_items, 1)).astype(np.int32), num_items)

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, user: int) -> np.ndarray:
        """Items of one user, ascending."""
        return self.items[self.indptr[user] : self.indptr[user + 1]]

    @property
    def num_users(self) -> int:
        return len(self.indptr) - 1

    @cached_property
    def users(self) -> np.ndarray:
        """The user of every pair, (nnz,) int32, beside ``items``."""
        return np.repeat(np.arange(self.num_users, dtype=np.int32), self.user_degrees)

    @cached_property
    def user_degrees(self) -> np.ndarray:
        return np.diff(self.indptr)

    @cached_property
    def item_degrees(self) -> np.ndarray:
        return np.bincount(self.items, minlength=self.num_items)

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 over the shape and the sorted pairs: the same whatever the order inside a file's lines."""
        digest = hashlib.sha256(f"{self.num_users} {self.num_items}\n".encode())
        digest.update(self.indptr.astype("<i8").tobytes())
        digest.update(self.items.astype("<i4").tobytes())
        return digest.hexdigest()

    @property
    def keys(self) -> np.ndarray:
        """user * num_items + item of every pair, (nnz,) int64, ascending."""
        return self.users.astype(np.int64) * self.num_items + self.items

    def select(self, chosen: np.ndarray) -> Interactions:
        """The pairs where the mask ``chosen`` (nnz,) is true; users and items keep their ids."""
        before = np.concatenate(([0], np.cumsum(chosen)))
        return Interactions(before[self.indptr], self.items[chosen], self.num_items)

    def to_csr(self, dtype=np.float32) -> sparse.csr_array:
        """R as a SciPy matrix of ones, int32 indices."""
        ones = np.ones(len(self.items), dtype=dtype)
        return sparse.csr_array(
            (ones, self.items, self.indptr.astype(np.int32)), shape=(self.num_users, self.num_items)
        )


@dataclass(frozen=True)
class Dataset:
    """A set split into train and test, with equal shapes. Names are (num_users,) and (num_items,) arrays
    of strings (see ``name_array``); None: the ids are the names. ``columns`` of users and items, of a table."""

    name: str
    train: Interactions
    test: Interactions
    user_names: np.ndarray | None = None
    item_names: np.ndarray | None = None
    columns: tuple[str, ...] = ()


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
        columns, user_names, users, item_names, items = _read_events(path)
        every = Interactions.from_pairs(users, items, len(user_names), len(item_names))
        _warn(path, len(users) - len(every), "repeated pairs are counted once")
        if not test_fraction:
            nothing = every.select(np.zeros(len(every), bool))
            return Dataset(name, every, nothing, user_names, item_names, tuple(columns))
        train, test = holdout(every, test_fraction, split_seed)
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
        return Dataset(name, train, test, user_names, item_names, tuple(columns))

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
    train, test = (Interactions.from_pairs(*part, *shape) for part in pairs)
    repeated = sum(len(part[0]) for part in pairs) - len(train) - len(test)
    _warn(path, repeated, "repeated pairs are counted once")
    known = np.isin(test.keys, train.keys, assume_unique=True)
    _warn(path, int(known.sum()), "test pairs are in train too and leave test")
    test = test.select(~known)
    _warn_of_cold(path, train, test)
    return Dataset(name, train, test, names[0], names[1])


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


def name_array(names: list[str]) -> np.ndarray:
    """Strings as objects: in a unicode array every name would take the space of the longest one."""
    return np.array(names, dtype=object)


def holdout(train: Interactions, fraction: float, seed: int) -> tuple[Interactions, Interactions]:
    """A random part of every user's items for validation, made from train alone: (fit, validation).

    A user with n >= 2 items gives ``fraction`` * n of them (halves rounded up, at least 1, and one stays);
    a user with 1 item gives none. Where users have so few items that this is more than one and a half times
    ``fraction`` of train, every second giver gives, every third from two and a half times on, and so forth.
    """
    order = np.random.default_rng(seed).random(len(train))
    return _hold_out(train, fraction, order, least=2)


def cluster_holdout(
    train: Interactions, item_vectors: np.ndarray, fraction: float, seed: int
) -> tuple[Interactions, Interactions]:
    """A corner of every user's taste for validation, made from train alone: (fit, validation).

    Of each user with 6 or more items one is drawn; it is held out together with those of the user's own items
    that are nearest to it by cosine of ``item_vectors`` (num_items, dim), ``fraction`` * n in all (halves
    rounded up, at least 1; of equally near ones the lower id). Users with fewer items give none. Predicting
    such a part asks for what a user turns to next rather than for more of the same, as a later test does.
    """
    rng = np.random.default_rng(seed)
    drawn = train.indptr[:-1] + (rng.random(train.num_users) * train.user_degrees).astype(np.int64)
    drawn = np.repeat(drawn, train.user_degrees)  # (nnz,), a position in items
    unit = item_vectors / np.maximum(np.linalg.norm(item_vectors, axis=1, keepdims=True), 1e-12)
    cosine = np.empty(len(train), dtype=unit.dtype)
    for part in range(0, len(train), 65536):  # two gathered blocks at a time, not two (nnz, dim) arrays
        block = slice(part, part + 65536)
        np.vecdot(unit[train.items[block]], unit[train.items[drawn[block]]], out=cosine[block])
    cosine[drawn] = np.inf
    return _hold_out(train, fraction, -cosine, least=6)


def _hold_out(
    train: Interactions, fraction: float, order: np.ndarray, least: int
) -> tuple[Interactions, Interactions]:
    """Per user with at least ``least`` items, the ``fraction`` with the smallest ``order`` (nnz,) goes; of every
    second such user and so forth, where all of them would give much more than ``fraction`` of train."""
    if not 0 < fraction < 1:
        raise L2QError(f"fraction={fraction} must lie between 0 and 1")
    degrees = train.user_degrees
    # the small term mends products such as .29 * 50 = 14.4999...
    sizes = np.clip(np.floor(fraction * degrees + 0.5 + 1e-9).astype(np.int64), 1, degrees - 1)
    sizes[degrees < least] = 0
    givers = np.flatnonzero(sizes)
    every = max(round(sizes.sum() / max(fraction * len(train), 1)), 1)
    sizes[np.setdiff1d(givers, givers[::every])] = 0
    by_order = np.lexsort((order, train.users))
    rank = np.arange(len(train)) - np.repeat(train.indptr[:-1], degrees)
    held = np.empty(len(train), dtype=bool)
    held[by_order] = rank < np.repeat(sizes, degrees)
    return train.select(~held), train.select(held)


def _read(path: str | Path) -> bytes:
    try:
        return Path(path).read_bytes()
    except OSError as error:
        raise L2QError(f"cannot read {path}: {error.strerror}") from error


def _read_events(path: Path) -> tuple[list[str], np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """The two columns, user names, user of each event, item names, item of each event."""
    import pyarrow as pa
    import pyarrow.compute as pc
    from pyarrow import csv, parquet

    columns: list[str] = []
    try:
        if path.suffix.lower() == ".parquet":
            columns = _two(path, parquet.read_schema(path).names)
            table = parquet.read_table(path, columns=columns)
        else:
            delimiter = "\t" if path.suffix.lower() == ".tsv" else ","
            parse = csv.ParseOptions(delimiter=delimiter, newlines_in_values=True)  # of other columns' texts
            with csv.open_csv(path, parse_options=parse) as reader:
                columns = _two(path, reader.schema.names)
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
        sides = [column.cast(pa.string()) for column in table.columns]
    except (OSError, pa.ArrowException) as error:
        reason = str(error).splitlines()[0]
        if columns and (wrong := re.search(r"CSV column #([01]): .*invalid UTF8", reason)):
            reason = f"column {columns[int(wrong[1])]!r} is not UTF-8 text; save the file as UTF-8"
        raise L2QError(f"cannot read {path}: {reason}") from error
    if not table.num_rows:
        raise L2QError(f"{path} has no interactions")

    found: list[np.ndarray] = []
    for column, given, side in zip(columns, table.columns, sides, strict=True):
        missing = pc.or_kleene(pc.is_null(given, nan_is_null=True), pc.equal(side, ""))
        for bad, what in ((missing, "no"), (pc.match_substring_regex(side, LINE_BREAK), "a line break in")):
            if pc.any(bad).as_py():
                row = pc.index(bad, True).as_py() + 1
                raise L2QError(f"{path}: row {row} below the header has {what} {column}")
        encoded = side.combine_chunks().dictionary_encode()
        names = name_array(encoded.dictionary.to_pylist())
        order = np.argsort(names)
        rank = np.empty(len(order), dtype=np.int64)
        rank[order] = np.arange(len(order))
        found += [names[order], rank[encoded.indices.to_numpy()]]
    return columns, found[0], found[1], found[2], found[3]


def _two(path: Path, columns: list[str]) -> list[str]:
    if len(columns) < 2:
        raise L2QError(
            f"{path} has one column, {', '.join(columns)!r}; the first two are user and item, with commas between "
            "them in a .csv, tabs in a .tsv"
        )
    if columns[0] == columns[1]:
        raise L2QError(f"{path}: the first two columns are both named {columns[0]!r}; name them apart")
    return columns[:2]


def _warn(path: Path, count: int, what: str) -> None:
    if count:
        warnings.warn(f"{path}: {count:,} {what}", stacklevel=3)


def _warn_of_cold(path: Path, train: Interactions, test: Interactions) -> None:
    for side, others in (("user", "items"), ("item", "users")):
        known, asked = (getattr(part, f"{side}_degrees") for part in (train, test))
        cold = int(((known == 0) & (asked > 0)).sum())
        _warn(path, cold, f"{side}s have test {others} but no train {others}")
