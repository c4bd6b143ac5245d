"""Where the embeddings start: each is called with (train, dim, seed) and returns both sides of E^(0)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from l2q.data.interactions import Interactions
from l2q.models.spectral import spectral


@dataclass(frozen=True)
class Normal:
    """Independent N(0, std^2) entries."""

    std: float = 0.01

    def __call__(self, train: Interactions, dim: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
        rng = np.random.default_rng(seed)
        nodes = rng.standard_normal((train.num_users + train.num_items, dim), dtype=np.float32) * self.std
        return nodes[: train.num_users], nodes[train.num_users :]


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
    """Truncated SVD of the normalized interactions: U sqrt(s) and V sqrt(s) (``l2q.models.spectral``); a
    width beyond the rank of the data is filled up with zeros."""

    gamma_user: float = 0.5
    gamma_item: float = 0.5

    def __call__(self, train: Interactions, dim: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
        rank = min(dim, train.num_users, train.num_items)
        sides = spectral(train, rank, seed, self.gamma_user, self.gamma_item)
        users, items = (np.pad(side, ((0, 0), (0, dim - rank))) for side in sides)
        return users, items
