"""Matrices whose rows processes share: each has one run of them, one process has all.

A number is summed where all that it sums is at hand, in the order of one process: sums over columns where the rows are,
products with a sparse matrix and sums over rows where whole columns have been brought together for a moment.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise

import numpy as np

from l2q import processes
from l2q.kernels import dense

WIDTH = 64  # of columns that a sparse product takes at once, in one order of its sums


def runs(size: int, unit: int | None = None) -> list[slice]:
    """Which of ``size`` rows each process has: whole tiles of a dense product, or whole units of so many rows.

    >>> runs(5000)
    [slice(0, 5000, None)]
    """
    unit = dense.SIDES[1] if unit is None else unit
    units, (_, count) = -(-size // unit), processes.place()
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
        return dense.product(processes.joined(X), W)[own(size)]
    return dense.product(X, W, of=(size, W.shape[1]))


def scores(X: np.ndarray, Y: np.ndarray, size: int) -> np.ndarray:
    """Rows of X Y^T, for an X (m, k) that all have and the own rows Y of (size, k): those of ``runs(m, unit=1)``."""
    rows = runs(len(X), 1)
    if X.size * size < dense.SMALL:
        return dense.product(X, processes.joined(Y).T)[own(len(X), 1)]
    return _turned_back(dense.product(X, Y.T, of=(len(X), size)), rows, runs(size))


@dense.one_thread()
def gram(X: np.ndarray, size: int) -> np.ndarray:
    """X^T X, for the own rows X of (size, d). A process keeps every p-th tile of columns until the last one came by."""
    number, count = processes.place()
    d = X.shape[1]
    if count == 1 or size * d * d < dense.SMALL:
        return dense.gram(processes.joined(X))
    G = np.empty((d, d), X.dtype)
    kept: dict[int, np.ndarray] = {}
    tiles = dense.parts(d, dense.side(size))
    found = []
    for place, columns in enumerate(tiles):
        tile = processes.joined(np.ascontiguousarray(X[:, columns]))
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


def sums(X: np.ndarray) -> np.ndarray:
    """Of the columns, (d,), over the rows of all processes, one after the other."""
    number, count = processes.place()
    if count == 1 or X.shape[1] == 1:  # NumPy sums a single column in another order
        return np.add.reduce(processes.joined(X), axis=0)
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
    largest = processes.joined(largest)
    largest = largest[np.argmax(np.abs(largest), axis=0), np.arange(V.shape[1])]
    return np.where(largest >= 0, 1, -1).astype(V.dtype)


def _turned(X: np.ndarray, rows: Sequence[slice], columns: Sequence[slice]) -> np.ndarray:
    """All rows of the own columns, for the own rows X of all columns."""
    number, count = processes.place()
    if count == 1:
        return X
    whole = np.empty((rows[-1].stop, columns[number].stop - columns[number].start), X.dtype)
    for _ in processes.passed(lambda to: X[:, columns[to]], lambda source: whole[rows[source]]):
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

    for source, coming in processes.passed(lambda to: X[rows[to]], room):
        found[:, columns[source]] = coming
    return found
