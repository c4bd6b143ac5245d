"""Where the embeddings start: each is called with (train, dim, seed) and returns both sides of E^(0)."""

from __future__ import annotations

from typing import Any

import numpy as np

from l2q.errors import L2QError
from l2q.interactions import Interactions
from l2q.options import NotNegative, Positive, options

DRAWN = 1 << 22  # numbers that are drawn at once, where most of them are not kept


@options("model.initialization")
class Normal:
    """Independent N(0, std^2) entries."""

    std: NotNegative

    def __call__(self, train: Interactions, dim: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
        rng = np.random.default_rng(seed)
        nodes = rng.standard_normal((train.num_users + train.num_items, dim), dtype=np.float32) * self.std
        return nodes[: train.num_users], nodes[train.num_users :]

    def part(self, train: Interactions, dim: int, seed: int, columns: slice) -> tuple[np.ndarray, np.ndarray]:
        """These ``columns`` of what the call returns. Rows are drawn a block at a time: the others need no memory."""
        rng = np.random.default_rng(seed)
        number, width = train.num_users + train.num_items, len(range(dim)[columns])
        nodes, block = np.empty((number, width), np.float32), max(DRAWN // dim, 1)
        for first in range(0, number, block):
            rows = min(block, number - first)
            drawn = rng.standard_normal((rows, dim), dtype=np.float32)
            nodes[first : first + rows] = drawn[:, columns] * self.std
        return nodes[: train.num_users], nodes[train.num_users :]


@options("model.initialization")
class FromFitted:
    """Training goes on from the rows of a ``model`` that is fitted first, such as ``l2q.fitted.baselines.Spectral``:
    from its factors, or from its codes times their scales. One factor for all rows gives their entries the standard
    deviation ``std``, which decides how far a learning rate goes; None: they stay as they were fitted."""

    model: Any
    std: Positive | None

    def __call__(self, train: Interactions, dim: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
        users, items = self.model.fit(train, seed).representations.factors()
        if users.shape[1] != dim:
            raise L2QError(
                f"model.embedding_dim={dim}: the fitted rows have {users.shape[1]} columns; give as many"
            )
        if self.std is not None:
            entries = np.concatenate([users.ravel(), items.ravel()])
            factor = np.float32(self.std / max(entries.std(), np.finfo(np.float32).tiny))
            users, items = users * factor, items * factor
        return users, items
