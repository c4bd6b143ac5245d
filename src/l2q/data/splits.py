"""Which of a user's items are held out."""

from __future__ import annotations

import numpy as np

from l2q.errors import L2QError
from l2q.interactions import Interactions, normalize
from l2q.kernels.svd import truncated_svd

SPLITS = ("random", "cluster")


def split_validation(
    train: Interactions, split: str, fraction: float, seed: int
) -> tuple[Interactions, Interactions]:
    """What remains of train, and the validation part: ``random`` items of each user, or ``cluster``, an item with
    its nearest ones by the vectors of a truncated SVD of train."""
    if split not in SPLITS:
        raise L2QError(f"split={split} is unknown; use {' or '.join(SPLITS)}")
    if split == "random":
        return holdout(train, fraction, seed)
    rank = min(128, train.num_users, train.num_items)
    _, _, item_vectors = truncated_svd(normalize(train), rank, seed)
    return cluster_holdout(train, item_vectors, fraction, seed)


def holdout(train: Interactions, fraction: float, seed: int) -> tuple[Interactions, Interactions]:
    """A random part of every user's items for validation, made from train alone: (fit, validation).

    A user with n >= 2 items gives ``fraction`` * n of them (halves rounded up, at least 1, and one stays);
    a user with 1 item gives none. Where users have so few items that this is more than one and a half times
    ``fraction`` of train, every second giver gives, every third from two and a half times on, and so forth.
    """
    order = np.random.default_rng(seed).random(len(train))
    return _hold_out(train, fraction, order, least=2)


def cluster_holdout(
    train: Interactions, item_vectors: np.ndarray, fraction: float, seed: int
) -> tuple[Interactions, Interactions]:
    """A corner of every user's taste for validation, made from train alone: (fit, validation).

    Of each user with 6 or more items one is drawn; it is held out together with those of the user's own items
    that are nearest to it by cosine of ``item_vectors`` (num_items, dim), ``fraction`` * n in all (halves
    rounded up, at least 1; of equally near ones the lower id). Users with fewer items give none. Predicting
    such a part asks for what a user turns to next rather than for more of the same, as a later test does.
    """
    rng = np.random.default_rng(seed)
    drawn = train.indptr[:-1] + (rng.random(train.num_users) * train.user_degrees).astype(np.int64)
    drawn = np.repeat(drawn, train.user_degrees)  # (nnz,), a position in items
    unit = item_vectors / np.maximum(np.linalg.norm(item_vectors, axis=1, keepdims=True), 1e-12)
    cosine = np.empty(len(train), dtype=unit.dtype)
    for part in range(0, len(train), 65536):  # two gathered blocks at a time, not two (nnz, dim) arrays
        block = slice(part, part + 65536)
        np.vecdot(unit[train.items[block]], unit[train.items[drawn[block]]], out=cosine[block])
    cosine[drawn] = np.inf
    return _hold_out(train, fraction, -cosine, least=6)


def _hold_out(
    train: Interactions, fraction: float, order: np.ndarray, least: int
) -> tuple[Interactions, Interactions]:
    """Per user with at least ``least`` items, the ``fraction`` with the smallest ``order`` (nnz,) goes; of every
    second such user and so forth, where all of them would give much more than ``fraction`` of train."""
    if not 0 < fraction < 1:
        raise L2QError(f"fraction={fraction} must lie between 0 and 1")
    degrees = train.user_degrees
    # the small term mends products such as .29 * 50 = 14.4999...
    sizes = np.clip(np.floor(fraction * degrees + 0.5 + 1e-9).astype(np.int64), 1, degrees - 1)
    sizes[degrees < least] = 0
    givers = np.flatnonzero(sizes)
    every = max(round(sizes.sum() / max(fraction * len(train), 1)), 1)
    sizes[np.setdiff1d(givers, givers[::every])] = 0
    by_order = np.lexsort((order, train.users))
    rank = np.arange(len(train)) - np.repeat(train.indptr[:-1], degrees)
    held = np.empty(len(train), dtype=bool)
    held[by_order] = rank < np.repeat(sizes, degrees)
    return train.select(~held), train.select(held)
