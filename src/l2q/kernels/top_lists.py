"""The best unseen items of every user with their scores, as rows of a sparse matrix, made block by block."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
from scipy import sparse

from l2q import processes
from l2q.interactions import Interactions
from l2q.kernels import rows
from l2q.kernels.selection import top_items
from l2q.progress import Progress

MEASURED = (
    64  # length of the lists that measure the teacher: validation items leave them, the cut-offs must remain
)
USERS_PER_BLOCK = 1024
SCORES_PER_BLOCK = 2**26  # 256 MiB of float32


def user_blocks(num_users: int, num_items: int) -> Iterator[slice]:
    """Slices of 1,024 users, of a half, a quarter ... of them where the catalogue is large: a block of scores takes at
    most 256 MiB."""
    size = USERS_PER_BLOCK
    while size > 1 and size * num_items > SCORES_PER_BLOCK:
        size //= 2
    for start in range(0, num_users, size):
        yield slice(start, min(start + size, num_users))


def top_lists(
    score: Callable[[slice], np.ndarray],
    num_users: int,
    num_items: int,
    length: int,
    exclude: Interactions | None = None,
    progress: Progress | None = None,
) -> sparse.csr_array:
    """The ``length`` best items of each user and their scores, (num_users, num_items) in compressed rows; of several
    processes, the own rows.

    A row holds the best item first; among equal scores the lower id is first. Items of ``exclude`` stay out, so a row
    may be shorter. ``score(block)`` returns a fresh (users of the block, num_items) array, which is overwritten.

    >>> S = np.array([[0.1, 0.9, 0.5], [0.7, 0.2, 0.8]])
    >>> top_lists(lambda block: S[block].copy(), num_users=2, num_items=3, length=2).indices
    array([1, 2, 2, 0], dtype=int32)
    """
    length = min(length, num_items)
    own = rows.own(num_users)

    def listed() -> list[tuple[np.ndarray, np.ndarray]]:
        found = []
        for block in user_blocks(num_users, num_items):
            if own.start <= block.start < own.stop:
                scores = score(block)
                if exclude is not None:
                    first, last = exclude.indptr[block.start], exclude.indptr[block.stop]
                    scores[exclude.users[first:last] - block.start, exclude.items[first:last]] = -np.inf
                found.append(top_items(scores, length))
                if progress is not None:  # others do as much meanwhile
                    part = (block.stop - own.start) / (own.stop - own.start)
                    progress(int(num_users * part), num_users, "lists")
        return found or [(np.empty((0, length), np.int32), np.empty((0, length), np.float32))]

    top, best = map(np.concatenate, zip(*processes.agreed(listed), strict=True))
    kept = best > -np.inf
    indptr = np.concatenate(([0], np.cumsum(kept.sum(axis=1)))).astype(np.int32)
    return sparse.csr_array((best[kept], top[kept], indptr), shape=(len(top), num_items))


def heads(lists: sparse.csr_array, length: int) -> sparse.csr_array:
    """The first ``length`` entries of every row."""
    lengths = np.minimum(np.diff(lists.indptr), length)
    indptr = np.concatenate(([0], np.cumsum(lengths))).astype(lists.indptr.dtype)
    kept = np.arange(indptr[-1]) + np.repeat(lists.indptr[:-1] - indptr[:-1], lengths)
    return sparse.csr_array((lists.data[kept], lists.indices[kept], indptr), shape=lists.shape)
