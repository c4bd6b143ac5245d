"""The only way to a figure: full ranking through an index, hits against held-out items, metrics."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Protocol

import numpy as np

from l2q.errors import L2QError
from l2q.interactions import Interactions
from l2q.metrics import per_user_metrics

BYTES_PER_SCORE = 8  # for one user and item where the whole catalogue is scored: a float32, and as much again


def deciding_cutoff(num_items: int) -> int:
    """The k of the Recall@k that chooses an epoch or a filter: 20, in a small catalogue a quarter of it. Where k
    reaches what a user's train items leave of the catalogue, every ranking has Recall 1."""
    return max(min(20, num_items // 4), 1)


class Ranker(Protocol):
    """What ``evaluate`` asks of an index, ours or a wrapper around another library: the search of
    ``l2q.retrieval.index.Index`` by user ids."""

    num_users: int
    num_items: int

    def search(
        self, users: np.ndarray, k: int, exclude: Interactions | None = None
    ) -> tuple[np.ndarray, np.ndarray]: ...


@dataclass(frozen=True)
class Evaluation:
    """What a ranking gave each user: ``users`` (n,) with held-out items, ``hits`` (n, max(ks)) boolean in
    rank order, ``relevant`` (n,) how many items each user has held out."""

    users: np.ndarray
    hits: np.ndarray
    relevant: np.ndarray
    ks: tuple[int, ...]

    @cached_property
    def per_user(self) -> dict[str, np.ndarray]:
        """Every metric per user, float64 (n,), beside ``users``; keys as in ``metrics``."""
        return per_user_metrics(self.hits, self.relevant, self.ks)

    @cached_property
    def metrics(self) -> dict[str, float]:
        """Every metric as the mean over users: ``recall_20``, ``ndcg_20``, ..."""
        return {name: float(values.mean()) for name, values in self.per_user.items()}


def evaluate(
    index: Ranker,
    interactions: Interactions,
    ks: Sequence[int],
    exclude: Interactions | None = None,
    memory_mb: float = 512,
    progress: Callable[[int, int], None] | None = None,
) -> Evaluation:
    """Ranks the whole catalogue, without the items of ``exclude``, for every user of ``interactions``
    with items; users without are left out.

    Users go to ``index.search`` in chunks whose scores of all items take about ``memory_mb`` MiB, should the index
    keep them, halved where memory still runs out; the chunk does not change the result. ``progress(done, total)``
    is called after each chunk, in users.

    Raises L2QError for a K outside the catalogue, an index of another shape, or no interactions at all.
    """
    num_users, num_items = interactions.num_users, interactions.num_items
    ks = tuple(ks)
    if not ks or min(ks) < 1 or max(ks) > num_items:
        raise L2QError(f"eval.ks={list(ks)}: give cut-offs from 1 to {num_items}, the size of the catalogue")
    if (index.num_users, index.num_items) != (num_users, num_items):
        raise L2QError(
            f"the index has {index.num_users} users x {index.num_items} items, the data {num_users} x "
            f"{num_items}: evaluate it on the set that it was built from"
        )
    users = np.flatnonzero(interactions.user_degrees)
    if not len(users):
        raise L2QError("no held-out interactions to evaluate on: give a set with test items")

    hits = np.empty((len(users), max(ks)), dtype=bool)
    keys = interactions.keys
    chunk = max(int(memory_mb * 2**20) // (BYTES_PER_SCORE * num_items), 1)
    done = 0
    while done < len(users):
        batch = users[done : done + chunk]
        try:
            _, items = index.search(batch, max(ks), exclude)
        except MemoryError:
            if chunk == 1:
                raise
            chunk //= 2
            continue
        hits[done : done + len(batch)] = _contains(keys, batch[:, None], np.asarray(items), num_items)
        done += len(batch)
        if progress is not None:
            progress(done, len(users))
    return Evaluation(users, hits, interactions.user_degrees[users], ks)


def _keys(users: np.ndarray, items: np.ndarray, num_items: int) -> np.ndarray:
    """One integer per pair, ascending as users and then items ascend."""
    return users.astype(np.int64) * num_items + items


def _contains(keys: np.ndarray, users: np.ndarray, items: np.ndarray, num_items: int) -> np.ndarray:
    """Which pairs are among the ascending ``keys``; padding (item -1) is not, though its key is that of
    the previous user's last item."""
    wanted = _keys(users, items, num_items)
    found = keys[np.minimum(np.searchsorted(keys, wanted), len(keys) - 1)]
    return (found == wanted) & (items >= 0)
