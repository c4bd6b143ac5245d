"""Truncated singular value decomposition of a sparse matrix."""

from __future__ import annotations

import numpy as np
from scipy import linalg, sparse

from l2q import exchange, processes
from l2q.errors import L2QError
from l2q.kernels import dense, rows
from l2q.kernels.sparse import multiply

SVD = tuple[np.ndarray, np.ndarray, np.ndarray]


def truncated_svd(
    R_hat: sparse.csr_array,
    rank: int,
    seed: int,
    power_iterations: int = 6,
    start: tuple[np.ndarray, np.ndarray] | None = None,
) -> SVD:
    """The ``rank`` largest singular triplets: U (M, rank), s (rank,) descending, V (N, rank), float32.

    Block power iteration starts from a random block a quarter wider than ``rank``, and Cholesky factors make it
    orthonormal. Where the block spans a whole side, the result is exact. The largest entry of each column of V is
    positive. Memory is O((M + N) rank). The result has the same bits for any number of threads.

    Interaction matrices have flat spectra, which need more iterations than others. On Gowalla the 768th value comes
    out 13 % too small with 2 iterations and 3 % too small with 6. With 6 the filter's Recall@20 on validation is 1 %
    higher. A ``start``, rows of users and of items that span about the same directions, such as U and V of a matrix
    that is nearly this one, takes the place of the block's first columns: then one or two iterations do.

    Raises L2QError for a rank outside 1 .. min(M, N).

    >>> U, s, V = truncated_svd(sparse.csr_array(np.diag(np.float32([1, 3, 2]))), rank=2, seed=0)
    >>> s.round(3)
    array([3., 2.], dtype=float32)

    Source: Halko, Martinsson and Tropp, "Finding structure with randomness", SIAM Review 2011, algorithm 4.4.
    """
    return whole(svd_in_parts(R_hat, rank, seed, power_iterations, start))


def whole(svd: SVD) -> SVD:
    """Of one in parts."""
    U, s, V = svd
    return exchange.joined(U), s, exchange.joined(V)


@dense.one_thread()
def svd_in_parts(
    R_hat: sparse.csr_array,
    rank: int,
    seed: int,
    power_iterations: int = 6,
    start: tuple[np.ndarray, np.ndarray] | None = None,
) -> SVD:
    """``truncated_svd`` with the own rows of U and V, from the own rows of a ``start`` (``l2q.kernels.rows``)."""
    if not 1 <= rank <= min(R_hat.shape):
        raise L2QError(f"rank={rank} must lie between 1 and {min(R_hat.shape)}, the smaller side of the data")
    tall = R_hat.shape[0] > R_hat.shape[1]
    R, R_T = R_hat, R_hat.T.tocsr()
    if tall:  # the block is made orthonormal on the smaller side
        R, R_T = R_T, R
    sizes = small, large = R.shape
    width = min(rank + (max(rank // 4, 64) if start is None else 64), *sizes)
    rng = np.random.default_rng(seed)
    for run in rows.runs(small)[: processes.place()[0] + 1]:  # as all would be drawn at once
        Q = rng.standard_normal((run.stop - run.start, width), dtype=np.float32)
    if start is not None:
        near = start[tall][:, :width]  # the smaller side's
        norms = np.sqrt(rows.sums(near * near))
        Q[:, : near.shape[1]] = near * (np.sqrt(small) / np.maximum(norms, 1e-12))
    for _ in range(power_iterations):
        Q = rows.by_columns(lambda part: product(R, product(R_T, part)), Q, (small, small))
        Q = _orthonormal(Q, small)
    Q = _orthonormal(Q, small)  # the second pass brings Q^T Q from the Gram's accuracy to float32's
    B = rows.by_columns(lambda part: product(R_T, part), Q, sizes)  # R ~ Q B^T
    driver = None if start is None else "evd"  # a third faster than the usual one, with other rounding
    values, W = linalg.eigh(rows.gram(B, large).astype(np.float64), check_finite=False, driver=driver)
    values, W = values[::-1][:rank], W[:, ::-1][:, :rank]
    s = np.sqrt(np.maximum(values, 0))
    V = rows.product(B, (W / np.maximum(s, 1e-6 * s[0])).astype(np.float32), large)
    U = rows.product(Q, W.astype(np.float32), small)
    if tall:
        U, V = V, U
    signs = rows.column_signs(V)
    U *= signs
    V *= signs
    return U, s.astype(np.float32), V


def product(matrix: sparse.csr_array, X: np.ndarray) -> np.ndarray:
    """matrix X, (rows, d)."""
    return multiply(matrix.indptr[:-1], matrix.indptr[1:], matrix.indices, matrix.data, X)


def _orthonormal(X: np.ndarray, size: int) -> np.ndarray:
    """Q with the span of X and Q^T Q = I: Q = X L^-T with X^T X = L L^T; own rows of (size, d).

    A little is added to the diagonal of X^T X, and more where that is not enough, so that columns which depend on each
    other do not stop it.
    """
    gram = rows.gram(X, size).astype(np.float64)
    shift = max(1e-7 * np.trace(gram) / len(gram), 1e-30)
    while True:
        try:
            L = linalg.cholesky(gram + shift * np.eye(len(gram)), lower=True)
            return dense.solve_lower(L, X)
        except linalg.LinAlgError:
            shift *= 10
