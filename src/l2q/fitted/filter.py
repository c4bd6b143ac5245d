"""Spectral models without training: truncated SVD, a graph filter, and rotations of their factors.

R_hat = D_u^-gu R D_i^-gi = U diag(s) V^T
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import torch
from numba import prange
from scipy import sparse

from l2q import exchange, processes
from l2q.interactions import Interactions, normalize, power
from l2q.kernels import compiling, dense, rows
from l2q.kernels.pairs import pair_scores
from l2q.kernels.svd import SVD, product, svd_in_parts
from l2q.kernels.top_lists import heads, top_lists
from l2q.options import Count, options
from l2q.progress import Progress

_ROWS, _COLUMNS = 4096, 64  # users of a range, and users of a block, in products with all of R_hat
LEAST = 0.1  # that a user's targets are multiplied by: see FilterScores.lists


@options("model.filter")
class SpectralFilter:
    """Smooth low-pass filter of the interaction graph with a linear tail, and a factor for popularity.

        h_k = s_k^3 / (s_k^2 + mu)  for k <= rank,    mu = 3 s_rank^2,    c' = tail / (s_rank^2 + mu)
        S = [U diag(h - c' s^3) V^T + c' R_hat R_hat^T R_hat] D_i^popularity,    rows to unit norm

    The tail lets all directions beyond ``rank`` through with s^3, the weight of one more hop.
    """

    gamma_user: float = 0.3
    gamma_item: float = 0.5
    popularity: float = 0.5
    rank: Count = 768
    tail: float = 0.4

    def __call__(
        self, train: Interactions, seed: int, svd: SVD | None = None, ended: bool = False
    ) -> FilterScores:
        """``svd``: triplets of ``normalize(train, gamma_user, gamma_item)`` at hand, at least ``rank``, the own rows of
        them. ``ended``: the tail has the directions of these triplets and no others, which the base has then too."""
        R_hat = normalize(train, self.gamma_user, self.gamma_item)
        U, s, V = self.decompose(train, seed) if svd is None else svd
        h, factor = self.curve(s, min(R_hat.shape))
        rank = len(h)
        beyond = factor * s[rank:] ** 3 if ended else s[:0]
        columns = rank + len(beyond)
        U, V = U[:, :columns].copy(), V[:, :columns]
        users, items = (rows.own(size) for size in R_hat.shape)
        known = train.user_degrees > 0
        U[~known[users]] = rows.sums(U[known[users]]) / int(known.sum())
        if ended:
            h, factor = np.concatenate([h, beyond]), 0.0
        degrees = power(train.item_weights, self.popularity)
        inner, Y = h - factor * s[:columns] ** 3, V * degrees[items, None]
        return FilterScores(
            U, h, inner, Y, R_hat, R_hat.T.tocsr(), degrees, float(factor), users.start, R_hat.shape[0]
        )

    def decompose(self, train: Interactions, seed: int) -> SVD:
        """As many triplets as the filter has, the own rows of them."""
        R_hat = normalize(train, self.gamma_user, self.gamma_item)
        return svd_in_parts(R_hat, min(self.rank, *R_hat.shape), seed)

    def curve(self, s: np.ndarray, most: int) -> tuple[np.ndarray, float]:
        """h of every direction that the filter has, (directions,), and c', 0 where it has all. ``s``: the singular
        values at hand, ``most`` as many as the data can have."""
        # where the data has no direction left, nothing is beyond the rank: 1 / s_rank^2 would blow up rounding
        rank = min(self.rank, most)
        left = min(rank, max(int((s > 1e-3 * s[0]).sum()), 1))
        has_all = left == most or left < rank
        s = s[:left]
        mu = 3 * s[-1] ** 2
        return s**3 / (s**2 + mu), 0.0 if has_all else self.tail / (s[-1] ** 2 + mu)


@dataclass(frozen=True, eq=False)
class FilterScores:
    """The scores S of a ``SpectralFilter``, computed by blocks of users.

    ``base`` is the low-rank part of S that codes are fitted to everywhere; ``lists`` has the exact scores.
    A user without train items is scored as the mean of the others. Of several processes each has the own rows of U and
    Y, and scores its own users by ``with_all_items``. ``asking``: the rows of users who are none of R_hat's.
    """

    U: np.ndarray
    h: np.ndarray
    inner: np.ndarray  # h less what the tail brings inside the rank
    Y: np.ndarray
    R_hat: sparse.csr_array
    R_hat_T: sparse.csr_array
    degrees: np.ndarray
    factor: float
    first: int = 0  # user of U
    num_users: int | None = None  # None: as many as U has
    asking: sparse.csr_array | None = None

    @property
    def shape(self) -> tuple[int, int]:
        """(M, N)"""
        return (len(self.U) if self.num_users is None else self.num_users), len(self.degrees)

    def own(self, users: slice | np.ndarray) -> slice | np.ndarray:
        """Their rows of U."""
        if isinstance(users, slice):
            return slice(users.start - self.first, users.stop - self.first)
        return users - self.first

    def with_all_items(self) -> FilterScores:
        """With all rows of Y, which all processes ask for at once."""
        return self if processes.place()[1] == 1 else replace(self, Y=exchange.joined(self.Y))

    def products(self, X: np.ndarray, of: int = 0) -> np.ndarray:
        """X Y^T, of ``of`` rows in all."""
        return dense.product(X, self.Y.T, of=(max(len(X), of), len(self.Y)))

    def of_pairs(self, X: np.ndarray, users: np.ndarray, items: np.ndarray) -> np.ndarray:
        """<X[users_b], Y[items_b]>, (pairs,)."""
        return pair_scores(*(torch.from_numpy(side) for side in (X, self.Y, users, items))).numpy()

    def scores(self, users: slice | np.ndarray, of: int = 0) -> np.ndarray:
        """S of some users before the division by the rows' norms, (users, N) float32. ``of``: how many are asked for in
        all, by several processes."""
        U = self.U[self.own(users)] * self.inner
        S = self.products(U, of)
        if not self.factor:
            return S
        asking = self.R_hat if self.asking is None else self.asking
        R, R_T, factors = self.R_hat, self.R_hat_T, self.degrees * np.float32(self.factor)
        if max(len(S), of) >= _COLUMNS // 4 and self._whole_products_pay:
            numbers = np.arange(asking.shape[0])[users]
            for first in range(0, len(S), _COLUMNS):
                part = slice(first, first + _COLUMNS)
                own = np.ascontiguousarray(asking[numbers[part]].toarray().T)
                hops = sum(product(back, product(there, own)) for there, back in self._parts)
                S[part] += (hops * factors[:, None]).T
        else:
            starts, ends = asking.indptr[:-1][users], asking.indptr[1:][users]
            _add_three_hops(
                S, starts, ends, asking.indices, asking.data, R.indptr, R.indices, R.data * factors[R.indices],
                R_T.indptr, R_T.indices, R_T.data,
            )  # fmt: skip
        return S

    @cached_property
    def _parts(self) -> list[tuple[sparse.csr_array, sparse.csr_array]]:
        """R_hat and its transpose by ranges of the users that a hop reaches, so that what a product gathers stays
        in the cache."""
        ranges = (slice(first, first + _ROWS) for first in range(0, self.R_hat.shape[0], _ROWS))
        return [(back.T.tocsr(), back) for back in (self.R_hat_T[:, part].tocsr() for part in ranges)]

    @cached_property
    def _whole_products_pay(self) -> bool:
        """Whether products with all of R_hat, for many users at once, are faster than the three hops of one user
        after the other. Those pass only the interactions within reach, but each for some ten times the time;
        in dense data that is nearly all of them. A product also writes all items for every range of users."""
        some = self.R_hat[:: max(self.R_hat.shape[0] // 32, 1)]
        degrees = np.diff(self.R_hat.indptr)
        reached = ((some @ self.R_hat_T) != 0).dot(degrees).mean()
        return bool(reached > 0.1 * self.R_hat.nnz + self.R_hat.shape[0] / _ROWS * self.R_hat.shape[1])

    def base(self, norms: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """X = U diag(h) / norms, (M, rank), and Y = D_i^popularity V, (N, rank): the own rows of both."""
        return self.U * self.h / norms[:, None], self.Y

    def ranking(
        self,
        exclude: Interactions,
        length: int,
        progress: Progress | None = None,
        add: Callable[[np.ndarray, np.ndarray, slice], np.ndarray] | None = None,
        measured: int = 0,
    ) -> tuple[np.ndarray, tuple[np.ndarray, np.ndarray], sparse.csr_array]:
        """Of the own users: the norms of their scores, (M,), the ``base`` of these norms, and the ``length`` best
        unseen items of each user with their scores S, times the factor <x_u Y^T, t> / <t, t> that makes a user's
        targets t agree with the base. A base of too low a rank knows nothing of some users, whose targets it would set
        to zero: the factor of scores of unit norm is at least ``LEAST``. ``add(S, norms, users)`` may bring other
        scores to a block's S / norms before its best items are taken. Lists are ``measured`` long where that is more;
        the factor is that of the first ``length``."""
        num_users, num_items = self.shape
        whole = self.with_all_items()
        norms = np.empty(len(self.U), np.float32)

        def score(users: slice) -> np.ndarray:
            S, own = whole.scores(users), self.own(users)
            norms[own] = np.maximum(np.sqrt(np.vecdot(S, S)), 1e-12)
            return S if add is None else add(S, norms[own], users)

        top = top_lists(score, num_users, num_items, max(length, measured), exclude, progress)
        targets = heads(top, length)
        X, Y = self.base(norms)
        users = np.repeat(np.arange(len(X)), np.diff(targets.indptr))
        base = whole.of_pairs(X, users, targets.indices)
        along = np.bincount(users, base * targets.data, len(X))
        square = np.bincount(users, targets.data**2, len(X))
        least = LEAST / norms if add is None else LEAST
        factors = np.maximum(along / np.maximum(square, 1e-30), least).astype(np.float32)
        top.data *= np.repeat(factors, np.diff(top.indptr))
        return norms, (X, Y), top


@compiling.njit(parallel=True, cache=True, fastmath={"contract"})
def _add_three_hops(
    S, starts, ends, own_items, own_values, indptr, items, weights, indptr_T, users, values_T
):
    """S[t] += row t of the own rows times R_hat^T (R_hat with ``weights`` for its values)."""
    for t in prange(len(S)):
        row, reached = S[t], np.zeros(len(indptr) - 1, S.dtype)
        for e in range(starts[t], ends[t]):
            value = own_values[e]
            for f in range(indptr_T[own_items[e]], indptr_T[own_items[e] + 1]):
                reached[users[f]] += value * values_T[f]
        for v in range(len(reached)):
            value = reached[v]
            if value != 0:
                for e in range(indptr[v], indptr[v + 1]):
                    row[np.uint32(items[e])] += value * weights[e]  # unsigned: no check for a negative index
