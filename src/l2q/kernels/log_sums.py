"""Logarithms of summed exponentials of scores, without the (users, items) matrix of all scores."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

Total = Callable[[Tensor], Tensor]

BLOCK = 1 << 24  # scores that are in memory at once: 64 MiB of float32


def log_sums(
    X: Tensor,
    Y: Tensor,
    bias: Tensor,
    rows: Tensor,
    columns: Tensor,
    block: int | None = None,
    total: Total | None = None,
) -> Tensor:
    """log sum_c exp(<X[r], Y[c]> + bias[c]) of every row r of X, over the columns c that no pair leaves out.

    X (n, D), Y (m, D), ``bias`` (m,); the pairs (rows_b, columns_b) may repeat. A row without any column is -inf. Up to
    ``block`` scores are in memory at once (``BLOCK``), and at least one row's. Where more are asked for, the backward
    computes them anew. ``total`` makes scores of the products of X and Y, where these are a part of their columns; as
    many products are in memory beside the scores then.

    >>> X, Y = torch.ones(2, 1), torch.tensor([[1.0], [2.0], [3.0]])
    >>> left_out = torch.tensor([0, 1, 1]), torch.tensor([2, 0, 2])
    >>> log_sums(X, Y, torch.zeros(3), *left_out).exp()  # e + e^2, e^2
    tensor([10.1073,  7.3891])
    """
    order = torch.argsort(rows, stable=True)
    return _LogSums.apply(X, Y, bias, rows[order], columns[order], BLOCK if block is None else block, total)


class _LogSums(torch.autograd.Function):
    """P_rc = exp(<X_r, Y_c> + bias_c - log_sum_r), 0 for pairs: dX = (g P) Y, dY = (g P)^T X, dbias = (g P)^T 1."""

    @staticmethod
    def forward(
        ctx,
        X: Tensor,
        Y: Tensor,
        bias: Tensor,
        rows: Tensor,
        columns: Tensor,
        block: int,
        total_of: Total | None,
    ) -> Tensor:
        ctx.block, ctx.total_of = block, total_of
        sums, shares = X.new_empty(len(X)), None
        for part, scores in _blocks(X, Y, bias, rows, columns, block, total_of):
            # a row of -inf alone has the sum 0
            highest = scores.amax(1, keepdim=True).clamp_(min=torch.finfo(scores.dtype).min)
            shares = scores.sub_(highest).exp_()
            total = shares.sum(1, keepdim=True)
            sums[part] = total.log().add_(highest).squeeze(1)
            shares.div_(_positive(total))
        fits = len(X) <= _rows_at_once(Y, block)
        ctx.save_for_backward(X, Y, bias, rows, columns, sums, shares if fits else None)
        return sums

    @staticmethod
    @once_differentiable
    def backward(ctx, grad: Tensor):
        X, Y, bias, rows, columns, sums, kept = ctx.saved_tensors
        dX, dY, dbias = torch.empty_like(X), torch.zeros_like(Y), torch.zeros_like(bias)
        lowest = sums.clamp(min=torch.finfo(sums.dtype).min)
        blocks: Iterable[tuple[slice, Tensor | None]] = [(slice(None), None)]
        if kept is None:
            blocks = _blocks(X, Y, bias, rows, columns, ctx.block, ctx.total_of)
        for part, scores in blocks:
            shares = kept if scores is None else scores.sub_(lowest[part].unsqueeze(1)).exp_()
            # g goes to the narrow sides, so that no second matrix of shares is made
            torch.mm(shares, Y, out=dX[part])
            dY.addmm_(shares.T, grad[part].unsqueeze(1) * X[part])
            dbias.addmv_(shares.T, grad[part])
        dX *= grad.unsqueeze(1)
        return dX, dY, dbias, None, None, None, None


def _blocks(
    X: Tensor, Y: Tensor, bias: Tensor, rows: Tensor, columns: Tensor, block: int, total_of: Total | None
) -> Iterator[tuple[slice, Tensor]]:
    """Rows of X and their scores, (rows, m), -inf for pairs; the pairs' ``rows`` ascend. A block is written over the
    one before it."""
    size = _rows_at_once(Y, block)
    memory = X.new_empty(min(size, len(X)), len(Y))
    starts = range(0, len(X), size)
    ends = torch.searchsorted(rows, torch.tensor([*starts, len(X)], device=rows.device)).tolist()
    for number, start in enumerate(starts):
        part = X[start : start + size]
        scores = memory[: len(part)]
        if total_of is None:
            torch.addmm(bias, part, Y.T, out=scores)
        else:
            scores = total_of(torch.mm(part, Y.T, out=scores)).add_(bias)
        pairs = slice(ends[number], ends[number + 1])
        scores[rows[pairs] - start, columns[pairs]] = -torch.inf
        yield slice(start, start + size), scores


def _rows_at_once(Y: Tensor, block: int) -> int:
    return max(block // max(len(Y), 1), 1)


def _positive(total: Tensor) -> Tensor:
    return total.clamp(min=torch.finfo(total.dtype).tiny)
