"""What users are shown of whom train knows nothing: the most popular items."""

from __future__ import annotations

import numpy as np

from l2q.evaluation import Ranker
from l2q.interactions import Interactions
from l2q.representations import Rows


class Served:
    """An index as it answers. A user without train items has a row that nothing was learned for: a ranking by it would
    be arbitrary, so the items with the most users in train come instead, whatever the model; their ``item_degrees``
    are the scores.

    Who has no train items says ``exclude``. A search without it, by query rows, or of an index that knows no train
    items at all, is that of ``backend``.
    """

    def __init__(self, backend: Ranker, item_degrees: np.ndarray) -> None:
        self.backend, self.item_degrees = backend, item_degrees
        self.num_users, self.num_items = backend.num_users, backend.num_items

    def search(
        self, users: np.ndarray | Rows, k: int, exclude: Interactions | None = None
    ) -> tuple[np.ndarray, np.ndarray]:
        scores, items = self.backend.search(users, k, exclude)
        if isinstance(users, Rows) or exclude is None:
            return scores, items
        unknown = exclude.user_degrees[np.asarray(users)] == 0
        if unknown.any() and self.item_degrees.any():
            found = popular(self.item_degrees, k)
            scores[unknown], items[unknown] = -np.inf, -1
            scores[unknown, : len(found)], items[unknown, : len(found)] = self.item_degrees[found], found
        return scores, items


def popular(item_degrees: np.ndarray, k: int) -> np.ndarray:
    """The ``k`` items with the most users, fewer where there are fewer; of equal ones the lower id first."""
    k = min(k, len(item_degrees))
    least = np.partition(item_degrees, len(item_degrees) - k)[len(item_degrees) - k]
    candidates = np.flatnonzero(item_degrees >= least)
    return candidates[np.argsort(-item_degrees[candidates].astype(np.int64), kind="stable")][:k]
