"""What the fast code is held to: the same results by plain NumPy."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from l2q.interactions import Interactions


def top_k_reference(
    queries: np.ndarray,
    factors: np.ndarray,
    values: np.ndarray,
    dims: Sequence[int],
    scales: np.ndarray | None,
    k: int,
    exclude: Interactions | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """``packed.top_k`` as plain NumPy on unpacked codes: the definition in code. ``queries`` are int8 codes or
    float32 values, ``values`` the int8 codes of the items."""
    factors = np.broadcast_to(factors, (len(queries), len(dims)))
    total = np.full((len(queries), len(values)), -0.0, np.float32)  # -0.0 + x is x, to the bit
    start = 0
    for s, dim in enumerate(dims):
        left, right = queries[:, start : start + dim], values[:, start : start + dim]
        if queries.dtype == np.float32:
            dot = np.zeros(total.shape, np.float32)
            for group in range(0, dim, 4):
                products = [left[:, None, j] * right[None, :, j] for j in range(group, min(group + 4, dim))]
                dot += sum(products[1:], products[0])
        else:
            dot = (left.astype(np.int32) @ right.astype(np.int32).T).astype(np.float32)
        term = factors[:, s, None] * dot
        total += term if scales is None else term * scales[:, s]
        start += dim
    found_scores = np.full((len(queries), k), -np.inf, np.float32)
    found_items = np.full((len(queries), k), -1, np.int32)
    for row, scores in enumerate(total):
        left_over = np.ones(len(values), bool)
        if exclude is not None:
            left_over[exclude[row]] = False
        ids = np.flatnonzero(left_over)
        best = ids[np.argsort(-scores[ids], kind="stable")][:k]
        found_scores[row, : len(best)], found_items[row, : len(best)] = scores[best], best
    return found_scores, found_items
