"""Codes for a new user from a list of items, without training."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy import sparse

from l2q.data.interactions import Interactions
from l2q.errors import L2QError
from l2q.representations import Representations, Rows


class FoldIn:
    """One hop of propagation from the items' de-quantized rows A_i^(s) = a_i^(s) Q_i^(s):

        x^(s) = sum_{i in items} A_i^(p) / sqrt(|items| deg_i)
        u^(s) = x^(s) O_s        code sign(u^(s)), scale ||u^(s)||_1 / dim_s

    p = s - 1 where segments are layers. Layer 0 is an embedding of its own, which a new user lacks: it is
    put where its items are, p = 0, as is the only segment of other models. That ranks better than leaving
    layer 0 out of the score.

    Layers may differ by a rotation before the sign, so O_s is the orthogonal matrix that best takes the known
    users' x^(s) to their own A_u^(s) (orthogonal Procrustes: the polar factor of sum_u x_u^T A_u, Schoenemann
    1966). It needs nothing beside the index. The identity fills the directions that no known user shows.
    """

    def __init__(self, representations: Representations, train: Interactions, item_degrees: np.ndarray):
        self._num_items = representations.num_items
        self._binary = representations.users.binary
        self._scaled = representations.users.scales is not None
        self._item_factors = 1 / np.sqrt(np.maximum(item_degrees, 1)).astype(np.float32)
        items, users = _dequantized(representations, "items"), _dequantized(representations, "users")
        self._sources = [items[max(s - 1, 0)] for s in range(len(items))]
        self._rotations = [
            _procrustes(self._propagate(train, source), user)
            for source, user in zip(self._sources, users, strict=True)
        ]

    def __call__(self, item_lists: Sequence[Sequence[int] | np.ndarray]) -> Rows:
        """One query row for each list of item ids. Raises L2QError for an empty list or an unknown id."""
        for place, items in enumerate(item_lists):
            if not len(items):
                raise L2QError(f"item list {place} is empty; a new user needs at least one item")
        lengths = [len(items) for items in item_lists]
        lists = Interactions.from_pairs(
            np.repeat(np.arange(len(item_lists)), lengths),
            np.concatenate(item_lists),
            len(item_lists),
            self._num_items,
        )
        segments = [
            self._propagate(lists, source) @ rotation
            for source, rotation in zip(self._sources, self._rotations, strict=True)
        ]
        values = np.concatenate(segments, axis=1)
        if not self._binary:
            return Rows(values)
        codes = np.where(values >= 0, 1, -1).astype(np.int8)
        return Rows(
            codes, np.stack([np.abs(x).mean(axis=1) for x in segments], axis=1) if self._scaled else None
        )

    def _propagate(self, lists: Interactions, source: np.ndarray) -> np.ndarray:
        """R_hat A: (lists, dim)."""
        degrees = np.maximum(lists.user_degrees, 1)
        weights = self._item_factors[lists.items] / np.sqrt(degrees)[lists.users].astype(np.float32)
        shape = (lists.num_users, self._num_items)
        return sparse.csr_array((weights, lists.items, lists.indptr), shape=shape) @ source


def _dequantized(representations: Representations, side: str) -> list[np.ndarray]:
    """A^(s) = a^(s) Q^(s) per segment, float32."""
    rows: Rows = getattr(representations, side)
    segments = np.split(rows.values, representations.offsets[1:-1], axis=1)
    if rows.scales is None:
        return [values.astype(np.float32) for values in segments]
    return [values * rows.scales[:, s, None].astype(np.float32) for s, values in enumerate(segments)]


def _procrustes(sources: np.ndarray, targets: np.ndarray) -> np.ndarray:
    """argmin over orthogonal O of ||sources O - targets||, float32."""
    covariance = sources.T.astype(np.float64) @ targets
    covariance += 1e-6 * np.linalg.norm(covariance) * np.eye(*covariance.shape)
    left, _, right = np.linalg.svd(covariance, full_matrices=False)
    return (left @ right).astype(np.float32)
