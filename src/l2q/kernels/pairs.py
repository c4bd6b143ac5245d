"""Scores of many (user, item) pairs without the (pairs, dim) copies that indexing would make."""

from __future__ import annotations

import numpy as np
import torch
from numba import prange
from torch import Tensor
from torch.autograd.function import once_differentiable

from l2q.kernels import compiling
from l2q.kernels.sparse import multiply, use_threads_of_torch


def pair_scores(X: Tensor, Y: Tensor, users: Tensor, items: Tensor) -> Tensor:
    """score_b = <X[users_b], Y[items_b]>, (pairs,), for X (n, D), Y (m, D); pairs may repeat.

    dX[u] = sum over b with users_b = u of g_b Y[items_b], and dY alike. One thread sums a row, in the order of the
    pairs. So the gradients have the same bits for any number of threads.

    >>> X, Y = torch.tensor([[1.0, 2.0]]), torch.tensor([[3.0, 4.0], [5.0, 6.0]])
    >>> pair_scores(X, Y, torch.tensor([0, 0]), torch.tensor([1, 0]))
    tensor([17., 11.])
    """
    if X.is_cuda:
        return torch.linalg.vecdot(X[users], Y[items])
    return _PairScores.apply(X, Y, users, items)


class _PairScores(torch.autograd.Function):
    @staticmethod
    def forward(ctx, X, Y, users, items):
        for name, ids, size in (("users", users, len(X)), ("items", items, len(Y))):
            if len(ids) and not (ids.min() >= 0 and ids.max() < size):
                raise IndexError(f"{name} must lie in 0 .. {size - 1}")
        X, Y = X.contiguous(), Y.contiguous()
        ctx.save_for_backward(X, Y, users, items)
        scores = X.new_empty(len(users))
        use_threads_of_torch()
        _dots(X.numpy(), Y.numpy(), users.numpy(), items.numpy(), scores.numpy())
        return scores

    @staticmethod
    @once_differentiable
    def backward(ctx, G):
        X, Y, users, items = ctx.saved_tensors
        G = G.contiguous()
        dX = _gather_back(X, Y, users, items, G) if ctx.needs_input_grad[0] else None
        dY = _gather_back(Y, X, items, users, G) if ctx.needs_input_grad[1] else None
        return dX, dY, None, None


def _gather_back(X: Tensor, Y: Tensor, rows: Tensor, columns: Tensor, G: Tensor) -> Tensor:
    """S Y, the shape of X, with S the sparse matrix of the entries G_b at (rows_b, columns_b)."""
    indptr, indices, values = _sorted_by_row(len(X), rows.numpy(), columns.numpy(), G.numpy())
    return torch.from_numpy(multiply(indptr[:-1], indptr[1:], indices, values, Y.numpy()))


@compiling.njit(parallel=True, cache=True, fastmath=True)
def _dots(X, Y, users, items, scores):
    for b in prange(len(users)):
        x, y = X[users[b]], Y[items[b]]
        total = X[0, 0] * 0
        for j in range(len(x)):
            total += x[j] * y[j]
        scores[b] = total


@compiling.njit(cache=True)
def _sorted_by_row(num_rows, rows, columns, values):
    """Compressed rows by a counting sort, stable."""
    indptr = np.zeros(num_rows + 1, np.int64)
    for row in rows:
        indptr[row + 1] += 1
    for row in range(num_rows):
        indptr[row + 1] += indptr[row]
    sorted_columns, sorted_values = np.empty(len(rows), np.int32), np.empty_like(values)
    ends = indptr[:-1].copy()
    for b in range(len(rows)):
        e = ends[rows[b]]
        sorted_columns[e], sorted_values[e] = columns[b], values[b]
        ends[rows[b]] += 1
    return indptr, sorted_columns, sorted_values
