"""Products of dense matrices with the same bits for any number of threads.

A BLAS shares its work out by the number of its threads, and every way to share rounds otherwise. Here it has one
thread, for decompositions too (``one_thread``). A large product is made in tiles whose bounds follow from its shape
alone, and threads take tile after tile: one thread sums each entry, in one order.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import cache
from itertools import product as pairs
from typing import Any, TypeVar

import numba
import numpy as np
from scipy import linalg
from threadpoolctl import OpenBLASController, ThreadpoolController

from l2q import processes
from l2q.kernels.sparse import use_threads_of_torch

T = TypeVar("T")
SMALL = 2**27  # multiplications that are not worth a second thread: some 2 ms
TILE = 2**31  # of a tile, about: small enough to share, large enough that copying its sides does not count
FAR = 2**31  # multiplications that are worth sending their results to other processes: some 50 ms
DEEP = 4096  # multiplications for each number that is sent
SIDES = 256, 1024  # of a tile, at least and at most

_lock = threading.Lock()
_inside: list[Any] = []  # the limit that is set, once for every caller within


@contextmanager
def one_thread() -> Iterator[None]:
    """Within it, every BLAS of the process has one thread, in all of its Python threads."""
    with _lock:
        _inside.append(_inside[0] if _inside else _by_any(lambda: _libraries().limit(limits=1)))
    try:
        yield
    finally:
        with _lock:
            limit = _inside.pop()
            if not _inside:
                _by_any(limit.restore_original_limits)


@cache  # looking for them takes milliseconds; SciPy's is loaded by now
def _libraries() -> ThreadpoolController:
    return ThreadpoolController().select(user_api="blas")


def _by_any(call: Callable[[], T]) -> T:
    """Makes a call that sets threads of OpenBLAS. Only one Python thread may, until this is cleared: the last to leave
    is not always the first to come."""
    OpenBLASController.clear_controlling_thread(force=True)
    try:
        return call()
    finally:
        OpenBLASController.clear_controlling_thread(force=True)


def product(A: np.ndarray, B: np.ndarray, of: tuple[int, int] | None = None) -> np.ndarray:
    """A B, for A (m, k) and B (k, n). Whole tiles (``SIDES``) of a product of the shape ``of`` come out as they do
    there; this process alone makes them.

    >>> product(np.array([[1.0, 2.0]]), np.array([[3.0], [4.0]]))
    array([[11.]])
    """
    (m, k), n = A.shape, B.shape[1]
    with one_thread():
        if k * math.prod(of or (m, n)) < SMALL:
            return A @ B
        C = np.empty((m, n), np.result_type(A, B))
        size = side(k)

        def fill(rows: slice, columns: slice) -> None:
            np.matmul(A[rows], B[:, columns], out=C[rows, columns])

        far = of is None and k >= DEEP and m * k * n >= FAR
        _share(fill, list(pairs(parts(m, size), parts(n, size))), C, far)
    return C


def gram(X: np.ndarray) -> np.ndarray:
    """X^T X, for X (n, d)."""
    n, d = X.shape
    with one_thread():
        if n * d * d < SMALL:
            return X.T @ X
        G = np.empty((d, d), X.dtype)

        def fill(rows: slice, columns: slice) -> None:
            np.matmul(X[:, rows].T, X[:, columns], out=G[rows, columns])

        sides = parts(d, side(n))
        tiles = [(one, other) for place, one in enumerate(sides) for other in sides[place:]]
        _share(fill, tiles, G, n * d * d >= FAR)
        for rows, columns in tiles:
            if rows != columns:
                G[columns, rows] = G[rows, columns].T
    return G


def solve_lower(L: np.ndarray, X: np.ndarray) -> np.ndarray:
    """X L^-T, for X (n, d) and a lower triangular L (d, d)."""
    trsm = linalg.get_blas_funcs("trsm", (X,))
    L = np.asfortranarray(L, X.dtype)
    found = np.empty_like(X)

    def fill(rows: slice) -> None:
        found[rows] = trsm(1.0, L, X[rows].T, lower=1).T

    with one_thread():
        filled(fill, [(rows,) for rows in parts(len(X), SIDES[1])])
    return found


def side(depth: int) -> int:
    """Of a tile that sums ``depth`` products for each entry: a power of two."""
    size = SIDES[1]
    while size > SIDES[0] and size * size * depth > TILE:
        size //= 2
    return size


def parts(size: int, side: int) -> list[slice]:
    return [slice(start, min(start + side, size)) for start in range(0, size, side)]


def filled(fill: Callable[..., None], tiles: Sequence[tuple[slice, ...]]) -> None:
    """Calls ``fill`` for every tile, as many at once as there are threads."""
    use_threads_of_torch()
    threads = min(numba.get_num_threads(), len(tiles))
    if threads <= 1:
        for tile in tiles:
            fill(*tile)
        return
    with ThreadPoolExecutor(threads) as pool:
        for done in [pool.submit(fill, *tile) for tile in tiles]:
            done.result()


def _share(
    fill: Callable[..., None], tiles: Sequence[tuple[slice, ...]], whole: np.ndarray, far: bool
) -> None:
    """Calls ``fill`` for every tile of the ``whole``; ``far``: by all processes that share the work."""

    def here(some: Sequence[tuple[slice, ...]]) -> list[np.ndarray]:
        filled(fill, some)
        return [whole[tile] for tile in some]

    if not (far and processes.are_together()):
        filled(fill, tiles)
        return
    for tile, made in zip(tiles, processes.shared(here, tiles), strict=True):
        whole[tile] = made
