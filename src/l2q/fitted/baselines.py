"""Baselines without training: popularity, and the truncated SVD of the normalized interactions."""

from __future__ import annotations

import numpy as np

from l2q.fitted import Fitted
from l2q.interactions import Interactions, normalize
from l2q.kernels.svd import truncated_svd
from l2q.options import Count, options
from l2q.representations import Representations


@options("model")
class Popularity:
    """score(u, i) = degree of i, for every user: rows of one column."""

    name: str

    def fit(self, train: Interactions, seed: int) -> Fitted:
        users = np.ones((train.num_users, 1), np.float32)
        items = train.item_degrees.astype(np.float32)[:, None]
        return Fitted(Representations.floats(users, items))


@options("model")
class Spectral:
    """Truncated SVD of the normalized interactions: U sqrt(s) and V sqrt(s) of ``dim`` columns, whose products are the
    best approximation of R_hat = D_u^-gamma_user R D_i^-gamma_item of that rank. A width beyond the rank of the data
    is filled up with zeros."""

    name: str
    dim: Count
    gamma_user: float
    gamma_item: float

    def fit(self, train: Interactions, seed: int) -> Fitted:
        rank = min(self.dim, train.num_users, train.num_items)
        sides = spectral(train, rank, seed, self.gamma_user, self.gamma_item)
        users, items = (np.pad(side, ((0, 0), (0, self.dim - rank))) for side in sides)
        return Fitted(Representations.floats(users, items))


def spectral(
    train: Interactions, rank: int, seed: int, gamma_user: float = 0.5, gamma_item: float = 0.5
) -> tuple[np.ndarray, np.ndarray]:
    """U sqrt(s) and V sqrt(s) of the truncated SVD, (M, rank) and (N, rank) float32."""
    U, s, V = truncated_svd(normalize(train, gamma_user, gamma_item), rank, seed)
    return U * np.sqrt(s), V * np.sqrt(s)
