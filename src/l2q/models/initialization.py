"""Where the embeddings start: each is called with (train, dim, seed) and returns both sides of E^(0)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from l2q.interactions import Interactions


@dataclass(frozen=True)
class Normal:
    """Independent N(0, std^2) entries."""

    std: float = 0.01

    def __call__(self, train: Interactions, dim: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
        rng = np.random.default_rng(seed)
        nodes = rng.standard_normal((train.num_users + train.num_items, dim), dtype=np.float32) * self.std
        return nodes[: train.num_users], nodes[train.num_users :]
