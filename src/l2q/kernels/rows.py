"""Matrices whose rows processes share: each has one run of them, one process has all.

A number is summed where all that it sums is at hand, in the order of one process: sums over columns where the rows are,
products with a sparse matrix and sums over rows where whole columns have been brought together for a moment. A sum over
more than ``DEEPEST`` rows is one of sums over so many, in one process, too: where a process has them, nothing travels.
"""

from __future__ import annotations

import math
import operator
import os
import tempfile
from collections.abc import Callable, Sequence
from functools import reduce
from itertools import pairwise

import numpy as np

from l2q import exchange, processes
from l2q.kernels import dense

WIDTH = 64  # of columns that a sparse product takes at once, in one order of its sums
UNIT = 4096  # rows that are worked on at once: whole tiles of a dense product, and whole blocks of users
DEEPEST = 2**17  # rows that one product sums over; larger than any public set of ours
CHUNK = 2**24  # bytes that travel to a file at once


def runs(size: int, unit: int | None = None) -> list[slice]:
    """Which of ``size`` rows each process has: whole units of so many rows. Where nothing is said these are ``UNIT``,
    or ``DEEPEST`` where all have several of them.

    >>> runs(5000)
    [slice(0, 5000, None)]
    """
    _, count = processes.place()
    if unit is None:
        unit = UNIT if size < 4 * count * DEEPEST else DEEPEST
    units = -(-size // unit)
    ends = (min(unit * (units * number // count), size) for number in range(count + 1))
    return [slice(*pair) for pair in pairwise(ends)]


def own(size: int, unit: int | None = None) -> slice:
    """Those of this process."""
    return runs(size, unit)[processes.place()[0]]


def by_columns(
    multiplied: Callable[[np.ndarray], np.ndarray], X: np.ndarray, sizes: tuple[int, int]
) -> np.ndarray:
    """The own rows of ``multiplied(X)``, of ``sizes[1]``; X has the own rows of ``sizes[0]``. Its columns do not depend
    on each other, so each process takes some, with all their rows."""
    if processes.place()[1] == 1:
        return multiplied(X)
    columns = runs(X.shape[1], WIDTH)
    slab = _turned(X, runs(sizes[0]), columns)
    return _turned_back(multiplied(slab), runs(sizes[1]), columns)


def product(X: np.ndarray, W: np.ndarray, size: int) -> np.ndarray:
    """The own rows of X W, for the own rows X of (size, k)."""
    if size * W.size < dense.SMALL:
        return dense.product(exchange.joined(X), W)[own(size)]
    return dense.product(X, W, of=(size, W.shape[1]))


def scores(X: np.ndarray, Y: np.ndarray, size: int) -> np.ndarray:
    """Rows of X Y^T, for an X (m, k) that all have and the own rows Y of (size, k): those of ``runs(m, unit=1)``."""
    rows = runs(len(X), 1)
    if X.size * size < dense.SMALL:
        return dense.product(X, exchange.joined(Y).T)[own(len(X), 1)]
    return _turned_back(dense.product(X, Y.T, of=(len(X), size)), rows, runs(size))


@dense.one_thread()
def gram(X: np.ndarray, size: int) -> np.ndarray:
    """X^T X, for the own rows X of (size, d). A process keeps every p-th tile of columns until the last one came by."""
    number, count = processes.place()
    d = X.shape[1]
    if size > DEEPEST:
        return _summed(lambda block, X: dense.gram(X), X, size)
    if count == 1 or size * d * d < dense.SMALL:
        return dense.gram(exchange.joined(X))
    G = np.empty((d, d), X.dtype)
    kept: dict[int, np.ndarray] = {}
    tiles = dense.parts(d, dense.side(size))
    found = []
    for place, columns in enumerate(tiles):
        tile = exchange.joined(np.ascontiguousarray(X[:, columns]))
        if place % count == number:
            kept[columns.start] = tile

        def fill(rows: slice, columns: slice, tile: np.ndarray = tile) -> None:
            np.matmul(kept[rows.start].T, tile, out=G[rows, columns])

        pairs = [(tiles[first], columns) for first in range(number, place + 1, count)]
        dense.filled(fill, pairs)
        found += [(pair, G[pair]) for pair in pairs]
    for (rows, columns), made in (one for each in processes.everyone(found) for one in each):
        G[rows, columns], G[columns, rows] = made, made.T
    return G


def products(X: np.ndarray, A: Callable[[slice], np.ndarray], size: int) -> tuple[np.ndarray, np.ndarray]:
    """X^T A and A^T A, for the own rows X of (size, d) and an A (size, b), any rows of which every process can make."""
    if size > DEEPEST:
        both = _summed(lambda block, X: _cross(X, A(block)), X, size)
        return both[: X.shape[1]], both[X.shape[1] :]
    known = A(slice(0, size))
    return dense.product(exchange.joined(X).T, known), dense.gram(known)


def _cross(X: np.ndarray, A: np.ndarray) -> np.ndarray:
    return np.concatenate([dense.product(X.T, A), dense.gram(A)])


def _summed(work: Callable[[slice, np.ndarray], np.ndarray], X: np.ndarray, size: int) -> np.ndarray:
    """The sum of ``work`` over blocks of all rows and what X has of them, one after the other."""
    number, _ = processes.place()
    after = runs(size, DEEPEST)
    X, first = moved(X, runs(size), after), after[number].start

    def made(blocks: Sequence[slice]) -> list[np.ndarray]:
        return [work(block, X[block.start - first : block.stop - first]) for block in blocks]

    return reduce(operator.iadd, processes.shared(made, dense.parts(size, DEEPEST)))


def sums(X: np.ndarray) -> np.ndarray:
    """Of the columns, (d,), over the rows of all processes, one after the other."""
    number, count = processes.place()
    if count == 1 or X.shape[1] == 1:  # NumPy sums a single column in another order
        return np.add.reduce(exchange.joined(X), axis=0)
    total = None
    for turn in range(count):
        if turn == number and len(X):
            total = np.add.reduce(X if total is None else np.concatenate([total[np.newaxis], X]), axis=0)
        total = processes.everyone(total)[turn]
    assert total is not None
    return total


def column_signs(V: np.ndarray) -> np.ndarray:
    """The sign of each column's largest entry, (columns,). A singular vector times its sign is unique."""
    largest = np.zeros((min(len(V), 1), V.shape[1]), V.dtype)
    if len(V):
        largest[0] = V[np.argmax(np.abs(V), axis=0), np.arange(V.shape[1])]
    largest = exchange.joined(largest)
    largest = largest[np.argmax(np.abs(largest), axis=0), np.arange(V.shape[1])]
    return np.where(largest >= 0, 1, -1).astype(V.dtype)


def _turned(X: np.ndarray, rows: Sequence[slice], columns: Sequence[slice]) -> np.ndarray:
    """All rows of the own columns, for the own rows X of all columns."""
    number, count = processes.place()
    if count == 1:
        return X
    whole = np.empty((rows[-1].stop, columns[number].stop - columns[number].start), X.dtype)
    for _ in exchange.passed(lambda to: X[:, columns[to]], lambda source: whole[rows[source]]):
        pass
    return whole


def _turned_back(X: np.ndarray, rows: Sequence[slice], columns: Sequence[slice]) -> np.ndarray:
    """The own rows of all columns, for all rows X of the own columns."""
    number, count = processes.place()
    if count == 1:
        return X
    height = rows[number].stop - rows[number].start
    found = np.empty((height, columns[-1].stop), X.dtype)

    def room(source: int) -> np.ndarray:
        return np.empty((height, columns[source].stop - columns[source].start), X.dtype)

    for source, coming in exchange.passed(lambda to: X[rows[to]], room):
        found[:, columns[source]] = coming
    return found


def moved(X: np.ndarray, before: Sequence[slice], after: Sequence[slice]) -> np.ndarray:
    """Rows of an array whose processes have ``after`` in the place of ``before``."""
    number, _ = processes.place()
    if list(before) == list(after):
        return X
    found = np.empty((after[number].stop - after[number].start, *X.shape[1:]), X.dtype)

    def part(rows: np.ndarray, at: slice, other: slice) -> np.ndarray:
        first, last = max(at.start, other.start), min(at.stop, other.stop)
        return rows[first - at.start : max(last, first) - at.start]

    for _ in exchange.passed(
        lambda to: part(X, before[number], after[to]),
        lambda source: part(found, after[number], before[source]),
    ):
        pass
    return found


def stacked(sides: Sequence[np.ndarray], sizes: Sequence[int]) -> np.ndarray:
    """The own rows of one matrix with the rows of several, one below the other, which have ``sizes``."""
    cut = zip(sides, sizes, _within(sizes), strict=True)
    return np.concatenate([moved(side, runs(size), after) for side, size, after in cut])


def unstacked(X: np.ndarray, sizes: Sequence[int]) -> list[np.ndarray]:
    """The own rows of each again."""
    number, _ = processes.place()
    within = _within(sizes)
    ends = np.cumsum([each[number].stop - each[number].start for each in within])
    cut = zip(np.split(X, ends[:-1]), sizes, within, strict=True)
    return [moved(side, before, runs(size)) for side, size, before in cut]


def _within(sizes: Sequence[int]) -> list[list[slice]]:
    """Of each matrix, which rows every process has of it as a part of the stack."""
    found, first = [], 0
    for size in sizes:
        ends = ([min(max(end - first, 0), size) for end in (run.start, run.stop)] for run in runs(sum(sizes)))
        found.append([slice(*pair) for pair in ends])
        first += size
    return found


def gathered(X: np.ndarray) -> np.ndarray:
    """The rows of all processes, one behind the other, for the first one; none for the others. Those of several lie in
    a file without a name (``TMPDIR``), so that they need no memory."""
    number, count = processes.place()
    if count == 1:
        return X
    size, row = processes.total(len(X)), X.dtype.itemsize * math.prod(X.shape[1:])

    def room() -> np.ndarray:
        if number or not size * row:
            return np.empty(0, np.uint8)
        with tempfile.TemporaryFile() as file:  # the mapping outlives it
            if hasattr(
                os, "posix_fallocate"
            ):  # on a full disk an error here, where a mapping would end the process
                os.posix_fallocate(file.fileno(), 0, size * row)
            return np.memmap(file, np.uint8, "w+", shape=(size * row,))

    found = processes.agreed(room)
    rows, at = max(CHUNK // max(row, 1), 1), 0

    def take(chunk: bytes) -> None:
        nonlocal at
        found[at : at + len(chunk)] = np.frombuffer(chunk, np.uint8)
        at += len(chunk)

    exchange.collected((X[first : first + rows].tobytes() for first in range(0, len(X), rows)), take)
    return found.view(X.dtype).reshape(0 if number else size, *X.shape[1:])


def scattered(whole: np.ndarray | None, ends: Sequence[int]) -> np.ndarray:
    """Rows of an array that the first process has: of process n from ``ends[n]`` to ``ends[n + 1]``."""
    number, count = processes.place()
    if count == 1:
        assert whole is not None
        return whole[ends[0] : ends[1]]
    kind, shape = processes.said(lambda: (whole.dtype, whole.shape[1:]))  # type: ignore[union-attr]
    none = np.empty((0, *shape), kind)
    found = np.empty((ends[number + 1] - ends[number], *shape), kind)
    for _ in exchange.passed(
        lambda to: none if whole is None else whole[ends[to] : ends[to + 1]],
        lambda source: none.copy() if source else found,
    ):
        pass
    return found
