"""Orthogonal matrices that turn embeddings before their signs are taken: random ones and ITQ's."""

from __future__ import annotations

import numpy as np


def random_rotation(dim: int, rng: np.random.Generator) -> np.ndarray:
    """A uniformly drawn orthogonal matrix, (dim, dim) float32: Q of a Gaussian matrix's QR with diag(R) > 0.

    >>> R = random_rotation(8, np.random.default_rng(0))
    >>> np.allclose(R.T @ R, np.eye(8), atol=1e-6)
    True
    """
    Q, R = np.linalg.qr(rng.standard_normal((dim, dim)))
    return (Q * np.where(np.diag(R) >= 0, 1, -1)).astype(np.float32)


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
        B = np.where(X @ R >= 0, 1, -1).astype(X.dtype)
        left, _, right = np.linalg.svd(X.T @ B)
        R = left @ right
    return R
