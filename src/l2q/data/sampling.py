"""Triplets for ranking losses: every train pair once per epoch, each with an item its user does not have."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from typing import NamedTuple

import numba
import numpy as np

from l2q.errors import L2QError
from l2q.interactions import Interactions
from l2q.kernels import compiling


class Triplets(NamedTuple):
    """One batch, int64 arrays: ``users`` have ``pos_items``, (batch,) both, and do not have ``neg_items``,
    (candidates * batch,): a negative for every pair, then for every pair another, ...; none without candidates."""

    users: np.ndarray
    pos_items: np.ndarray
    neg_items: np.ndarray


class TripletSampler:
    """Batches of (user, positive, negative); what an epoch holds depends on (seed, epoch) alone. ``candidates`` is
    the number of independent negatives of every pair. ``by_users`` fills a batch with all pairs of some users, about
    ``batch_size`` in all, as many users in each: scores of a batch's users with its items are then far fewer.

    A user who has every item has no negative: that user's pairs take no part, and ``train`` holds the pairs
    that do. Raises L2QError where none are left.
    """

    def __init__(
        self, train: Interactions, batch_size: int, seed: int, candidates: int = 1, by_users: bool = False
    ) -> None:
        if batch_size < 1:
            raise L2QError(f"batch_size={batch_size} must be at least 1")
        has_negatives = train.user_degrees < train.num_items
        if not has_negatives.all():
            train = train.select(np.repeat(has_negatives, train.user_degrees))
        if not len(train):
            raise L2QError("no train pair has a negative: every user with items has all of them")
        self.train, self.batch_size, self.seed, self.candidates = train, batch_size, seed, candidates
        self.by_users = by_users

    def __len__(self) -> int:
        """Batches per epoch, the last one possibly smaller."""
        batches = -(-len(self.train) // self.batch_size)
        return min(batches, int(np.count_nonzero(self.train.user_degrees))) if self.by_users else batches

    def epoch(self, epoch: int) -> Iterator[Triplets]:
        """Every train pair once, shuffled. Drawing begins with the call, and the next batch is drawn while the
        caller has the one before."""
        worker, batches = ThreadPoolExecutor(1), self._draw(epoch)
        return _one_ahead(worker, batches, worker.submit(next, batches, None))

    def keys(self, epoch: int) -> list[np.uint64]:
        """Of the order of the pairs, and of every candidate."""
        first, order, *more = np.random.SeedSequence((self.seed, epoch)).generate_state(
            self.candidates + 2, np.uint64
        )
        return [order, *[first, *more][: self.candidates]]

    def _draw(self, epoch: int) -> Iterator[Triplets]:
        users, items = self.train.users, self.train.items
        order, *keys = self.keys(epoch)
        batches = self.of_users(order) if self.by_users else self._of_pairs(order)
        indptr, num_items = self.train.indptr, self.train.num_items
        negatives = np.empty((self.candidates, len(items)), np.int32)
        for row, key in zip(negatives, keys, strict=True):
            row[:] = draw_negatives(indptr, items, num_items, key)
        for pairs in batches:
            batch = _gather(pairs, users, items, negatives)
            yield Triplets(batch[0], batch[1], batch[2:].reshape(-1))

    def _of_pairs(self, key: np.uint64) -> Iterator[np.ndarray]:
        order = _permutation(len(self.train), key)
        for start in range(0, len(order), self.batch_size):
            yield order[start : start + self.batch_size]

    def of_users(self, key: np.uint64) -> Iterator[np.ndarray]:
        """The numbers of the pairs of every batch."""
        present, indptr = np.flatnonzero(self.train.user_degrees), self.train.indptr
        for users in np.array_split(present[_permutation(len(present), key)], len(self)):
            yield np.concatenate([np.arange(indptr[user], indptr[user + 1]) for user in np.sort(users)])


def _one_ahead(worker: Executor, batches: Iterator[Triplets], ahead: Future) -> Iterator[Triplets]:
    with worker:
        while (batch := ahead.result()) is not None:
            ahead = worker.submit(next, batches, None)
            yield batch


@numba.njit(inline="always")
def below(bound: int, key: np.uint64, number: int) -> int:
    """A uniform integer from 0 .. bound - 1: number ``number`` of the stream SplitMix64(key)
    (Steele, Lea and Flood, 2014), so it depends on no other draw."""
    bits = key + np.uint64(number + 1) * np.uint64(0x9E3779B97F4A7C15)
    bits = (bits ^ (bits >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    bits = (bits ^ (bits >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    bits ^= bits >> np.uint64(31)
    return int((bits >> np.uint64(11)) * 2.0**-53 * bound)


@compiling.njit(nogil=True, cache=True)
def draw_negatives(indptr: np.ndarray, items: np.ndarray, num_items: int, key: np.uint64) -> np.ndarray:
    """One negative for every pair, (nnz,) int32, uniform over the items that the pair's user does not have.

    No draw is ever rejected: with the row i_0 < i_1 < ... of n items, draw r from 0 .. num_items - n - 1 and
    return the r-th missing item, r + #{k : i_k - k <= r}, found by bisection, since i_k - k is the number of
    missing items below i_k. Every row must leave an item out. Going by rows keeps each of them in cache.
    """
    negatives = np.empty(len(items), dtype=np.int32)
    for user in range(len(indptr) - 1):
        start, end = indptr[user], indptr[user + 1]
        for pair in range(start, end):
            negatives[pair] = missing(items, start, end, below(num_items - (end - start), key, pair))
    return negatives


@numba.njit(inline="always")
def missing(items, start, end, number, shift=0):
    """The item with this ``number`` among those that are missing from the ascending ``items[start:end]``, whose ids
    begin at ``shift``."""
    low, high = start, end
    while low < high:
        middle = (low + high) >> 1
        if items[middle] - shift - (middle - start) <= number:
            low = middle + 1
        else:
            high = middle
    return number + (low - start)


@compiling.njit(nogil=True, cache=True)
def _permutation(size: int, key: np.uint64) -> np.ndarray:
    """0 .. size - 1 in random order (Fisher and Yates), four times as fast as NumPy's."""
    order = np.arange(size)
    for last in range(size - 1, 0, -1):
        other = below(last + 1, key, last)
        order[last], order[other] = order[other], order[last]
    return order


@compiling.njit(nogil=True, cache=True)
def _gather(pairs, users, items, negatives):
    """(2 + candidates, pairs) int64."""
    batch = np.empty((2 + len(negatives), len(pairs)), dtype=np.int64)
    for place, pair in enumerate(pairs):
        batch[0, place], batch[1, place] = users[pair], items[pair]
    for number in range(len(negatives)):
        for place, pair in enumerate(pairs):
            batch[2 + number, place] = negatives[number, pair]
    return batch
