"""Where the embeddings start: each is called with (train, dim, seed) and returns both sides of E^(0)."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from l2q.errors import L2QError
from l2q.fitted.filter import FilterScores
from l2q.interactions import Interactions
from l2q.kernels import dense
from l2q.kernels.rotations import itq
from l2q.kernels.svd import truncated_svd
from l2q.models.graph import Graph, Propagation
from l2q.options import NotNegative, Positive, Whole, options

DRAWN = 1 << 22  # numbers that are drawn at once, where most of them are not kept
# on validation of four sets a share of .79 to .86 gains by the tail, .94 to .98 loses (docs/results/paper-models.md)
ENOUGH = 0.9
ASKED = 256  # users, about
STEPS = 12  # of conjugate gradients: with two layers what is left is below 1e-5


@options("model.initialization")
class Normal:
    """Independent N(0, std^2) entries."""

    std: NotNegative

    def __call__(self, train: Interactions, dim: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
        rng = np.random.default_rng(seed)
        nodes = rng.standard_normal((train.num_users + train.num_items, dim), dtype=np.float32) * self.std
        return nodes[: train.num_users], nodes[train.num_users :]

    def part(self, train: Interactions, dim: int, seed: int, columns: slice) -> tuple[np.ndarray, np.ndarray]:
        """These ``columns`` of what the call returns. Rows are drawn a block at a time: the others need no memory."""
        rng = np.random.default_rng(seed)
        number, width = train.num_users + train.num_items, len(range(dim)[columns])
        nodes, block = np.empty((number, width), np.float32), max(DRAWN // dim, 1)
        for first in range(0, number, block):
            rows = min(block, number - first)
            drawn = rng.standard_normal((rows, dim), dtype=np.float32)
            nodes[first : first + rows] = drawn[:, columns] * self.std
        return nodes[: train.num_users], nodes[train.num_users :]


@options("model.initialization")
class FromFitted:
    """Training goes on from the rows of a ``model`` that is fitted first, such as ``l2q.fitted.baselines.Spectral``:
    from its factors, or from its codes times their scales. One factor for all rows gives their entries the standard
    deviation ``std``, which decides how far a learning rate goes; None: they stay as they were fitted."""

    model: Any
    std: Positive | None

    def __call__(self, train: Interactions, dim: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
        users, items = self.model.fit(train, seed).representations.factors()
        if users.shape[1] != dim:
            raise L2QError(
                f"model.embedding_dim={dim}: the fitted rows have {users.shape[1]} columns; give as many"
            )
        if self.std is not None:
            entries = np.concatenate([users.ravel(), items.ravel()])
            factor = np.float32(self.std / max(entries.std(), np.finfo(np.float32).tiny))
            users, items = users * factor, items * factor
        return users, items


@options("model.initialization")
class TeacherFactors:
    """Training goes on from the factors of the spectral filter that the objective's teacher has. They are those of its
    part of low rank, U diag(h) V^T D_i^popularity:

        X = U diag(h)^1/2, rows of length 1,    Y = D_i^popularity V diag(h)^1/2, of length 1 on average

    Where that part has less than ``ENOUGH`` of the squares of all scores, the tail beyond it brings as many directions
    more as there is room for, h_k = c' s_k^3. The first ``dim`` columns are turned by ITQ for their signs; there are
    zeros where they are fewer.

    The mean of the layers 0 .. L = ``num_layers`` is what has them: E^(0) solves

        1 / (L + 1) (I + A_hat + ... + A_hat^L) E^(0) = [X; Y]

    by conjugate gradients. ``scores`` are the filter's; a run has them from its objective. Raises L2QError without
    them, and for an odd L: A_hat has -1 for an eigenvalue, where such a sum is zero."""

    num_layers: Whole

    def __post_init__(self) -> None:
        if self.num_layers % 2:
            raise L2QError(
                f"model.num_layers={self.num_layers}: initialization=teacher solves for layers whose mean is the "
                "teacher's factors, which an odd number of them cannot have; give an even one"
            )

    def __call__(
        self, train: Interactions, dim: int, seed: int, scores: FilterScores | None = None
    ) -> tuple[np.ndarray, np.ndarray]:
        if scores is None:
            raise L2QError(
                "initialization=teacher: the objective has no teacher; give objective=distillation, or another "
                "initialization"
            )
        U, h, Y = _directions(scores, dim, seed)
        roots = np.sqrt(h[:dim])
        sides = [U[:, : len(roots)] * roots, Y[:, : len(roots)] * roots]
        users, items = (np.pad(side, ((0, 0), (0, dim - len(roots)))) for side in sides)
        users /= np.maximum(np.linalg.norm(users, axis=1, keepdims=True), np.finfo(np.float32).tiny)
        items /= max(float(np.linalg.norm(items, axis=1).mean()), np.finfo(np.float32).tiny)
        rows = np.concatenate([users, items]).astype(np.float32)
        turned = dense.product(rows, itq(rows, rng=np.random.default_rng([seed, dim])).astype(np.float32))
        start = before_layers(train, torch.from_numpy(turned), self.num_layers).numpy()
        return start[: train.num_users], start[train.num_users :]


def _directions(scores: FilterScores, dim: int, seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """U, h and Y of ``scores``; where they are not enough, with directions of the tail up to ``dim``."""
    rank, most = len(scores.h), min(dim, *scores.R_hat.shape)
    if not scores.factor or most <= rank or _share(scores) >= ENOUGH:
        return scores.U, scores.h, scores.Y
    U, s, V = truncated_svd(scores.R_hat, most, seed)
    empty = np.diff(scores.R_hat.indptr) == 0
    U[empty] = U[~empty].mean(axis=0)
    return U, np.concatenate([scores.h, scores.factor * s[rank:] ** 3]), V * scores.degrees[:, None]


def _share(scores: FilterScores) -> float:
    """What the part of low rank has of the squares of a user's scores, on average over some users."""
    users = np.arange(0, len(scores.U), max(len(scores.U) // ASKED, 1))
    whole, low = scores.scores(users), dense.product(scores.U[users] * scores.h, scores.Y.T)
    tiny = np.finfo(np.float32).tiny
    return float((np.vecdot(low, low) / np.maximum(np.vecdot(whole, whole), tiny)).mean())


def before_layers(train: Interactions, rows: Tensor, num_layers: int) -> Tensor:
    """E whose layers, 0 to an even number, have ``rows`` (nodes, d) for their mean: by conjugate gradients, since the
    sum of the powers of a symmetric A_hat between -1 and 1 is positive definite."""
    propagation = Propagation(Graph.from_interactions(train))

    def mean(E: Tensor) -> Tensor:
        layers = propagation.layers(E, num_layers)
        return sum(layers[1:], layers[0]) / len(layers)

    found = torch.zeros_like(rows)
    left, way = rows.clone(), rows.clone()
    square = left.square().sum()
    for _ in range(STEPS if num_layers else 1):
        moved = mean(way)
        length = square / (way * moved).sum().clamp_(min=torch.finfo(rows.dtype).tiny)
        found += length * way
        left -= length * moved
        square, before = left.square().sum(), square
        way.mul_(square / before.clamp(min=torch.finfo(rows.dtype).tiny)).add_(left)
    return found
