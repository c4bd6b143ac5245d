"""Codes for a new user from a list of items, without training."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from scipy import sparse

from l2q.errors import L2QError
from l2q.interactions import Interactions
from l2q.representations import Representations, Rows

if TYPE_CHECKING:  # at run time imported where it is used: it imports torch, which most queries do not need
    from l2q.fitted.new_users import FilterSide


RIDGE = 0.1
_ITEMS = 8192  # whose floats are at hand at once


class HalfRound:
    """One half-round of the descent that made the codes: a new user's row is fitted to the items' codes.

    Its base and its list are the filter's scores of the new user (``l2q.fitted.new_users``). G = A^T A and C = Y^T A
    come from the item codes A of the index, within a second. The start is the signs of the least-squares solution
    without lists, v = (G + l I)^-1 C^T x.
    """

    def __init__(self, side: FilterSide, items: Rows, train: Interactions):
        from l2q.fitted.state import Packed, Side
        from l2q.kernels import dense

        assert items.scales is not None
        train = side.weighed(train)
        self._side, self._train, self._graph = side, train, side.graph(train)
        self._items = Packed.of(Side(items.values, items.scales[:, 0]))
        degrees = np.where(train.item_degrees > 0, train.item_weights, 1).astype(np.float32)
        popularity, V = degrees ** side.options["popularity"], side.V
        width = items.values.shape[1]
        self._G, self._C = (
            np.zeros((width, width), np.float32),
            np.zeros((V.codes.shape[1], width), np.float32),
        )
        for some in dense.parts(len(V), _ITEMS):
            A = items.values[some] * items.scales[some]
            self._G += A.T @ A
            self._C += (V.rows(some) * popularity[some, None]).T @ A
        _check_finite(self._G, self._C, side.values)
        self._start = np.linalg.solve(_ridge(self._G, 1e-3), self._C.T).T  # (rank, bits)

    def __call__(self, item_lists: Sequence[Sequence[int] | np.ndarray]) -> Rows:
        """One query row for each list of item ids. Raises L2QError for an empty list or an unknown id."""
        from l2q.fitted.descent import fit_rows
        from l2q.fitted.state import Side

        new = _interactions(item_lists, self._train.num_items)
        options = self._side.options
        scores = self._side.scores(new, self._train, self._graph)
        _, (X, _), lists = scores.ranking(new, int(options["length"]))
        codes = np.where(X @ self._start >= 0, 1, -1).astype(np.int8)
        start = Side(codes, np.ones(len(codes), np.float32))
        fitted = fit_rows(start, X, self._C, self._G, lists, self._items, options["weight"])
        return Rows(fitted.codes)


class FoldIn:
    """One hop of propagation from the items' de-quantized rows A_i^(s) = a_i^(s) Q_i^(s):

        x^(s) = sum_{i in items} A_i^(p) / sqrt(|items| deg_i)
        u^(s) = x^(s) W_s        code sign(u^(s)), scale ||u^(s)||_1 / dim_s

    Where segments are layers, p = s - 1. Layer 0 is an embedding of its own, which a new user lacks: the user is
    put where the items are, p = 0. So is the only segment of other models. That ranks better than leaving layer 0
    out of the score (docs/results/new-users.md).

    W_s takes the known users' x^(s) to their own A_u^(s) by least squares, held near c O_s:

        min over W of ||X W - A||^2 + l ||W - c O_s||^2,    l = RIDGE tr(X^T X) / dim

    O_s is the orthogonal Procrustes map, the polar factor of X^T A (Schoenemann 1966), since layers may differ by a
    rotation before the sign. c is its least-squares scale. The index holds all that this takes. Without known users W_s
    is the identity.
    """

    def __init__(self, representations: Representations, train: Interactions, item_degrees: np.ndarray):
        self._num_items = representations.num_items
        self._binary = representations.users.binary
        self._scaled = representations.users.scales is not None
        self._item_factors = 1 / np.sqrt(np.maximum(item_degrees, 1)).astype(np.float32)
        items, users = _dequantized(representations, "items"), _dequantized(representations, "users")
        self._sources = [items[max(s - 1, 0)] for s in range(len(items))]
        _check_finite(*items, *users)
        self._maps = [
            _least_squares(self._propagate(train, source), user)
            for source, user in zip(self._sources, users, strict=True)
        ]

    def __call__(self, item_lists: Sequence[Sequence[int] | np.ndarray]) -> Rows:
        """One query row for each list of item ids. Raises L2QError for an empty list or an unknown id."""
        lists = _interactions(item_lists, self._num_items)
        segments = [
            self._propagate(lists, source) @ W for source, W in zip(self._sources, self._maps, strict=True)
        ]
        values = np.concatenate(segments, axis=1)
        if not self._binary:
            return Rows(values)
        codes = np.where(values >= 0, 1, -1).astype(np.int8)
        return Rows(
            codes, np.stack([np.abs(x).mean(axis=1) for x in segments], axis=1) if self._scaled else None
        )

    def _propagate(self, lists: Interactions, source: np.ndarray) -> np.ndarray:
        """R_hat A: (lists, dim)."""
        degrees = np.maximum(lists.user_degrees, 1)
        weights = self._item_factors[lists.items] / np.sqrt(degrees)[lists.users].astype(np.float32)
        shape = (lists.num_users, self._num_items)
        return sparse.csr_array((weights, lists.items, lists.indptr), shape=shape) @ source


def _interactions(item_lists: Sequence[Sequence[int] | np.ndarray], num_items: int) -> Interactions:
    for place, items in enumerate(item_lists):
        if not hasattr(items, "__len__"):
            raise L2QError(
                f"item list {place} is {items!r}; give a list of items for each new user, such as [[3, 17]]"
            )
        if not len(items):
            raise L2QError(f"item list {place} is empty; a new user needs at least one item")
    lengths = [len(items) for items in item_lists]
    return Interactions.from_pairs(
        np.repeat(np.arange(len(item_lists)), lengths), np.concatenate(item_lists), len(item_lists), num_items
    )


def _check_finite(*arrays: np.ndarray) -> None:
    """Raises L2QError where there is nothing to fit a new user to."""
    for array in arrays:
        # squares are summed in float64, whose range they must not leave
        if not np.isfinite(array).all() or np.abs(array).max(initial=0) > 1e30:
            raise L2QError(
                "rows of the index hold NaN, infinity or values too large to fold a new user in; save it anew, from "
                "smaller values"
            )


def _dequantized(representations: Representations, side: str) -> list[np.ndarray]:
    """A^(s) = a^(s) Q^(s) per segment, float32."""
    rows: Rows = getattr(representations, side)
    segments = np.split(rows.values, representations.offsets[1:-1], axis=1)
    if rows.scales is None:
        return [values.astype(np.float32) for values in segments]
    return [values * rows.scales[:, s, None].astype(np.float32) for s, values in enumerate(segments)]


def _ridge(gram: np.ndarray, strength: float) -> np.ndarray:
    """The Gram matrix with ``strength`` times its mean diagonal added to the diagonal."""
    return gram + strength * np.trace(gram) / len(gram) * np.eye(len(gram), dtype=gram.dtype)


def _least_squares(X: np.ndarray, targets: np.ndarray) -> np.ndarray:
    """W (dim, dim) float32 as in ``FoldIn``."""
    turn = _procrustes(X, targets)
    turned = X @ turn
    size = np.vdot(turned, turned)
    if not size:
        return turn
    near = np.vdot(turned, targets) / size * turn
    gram = X.T.astype(np.float64) @ X
    return (near + np.linalg.solve(_ridge(gram, RIDGE), X.T @ (targets - X @ near))).astype(np.float32)


def _procrustes(sources: np.ndarray, targets: np.ndarray) -> np.ndarray:
    """argmin over orthogonal O of ||sources O - targets||, float32; the identity fills what no row shows."""
    covariance = sources.T.astype(np.float64) @ targets
    covariance += 1e-6 * np.linalg.norm(covariance) * np.eye(*covariance.shape)
    left, _, right = np.linalg.svd(covariance, full_matrices=False)
    return (left @ right).astype(np.float32)
