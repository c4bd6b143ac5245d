"""The one record between learning and serving: rows of users and items, cut into segments.

    score(u, i) = sum_s ((w_s * a_us) * <q_us, q_is>) * a_is        in float32, s ascending

with q the values of segment s (a layer, for layer-wise models), a the scales, w the segment weights.
For codes <q_us, q_is> is an integer, so every back end that follows this order of operations gives the
same float32 score to the bit.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np


@dataclass(frozen=True)
class Rows:
    """One side. ``values`` (rows, sum of segment dims): float32, or int8 codes in {-1, +1};
    ``scales`` (rows, segments) float32, or None for ones (also where the side's scale cannot change
    its ranking)."""

    values: np.ndarray
    scales: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.values)

    @property
    def binary(self) -> bool:
        return self.values.dtype == np.int8


@dataclass(frozen=True)
class Representations:
    """Users and items. ``dims`` holds each segment's width, ``weights`` (segments,) float32 its factor in
    the score (the square of the layer weight, since users and items both carry it); ``scale_dtype``
    ("float16" or "float32") is how scales are stored: their values are already rounded to it."""

    users: Rows
    items: Rows
    dims: tuple[int, ...]
    weights: np.ndarray
    scale_dtype: str = "float32"

    @classmethod
    def floats(cls, users: np.ndarray, items: np.ndarray) -> Representations:
        """Rows (M, d) and (N, d) whose scores are their inner products."""
        return cls(Rows(users), Rows(items), (users.shape[1],), np.ones(1, np.float32))

    @property
    def num_users(self) -> int:
        return len(self.users)

    @property
    def num_items(self) -> int:
        return len(self.items)

    @property
    def offsets(self) -> np.ndarray:
        """Where each segment starts and the last ends, (segments + 1,)."""
        return np.concatenate(([0], np.cumsum(self.dims)))

    @property
    def binary(self) -> bool:
        return self.users.binary and self.items.binary

    def with_item_lengths(self, lengths: np.ndarray) -> Representations:
        """The same directions: item i, its values times its scales times the roots of the weights, gets the length
        ``lengths[i]``, by its scales if it has some, else by its values. An item of zeros stays one."""
        values, scales = self.items.values, self.items.scales
        starts = self.offsets[:-1]
        squares = np.add.reduceat(np.square(values, dtype=np.float32), starts, axis=1)
        if scales is not None:
            squares *= np.square(scales)
        now = np.sqrt(squares @ self.weights)
        factors = (lengths / np.maximum(now, np.finfo(np.float32).tiny)).astype(np.float32)[:, np.newaxis]
        if scales is None:
            return replace(self, items=Rows(values * factors))
        rounded = (scales * factors).astype(self.scale_dtype).astype(np.float32)
        return replace(self, items=Rows(values, rounded))

    def factors(self) -> tuple[np.ndarray, np.ndarray]:
        """The score as one inner product of float32 rows, (M, sum of dims) and (N, sum of dims): values times
        scales, the segment weights with the users."""
        sides = []
        for side, weights in ((self.users, self.weights), (self.items, np.ones_like(self.weights))):
            scales = weights if side.scales is None else side.scales * weights
            factors = np.broadcast_to(scales, (len(side), len(self.dims))).repeat(self.dims, axis=1)
            sides.append((side.values * factors).astype(np.float32))
        return sides[0], sides[1]
