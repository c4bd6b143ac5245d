"""Which of a user's items are held out, for a test or for validation.

A split is a class with two things of its own: ``least``, the fewest items of a user who gives some away, and
``order``, whose smallest values go first. A new one is added to ``SPLITS`` and nowhere else.
"""

from __future__ import annotations

from abc import ABC, abstractmethod

import numpy as np

from l2q.errors import L2QError
from l2q.interactions import Interactions, normalize


class Split(ABC):
    """Cuts interactions in two: what remains, and what is held out."""

    least: int

    @abstractmethod
    def order(self, interactions: Interactions, seed: int) -> np.ndarray:
        """A number for every pair, (nnz,): of each user's items, those with the smallest are held out."""

    def __call__(
        self, interactions: Interactions, fraction: float, seed: int
    ) -> tuple[Interactions, Interactions]:
        """(rest, held out), of the same shape and names.

        A user with n >= ``least`` items gives ``fraction`` * n of them: halves are rounded up, at least 1 goes and at
        least 1 stays. Other users give none. Where users have so few items that this would be more than one and a
        half times ``fraction`` of all pairs, only every second of these users gives, from two and a half times on
        every third, and so forth. Raises L2QError for a fraction outside 0 .. 1.
        """
        if not 0 < fraction < 1:
            raise L2QError(f"fraction={fraction} must lie between 0 and 1")
        degrees = interactions.user_degrees
        # the small term mends products such as .29 * 50 = 14.4999...
        sizes = np.clip(np.floor(fraction * degrees + 0.5 + 1e-9).astype(np.int64), 1, degrees - 1)
        sizes[degrees < self.least] = 0
        givers = np.flatnonzero(sizes)
        every = max(round(sizes.sum() / max(fraction * len(interactions), 1)), 1)
        sizes[np.setdiff1d(givers, givers[::every])] = 0
        by_order = np.lexsort((self.order(interactions, seed), interactions.users))
        rank = np.arange(len(interactions)) - np.repeat(interactions.indptr[:-1], degrees)
        held = np.empty(len(interactions), dtype=bool)
        held[by_order] = rank < np.repeat(sizes, degrees)
        return interactions.select(~held), interactions.select(held)


class Random(Split):
    """Any of a user's items, each as likely as the others."""

    least = 2

    def order(self, interactions: Interactions, seed: int) -> np.ndarray:
        return np.random.default_rng(seed).random(len(interactions))


class Cluster(Split):
    """A corner of a user's taste: one of the user's items is drawn, and is held out with those of the user's own
    items that are nearest to it. Predicting them asks for what a user turns to next rather than for more of the same,
    as a later test does.

    Near is the cosine of ``vectors`` (num_items, dim), by default the right singular vectors of the normalized
    interactions (rank 128); of equally near items the lower id goes first. Users with fewer than 6 items give none.
    """

    least = 6

    def __init__(self, vectors: np.ndarray | None = None) -> None:
        self.vectors = vectors

    def order(self, interactions: Interactions, seed: int) -> np.ndarray:
        vectors = self.vectors
        if vectors is None:
            from l2q.kernels.svd import truncated_svd  # compiled code, which options alone do not need

            rank = min(128, interactions.num_users, interactions.num_items)
            _, _, vectors = truncated_svd(normalize(interactions), rank, seed)
        degrees, items = interactions.user_degrees, interactions.items
        draws = np.random.default_rng(seed).random(interactions.num_users)
        drawn = np.repeat(
            interactions.indptr[:-1] + (draws * degrees).astype(np.int64), degrees
        )  # (nnz,) places
        unit = vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)
        cosine = np.empty(len(items), dtype=unit.dtype)
        for first in range(0, len(items), 65536):  # two gathered blocks at a time, not two (nnz, dim) arrays
            block = slice(first, first + 65536)
            np.vecdot(unit[items[block]], unit[items[drawn[block]]], out=cosine[block])
        cosine[drawn] = np.inf
        return -cosine


SPLITS: dict[str, type[Split]] = {"random": Random, "cluster": Cluster}


def split(
    interactions: Interactions, how: str | Split = "random", *, fraction: float = 0.2, seed: int = 0
) -> tuple[Interactions, Interactions]:
    """Cuts ``interactions`` in two, user by user: (train, test), both with all users, items and names.

    ``how`` is a name in ``SPLITS`` or a ``Split`` of your own; ``fraction`` of each user's items are test; ``seed``
    fixes which. Raises L2QError for an unknown name or a fraction outside 0 .. 1.

        train, test = l2q.split(events, "random", fraction=0.2, seed=0)
    """
    if isinstance(how, str):
        if how not in SPLITS:
            raise L2QError(f"split={how} is unknown; use {' or '.join(SPLITS)}")
        how = SPLITS[how]()
    return how(interactions, fraction, seed)
