"""Rows that are kept as bytes, and their products by tiles of floats that stay in the cache."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from l2q.kernels import compiling, dense

_TILE = 512  # rows whose floats are at hand at once
_PAIRS = 4096  # likewise, of pairs


@dataclass(frozen=True, eq=False)
class ByteRows:
    """Y (N, rank) of ``codes`` c (N, rank) int8 and ``factors`` f (N,) float32:

        Y_ij = f_i sign(c_ij) c_ij^2

    Of float16 ``codes``, Y_ij = f_i c_ij.

    >>> ByteRows(np.int8([[1, -2], [0, 3]]), np.float32([1, 0.5])).rows(slice(None))
    array([[ 1. , -4. ],
           [ 0. ,  4.5]], dtype=float32)
    """

    codes: np.ndarray
    factors: np.ndarray

    def __len__(self) -> int:
        return len(self.codes)

    def rows(self, some: slice | np.ndarray) -> np.ndarray:
        """Rows as floats, (n, rank) float32."""
        codes, factors = self.codes[some], self.factors[some]
        if codes.dtype != np.int8:
            return codes.astype(np.float32) * factors[:, None]
        values = np.empty(codes.shape, np.float32)
        _of_bytes(np.ascontiguousarray(codes), factors, values)
        return values

    def products(self, X: np.ndarray) -> np.ndarray:
        """X Y^T (n, N) float32, for X (n, rank); with the same bits for any number of threads."""
        found = np.empty((len(X), len(self)), np.float32)
        X = np.ascontiguousarray(X, np.float32)

        def fill(some: slice) -> None:
            np.matmul(X, self.rows(some).T, out=found[:, some])

        with dense.one_thread():
            dense.filled(fill, [(some,) for some in dense.parts(len(self), _TILE)])
        return found

    def of_pairs(self, X: np.ndarray, users: np.ndarray, items: np.ndarray) -> np.ndarray:
        """<X[users_b], Y[items_b]>, (pairs,) float32."""
        found = np.empty(len(users), np.float32)
        for some in dense.parts(len(users), _PAIRS):
            found[some] = np.vecdot(X[users[some]], self.rows(items[some]))
        return found


@compiling.njit(nogil=True, cache=True)
def _of_bytes(codes, factors, values):
    for row in range(codes.shape[0]):
        factor = factors[row]
        for column in range(codes.shape[1]):
            code = np.int32(codes[row, column])
            values[row, column] = factor * np.float32(code * abs(code))
