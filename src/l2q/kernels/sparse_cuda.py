"""Sparse matrix times dense matrix on a GPU, with the same bits every time.

Every sum runs in the order of the edges. torch's own product on a GPU, of cuSPARSE, gives other bits from call to call.
Needs Triton.
"""

from __future__ import annotations

import numpy as np
import torch
import triton
import triton.language as tl
from torch import Tensor


class Product:
    """Y = A X for A (rows, columns) in compressed rows and X (columns, d) of ``dtype``.

    A row's edges are cut into bags of at most ``BAG``, so that a row with thousands of edges does not hold up the rest.
    A first pass sums the bags. A second pass adds up the bags of those rows that have several.
    """

    BAG = 256  # edges

    def __init__(
        self,
        indptr: np.ndarray,
        indices: np.ndarray,
        values: np.ndarray,
        device: torch.device,
        dtype: torch.dtype,
    ):
        self.rows = rows = len(indptr) - 1
        counts = np.maximum(-(-np.diff(indptr) // self.BAG), 1)  # an empty row has an empty bag
        several = np.flatnonzero(counts > 1)
        bounds = np.append(0, np.cumsum(counts[several]))
        # a row's only bag is summed into the row; where there are several they go behind all rows
        self.extra = int(bounds[-1])
        targets = np.repeat(np.arange(rows), counts)
        targets[np.repeat(counts > 1, counts)] = rows + np.arange(self.extra)
        before = np.cumsum(counts) - counts
        starts = np.repeat(indptr[:-1] - self.BAG * before, counts) + self.BAG * np.arange(len(targets))

        def move(starts, indices, targets, values):
            arrays = [
                torch.from_numpy(array.astype(np.int32)).to(device) for array in (starts, indices, targets)
            ]
            return *arrays, torch.from_numpy(values).to(device, dtype)

        self.bags = move(np.append(starts, len(indices)), indices, targets, values)
        self.sums = move(bounds, rows + np.arange(self.extra), several, np.ones(self.extra))

    def __call__(self, X: Tensor) -> Tensor:
        X = X.contiguous()
        Y = X.new_empty((self.rows + self.extra, X.shape[1]))
        columns = triton.next_power_of_2(X.shape[1])
        step = max(min(1024 // columns, 16), 1)  # edges that are loaded at once
        for source, (starts, indices, targets, values) in ((X, self.bags), (Y, self.sums)):
            if len(targets):
                arguments = starts, indices, targets, values, source, Y, X.shape[1], columns, step
                _sum_rows[(len(targets),)](*arguments, num_warps=1)
        return Y[: self.rows]


@triton.jit
def _sum_rows(starts, indices, targets, values, X, Y, dim, COLUMNS: tl.constexpr, STEP: tl.constexpr):
    """Y[targets[b]] = sum over e in starts[b] .. starts[b + 1] - 1 of values[e] X[indices[e]]"""
    bag = tl.program_id(0)
    end = tl.load(starts + bag + 1)
    columns = tl.arange(0, COLUMNS)
    inside = columns < dim
    total = tl.zeros([COLUMNS], X.dtype.element_ty)
    for first in range(tl.load(starts + bag), end, STEP):
        edges = first + tl.arange(0, STEP)
        real = edges < end
        weights = tl.load(values + edges, real, 0)
        rows = tl.load(indices + edges, real, 0).to(tl.int64)
        block = tl.load(X + rows[:, None] * dim + columns[None, :], real[:, None] & inside[None, :], 0)
        total += tl.sum(block * weights[:, None], 0)
    tl.store(Y + tl.load(targets + bag).to(tl.int64) * dim + columns, total, inside)
