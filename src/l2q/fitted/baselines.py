"""Baselines without training: popularity, and the truncated SVD of the normalized interactions."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from l2q.interactions import Interactions, normalize
from l2q.kernels.svd import truncated_svd


def spectral(train: Interactions, dim: int, seed: int, gamma_user=0.5, gamma_item=0.5):
    """Truncated SVD as embeddings, (M, dim) and (N, dim) float32: U sqrt(s) and V sqrt(s), whose products are
    the best approximation of R_hat of that rank."""
    U, s, V = truncated_svd(normalize(train, gamma_user, gamma_item), dim, seed)
    return U * np.sqrt(s), V * np.sqrt(s)


@dataclass(frozen=True)
class Popularity:
    """score(u, i) = degree of i, for every user: the first column holds it, the others are zero."""

    def __call__(self, train: Interactions, dim: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
        users = np.zeros((train.num_users, dim), dtype=np.float32)
        items = np.zeros((train.num_items, dim), dtype=np.float32)
        users[:, 0] = 1
        items[:, 0] = train.item_degrees
        return users, items


@dataclass(frozen=True)
class Spectral:
    """Truncated SVD of the normalized interactions: U sqrt(s) and V sqrt(s) (``l2q.fitted.filter``); a
    width beyond the rank of the data is filled up with zeros."""

    gamma_user: float = 0.5
    gamma_item: float = 0.5

    def __call__(self, train: Interactions, dim: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
        rank = min(dim, train.num_users, train.num_items)
        sides = spectral(train, rank, seed, self.gamma_user, self.gamma_item)
        users, items = (np.pad(side, ((0, 0), (0, dim - rank))) for side in sides)
        return users, items
