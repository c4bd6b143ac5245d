"""Spectral models without training: truncated SVD, a graph filter, and rotations of their factors.

R_hat = D_u^-gu R D_i^-gi = U diag(s) V^T
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from numba import njit, prange
from scipy import linalg, sparse

from l2q.data.interactions import Interactions
from l2q.errors import L2QError, check_whole
from l2q.models.pairs import pair_scores
from l2q.models.sparse import multiply
from l2q.models.top_lists import Progress, heads, top_lists

_ROWS, _COLUMNS = 4096, 64  # users of a range, and users of a block, in products with all of R_hat
LEAST = 0.1  # that a user's targets are multiplied by: see FilterScores.lists
SVD = tuple[np.ndarray, np.ndarray, np.ndarray]


def normalize(train: Interactions, gamma_user: float = 0.5, gamma_item: float = 0.5) -> sparse.csr_array:
    """R_hat = D_u^-gamma_user R D_i^-gamma_item, float32."""
    users = _power(train.user_degrees, -gamma_user)
    items = _power(train.item_degrees, -gamma_item)
    values = np.repeat(users, train.user_degrees) * items[train.items]
    shape = (train.num_users, train.num_items)
    return sparse.csr_array((values, train.items, train.indptr.astype(np.int32)), shape=shape)


def truncated_svd(R_hat: sparse.csr_array, rank: int, seed: int, power_iterations: int = 6) -> SVD:
    """The ``rank`` largest singular triplets: U (M, rank), s (rank,) descending, V (N, rank), float32.

    Block power iteration from a random block a quarter wider than ``rank``, made orthonormal by Cholesky
    factors; exact where the block spans a whole side. The largest entry of each column of V is positive.
    O((M + N) rank) memory. Interaction matrices have flat spectra: with 2 iterations Gowalla's 768th value
    comes out 13 % too small, with 6 by 3 %, and the filter's Recall@20 on validation is 1 % higher for it.

    Source: Halko, Martinsson and Tropp, "Finding structure with randomness", SIAM Review 2011, algorithm 4.4.
    """
    if not 1 <= rank <= min(R_hat.shape):
        raise L2QError(f"rank={rank} must lie between 1 and {min(R_hat.shape)}, the smaller side of the data")
    tall = R_hat.shape[0] > R_hat.shape[1]
    R, R_T = R_hat, R_hat.T.tocsr()
    if tall:  # the block is made orthonormal on the smaller side
        R, R_T = R_T, R
    width = min(rank + max(rank // 4, 64), *R.shape)
    Q = np.random.default_rng(seed).standard_normal((R.shape[0], width), dtype=np.float32)
    for _ in range(power_iterations):
        Q = _orthonormal(_product(R, _product(R_T, Q)))
    Q = _orthonormal(Q)  # the second pass brings Q^T Q from the Gram's accuracy to float32's
    B = _product(R_T, Q)  # R ~ Q B^T
    values, W = linalg.eigh((B.T @ B).astype(np.float64), check_finite=False)
    values, W = values[::-1][:rank], W[:, ::-1][:, :rank]
    s = np.sqrt(np.maximum(values, 0))
    V = B @ (W / np.maximum(s, 1e-6 * s[0])).astype(np.float32)
    U = Q @ W.astype(np.float32)
    if tall:
        U, V = V, U
    signs = column_signs(V)
    return U * signs, s.astype(np.float32), V * signs


def column_signs(V: np.ndarray) -> np.ndarray:
    """The sign of each column's largest entry: what fixes a singular vector's free sign."""
    largest = V[np.argmax(np.abs(V), axis=0), np.arange(V.shape[1])]
    return np.where(largest >= 0, 1, -1).astype(V.dtype)


def spectral(train: Interactions, dim: int, seed: int, gamma_user=0.5, gamma_item=0.5):
    """Truncated SVD as embeddings, (M, dim) and (N, dim) float32: U sqrt(s) and V sqrt(s), whose products are
    the best approximation of R_hat of that rank."""
    U, s, V = truncated_svd(normalize(train, gamma_user, gamma_item), dim, seed)
    return U * np.sqrt(s), V * np.sqrt(s)


@dataclass(frozen=True)
class SpectralFilter:
    """Smooth low-pass filter of the interaction graph with a linear tail, and a factor for popularity.

        h_k = s_k^3 / (s_k^2 + mu)  for k <= rank,    mu = 3 s_rank^2,    c' = tail / (s_rank^2 + mu)
        S = [U diag(h - c' s^3) V^T + c' R_hat R_hat^T R_hat] D_i^popularity,    rows to unit norm

    The tail lets all directions beyond ``rank`` through with s^3, the weight of one more hop.
    """

    gamma_user: float = 0.3
    gamma_item: float = 0.5
    popularity: float = 0.5
    rank: int = 768
    tail: float = 0.4

    def __post_init__(self) -> None:
        check_whole("filter.rank", self.rank, 1)

    def __call__(self, train: Interactions, seed: int, svd: SVD | None = None) -> FilterScores:
        """``svd``: triplets of ``normalize(train, gamma_user, gamma_item)`` at hand, at least ``rank``."""
        R_hat = normalize(train, self.gamma_user, self.gamma_item)
        rank = min(self.rank, *R_hat.shape)
        U, s, V = truncated_svd(R_hat, rank, seed) if svd is None else svd
        # where the data has no direction left, nothing is beyond the rank: 1 / s_rank^2 would blow up rounding
        rank = min(rank, max(int((s > 1e-3 * s[0]).sum()), 1))
        whole = rank == min(R_hat.shape) or rank < min(self.rank, *R_hat.shape)
        U, s, V = U[:, :rank].copy(), s[:rank], V[:, :rank]
        U[train.user_degrees == 0] = U[train.user_degrees > 0].mean(axis=0)
        mu = 3 * s[-1] ** 2
        factor = 0 if whole else self.tail / (s[-1] ** 2 + mu)
        h = s**3 / (s**2 + mu)
        degrees = _power(train.item_degrees, self.popularity)
        inner, Y = h - factor * s**3, V * degrees[:, None]
        return FilterScores(U, h, inner, Y, R_hat, R_hat.T.tocsr(), degrees, float(factor))


@dataclass(frozen=True, eq=False)
class FilterScores:
    """The scores S of a ``SpectralFilter``, computed by blocks of users.

    ``base`` is the low-rank part of S that codes are fitted to everywhere; ``lists`` has the exact scores.
    A user without train items is scored as the mean of the others.
    """

    U: np.ndarray
    h: np.ndarray
    inner: np.ndarray  # h less what the tail brings inside the rank
    Y: np.ndarray
    R_hat: sparse.csr_array
    R_hat_T: sparse.csr_array
    degrees: np.ndarray
    factor: float

    def scores(self, users: slice | np.ndarray) -> np.ndarray:
        """S of some users before the division by the rows' norms, (users, N) float32."""
        S = (self.U[users] * self.inner) @ self.Y.T
        if not self.factor:
            return S
        R, R_T, factors = self.R_hat, self.R_hat_T, self.degrees * np.float32(self.factor)
        if len(S) >= _COLUMNS // 4 and self._whole_products_pay:
            numbers = np.arange(R.shape[0])[users]
            for first in range(0, len(S), _COLUMNS):
                part = slice(first, first + _COLUMNS)
                own = np.ascontiguousarray(R[numbers[part]].toarray().T)
                hops = sum(_product(back, _product(there, own)) for there, back in self._parts)
                S[part] += (hops * factors[:, None]).T
        else:
            starts, ends = R.indptr[:-1][users], R.indptr[1:][users]
            _add_three_hops(
                S, starts, ends, R.indptr, R.indices, R.data, R_T.indptr, R_T.indices, R_T.data,
                R.data * factors[R.indices],
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

    def lists(
        self,
        exclude: Interactions,
        length: int,
        progress: Progress | None = None,
        add: Callable[[np.ndarray, np.ndarray, slice], np.ndarray] | None = None,
        measured: int = 0,
    ) -> tuple[tuple[np.ndarray, np.ndarray], sparse.csr_array]:
        """What codes are fitted to: the base X = U diag(h) / norm, (M, rank), and Y = D_i^popularity V,
        (N, rank), and the ``length`` best unseen items of each user with their scores S, times the factor
        <x_u Y^T, t> / <t, t> that makes a user's targets t agree with the base. A base of too low a rank knows
        nothing of some users, whose targets it would set to zero: the factor of scores of unit norm is at least
        ``LEAST``. ``add(S, norms, users)`` may bring other scores to a block's S / norms before its best items
        are taken. Lists are ``measured`` long where that is more; the factor is that of the first ``length``."""
        num_users, num_items = len(self.U), len(self.Y)
        norms = np.empty(num_users, np.float32)

        def score(users: slice) -> np.ndarray:
            S = self.scores(users)
            norms[users] = np.maximum(np.sqrt(np.vecdot(S, S)), 1e-12)
            return S if add is None else add(S, norms[users], users)

        top = top_lists(score, num_users, num_items, max(length, measured), exclude, progress)
        targets = heads(top, length)
        X = self.U * self.h / norms[:, None]
        users = np.repeat(np.arange(num_users), np.diff(targets.indptr))
        base = pair_scores(
            torch.from_numpy(X),
            torch.from_numpy(self.Y),
            torch.from_numpy(users),
            torch.from_numpy(targets.indices),
        ).numpy()
        along = np.bincount(users, base * targets.data, num_users)
        square = np.bincount(users, targets.data**2, num_users)
        least = LEAST / norms if add is None else LEAST
        factors = np.maximum(along / np.maximum(square, 1e-30), least).astype(np.float32)
        top.data *= np.repeat(factors, np.diff(top.indptr))
        return (X, self.Y), top


def random_rotation(dim: int, rng: np.random.Generator) -> np.ndarray:
    """A uniformly drawn orthogonal matrix, (dim, dim) float32: Q of a Gaussian matrix's QR with diag(R) > 0."""
    Q, R = np.linalg.qr(rng.standard_normal((dim, dim)))
    return (Q * np.where(np.diag(R) >= 0, 1, -1)).astype(np.float32)


def itq(
    X: np.ndarray, iterations: int = 10, *, rng: np.random.Generator, samples: int = 20_000
) -> np.ndarray:
    """The rotation R (dim, dim) of the rows of X (n, dim) that lowers ||sign(X R) - X R||, from a random one:

        B = sign(X R),    R = the polar factor of X^T B    (each the best for the other)

    on at most ``samples`` rows, drawn without replacement.
    Source: Gong and Lazebnik, "Iterative quantization", CVPR 2011.
    """
    if len(X) > samples:
        X = X[np.sort(rng.choice(len(X), samples, replace=False))]
    R = random_rotation(X.shape[1], rng).astype(X.dtype)
    for _ in range(iterations):
        B = np.where(X @ R >= 0, 1, -1).astype(X.dtype)
        left, _, right = np.linalg.svd(X.T @ B)
        R = left @ right
    return R


def _power(degrees: np.ndarray, exponent: float) -> np.ndarray:
    """degrees^exponent in float32, 0 where the degree is 0."""
    return np.where(degrees > 0, np.maximum(degrees, 1.0) ** exponent, 0).astype(np.float32)


def _product(matrix: sparse.csr_array, X: np.ndarray) -> np.ndarray:
    return multiply(matrix.indptr[:-1], matrix.indptr[1:], matrix.indices, matrix.data, X)


def _orthonormal(X: np.ndarray) -> np.ndarray:
    """Q with the span of X and Q^T Q = I: X L^-T with X^T X = L L^T. A little is added to the diagonal, and
    more where that is not enough, so that a span of lower dimension does not stop it."""
    gram = (X.T @ X).astype(np.float64)
    shift = max(1e-7 * np.trace(gram) / len(gram), 1e-30)
    while True:
        try:
            L = linalg.cholesky(gram + shift * np.eye(len(gram)), lower=True)
            break
        except linalg.LinAlgError:
            shift *= 10
    trsm = linalg.get_blas_funcs("trsm", (X,))
    return trsm(1.0, np.asfortranarray(L, X.dtype), X.T, lower=1).T  # L^-1 X^T


@njit(parallel=True, cache=True, fastmath={"contract"})
def _add_three_hops(S, starts, ends, indptr, items, values, indptr_T, users, values_T, weights):
    """S[t] += row t of R_hat R_hat^T (R_hat with ``weights`` for its values)."""
    for t in prange(len(S)):
        row, reached = S[t], np.zeros(len(indptr) - 1, S.dtype)
        for e in range(starts[t], ends[t]):
            value = values[e]
            for f in range(indptr_T[items[e]], indptr_T[items[e] + 1]):
                reached[users[f]] += value * values_T[f]
        for v in range(len(reached)):
            value = reached[v]
            if value != 0:
                for e in range(indptr[v], indptr[v + 1]):
                    row[np.uint32(items[e])] += value * weights[e]  # unsigned: no check for a negative index
