"""The record of interactions, by value."""

import numpy as np
import pytest

from l2q.errors import L2QError
from l2q.interactions import Interactions


def graph(*rows, num_items=None):
    """Interactions with the given items per user."""
    users = np.repeat(np.arange(len(rows)), [len(row) for row in rows])
    items = np.concatenate([np.asarray(row, dtype=int) for row in rows])
    return Interactions.from_pairs(users, items, len(rows), num_items or items.max() + 1)


def test_from_pairs_sorts_and_merges():
    made = Interactions.from_pairs([1, 0, 1, 1], [2, 1, 0, 2], 3, 4)
    assert made.indptr.tolist() == [0, 1, 3, 3]
    assert made.items.tolist() == [1, 0, 2]
    assert (made.num_users, made.num_items, len(made)) == (3, 4, 3)
    assert made.keys.tolist() == [1, 4, 6]
    empty = Interactions.from_pairs([], [], 2, 0)
    assert empty.indptr.tolist() == [0, 0, 0]
    with pytest.raises(L2QError, match=r"item id 4 is outside 0 \.\. 3"):
        Interactions.from_pairs([0], [4], 1, 4)
    with pytest.raises(L2QError, match="user id -1"):
        Interactions.from_pairs([-1], [0], 1, 4)


def test_fingerprint_sees_pairs_and_shape_but_not_order():
    one = Interactions.from_pairs([0, 0, 1], [2, 0, 1], 2, 3)
    assert one.fingerprint == Interactions.from_pairs([1, 0, 0], [1, 0, 2], 2, 3).fingerprint
    assert one.fingerprint != Interactions.from_pairs([0, 0, 1], [2, 0, 2], 2, 3).fingerprint
    assert one.fingerprint != Interactions.from_pairs([0, 0, 1], [2, 0, 1], 2, 4).fingerprint
    assert one.fingerprint != Interactions.from_pairs([0, 1, 1], [0, 1, 2], 2, 3).fingerprint


def test_select_keeps_ids():
    chosen = graph([0, 1], [2], [0, 2]).select(np.array([False, True, False, True, True]))
    assert chosen.indptr.tolist() == [0, 1, 1, 3]
    assert chosen.items.tolist() == [1, 0, 2]
    assert chosen.num_items == 3
