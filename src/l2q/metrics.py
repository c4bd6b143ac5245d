"""Ranking metrics at K: Recall, NDCG, Precision, HitRate, MRR, one value per user.

For one user with n relevant items, hit_r = 1 where the item at rank r (from 1) is relevant, else 0:

    hits@K      = sum_{r <= K} hit_r
    Recall@K    = hits@K / n
    Precision@K = hits@K / K
    HitRate@K   = 1 if hits@K > 0 else 0
    NDCG@K      = sum_{r <= K} hit_r / log2(r + 1)  /  sum_{r <= min(K, n)} 1 / log2(r + 1)
    MRR@K       = 1 / (smallest r <= K with hit_r = 1), 0 without a hit

The ideal of NDCG comes from the n relevant items, whether retrieved or not, and Recall divides by n even
where n > K. A set's metric is the mean over its users.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np


def per_user_metrics(hits: np.ndarray, relevant: np.ndarray, ks: Sequence[int]) -> dict[str, np.ndarray]:
    """Every metric at every K as float64 (n,), keyed ``recall_20``, ``ndcg_20``, ``precision_20``, ...

    ``hits`` (n, depth) boolean in rank order, depth at least the largest K; ``relevant`` (n,) how many
    relevant items each user has. Raises ValueError for a K outside 1 .. depth, for a user without
    relevant items, or with more hits than relevant items (an item listed twice).
    """
    hits, relevant = np.asarray(hits, dtype=bool), np.asarray(relevant)
    depth = hits.shape[1]
    if not all(1 <= k <= depth for k in ks):
        raise ValueError(f"every K of {list(ks)} must lie in 1 .. {depth}, the depth of the rankings")
    if (relevant < np.maximum(hits.sum(axis=1), 1)).any():
        raise ValueError("every user needs a relevant item, and at least as many as hits")

    discounts = 1 / np.log2(np.arange(2, depth + 2))
    counts = hits.cumsum(axis=1)  # (n, depth): hits@K at column K - 1
    gains = (hits * discounts).cumsum(axis=1)  # (n, depth)
    ideal = discounts.cumsum()
    first = np.where(hits.any(axis=1), hits.argmax(axis=1) + 1, np.inf)  # rank of the first hit

    metrics = {}
    for k in ks:
        metrics[f"recall_{k}"] = counts[:, k - 1] / relevant
        metrics[f"ndcg_{k}"] = gains[:, k - 1] / ideal[np.minimum(k, relevant) - 1]
        metrics[f"precision_{k}"] = counts[:, k - 1] / k
        metrics[f"hit_rate_{k}"] = (counts[:, k - 1] > 0).astype(np.float64)
        metrics[f"mrr_{k}"] = np.where(first <= k, 1 / first, 0.0)
    return metrics
