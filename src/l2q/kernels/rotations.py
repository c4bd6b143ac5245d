"""Orthogonal matrices that are put before a sign: random ones and ITQ's."""

from __future__ import annotations

import numpy as np


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
