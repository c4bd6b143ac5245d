"""Orthogonal matrices that turn embeddings before their signs are taken: random ones and ITQ's."""

from __future__ import annotations

import numpy as np

from l2q.kernels import dense


def random_rotation(dim: int, rng: np.random.Generator) -> np.ndarray:
    """A uniformly drawn orthogonal matrix, (dim, dim) float32: Q of a Gaussian matrix's QR with diag(R) > 0.

    >>> R = random_rotation(8, np.random.default_rng(0))
    >>> np.allclose(R.T @ R, np.eye(8), atol=1e-6)
    True
    """
    Q, R = np.linalg.qr(rng.standard_normal((dim, dim)))
    return (Q * np.where(np.diag(R) >= 0, 1, -1)).astype(np.float32)


@dense.one_thread()
def itq(
    X: np.ndarray, iterations: int = 10, *, rng: np.random.Generator, samples: int = 20_000
) -> np.ndarray:
    """A rotation R (dim, dim) of the rows of X (n, dim) that makes ||sign(X R) - X R|| small.

    From a random rotation on, signs and rotation take turns, each the best one for the other:

        B = sign(X R),    R = the polar factor of X^T B

    At most ``samples`` rows are used, drawn without replacement.
    Source: Gong and Lazebnik, "Iterative quantization", CVPR 2011.

    >>> rng = np.random.default_rng(0)
    >>> itq(rng.standard_normal((100, 8)), rng=rng).shape
    (8, 8)
    """
    if len(X) > samples:
        X = X[np.sort(rng.choice(len(X), samples, replace=False))]
    R = random_rotation(X.shape[1], rng).astype(X.dtype)
    for _ in range(iterations):
        B = np.where(dense.product(X, R) >= 0, 1, -1).astype(X.dtype)
        left, _, right = np.linalg.svd(dense.product(X.T, B))
        R = left @ right
    return R


@dense.one_thread()
def itq_rows(
    X: np.ndarray, width: int, iterations: int = 10, *, rng: np.random.Generator, samples: int = 4096
) -> np.ndarray:
    """``itq`` of X (n, dim) with zeros for the columns dim .. ``width`` - 1, the rows of R that X meets: (dim, width).

    The polar factor of A = X^T B is (A A^T)^-1/2 A, whose eigenvectors take a third of the time of A's singular
    vectors, and far less where dim is below ``width``. Small eigenvalues are raised to 1e-6 of the largest.

    >>> R = itq_rows(np.eye(4, 2, dtype=np.float32), 6, rng=np.random.default_rng(0))
    >>> R.shape, bool(np.allclose(R @ R.T, np.eye(2), atol=1e-5))
    ((2, 6), True)
    """
    if len(X) > samples:
        X = X[np.sort(rng.choice(len(X), samples, replace=False))]
    R = np.linalg.qr(rng.standard_normal((width, X.shape[1]), dtype=np.float32))[0].T.astype(X.dtype)
    for _ in range(iterations):
        A = X.T @ np.where(X @ R >= 0, 1, -1).astype(X.dtype)
        values, E = np.linalg.eigh(A @ A.T)
        R = (E / np.sqrt(np.maximum(values, 1e-6 * values[-1]))) @ (E.T @ A)
    return R
