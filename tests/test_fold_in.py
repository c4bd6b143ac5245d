"""Codes for new users: the hop by hand, exactness for float layers, and recall on a planted structure."""

import numpy as np
import pytest

from l2q.data.interactions import Interactions
from l2q.errors import L2QError
from l2q.evaluation import evaluate
from l2q.representations import Representations, Rows
from l2q.retrieval.fold_in import FoldIn
from l2q.retrieval.index import DenseIndex


def rotation(dim: int, seed: int) -> np.ndarray:
    return np.linalg.qr(np.random.default_rng(seed).standard_normal((dim, dim)))[0].astype(np.float32)


def blocks(rng, num_users=400, num_items=240, groups=8, per_user=12) -> Interactions:
    """Users take most items from the block of their own group."""
    group = rng.integers(groups, size=num_users)
    size = num_items // groups
    inside = group[:, None] * size + rng.integers(size, size=(num_users, per_user))
    anywhere = rng.integers(num_items, size=(num_users, per_user))
    items = np.where(rng.random((num_users, per_user)) < 0.8, inside, anywhere)
    return Interactions.from_pairs(
        np.repeat(np.arange(num_users), per_user), items.ravel(), num_users, num_items
    )


def propagate(train: Interactions, dim: int, layers: int):
    """E^(0) .. E^(layers) of users and items, by dense matrices; E^(0) from the singular vectors."""
    r = train.to_csr().toarray()
    r = r / np.sqrt(np.maximum(r.sum(1, keepdims=True), 1)) / np.sqrt(np.maximum(r.sum(0), 1))
    left, values, right = np.linalg.svd(r, full_matrices=False)
    sides = [(left[:, :dim] * np.sqrt(values[:dim]), right[:dim].T * np.sqrt(values[:dim]))]
    for _ in range(layers):
        sides.append((r @ sides[-1][1], r.T @ sides[-1][0]))
    return [[side[s].astype(np.float32) for side in sides] for s in (0, 1)]


def quantized(layers: list[np.ndarray]) -> Rows:
    values = np.concatenate([np.where(x >= 0, 1, -1) for x in layers], axis=1).astype(np.int8)
    return Rows(values, np.stack([np.abs(x).mean(axis=1) for x in layers], axis=1))


def test_one_hop_by_hand():
    # one known user with item 0 alone, whose row is theirs: nothing is rotated
    items = Rows(np.array([[1, -1], [1, 1], [-1, 1]], np.int8), np.array([[1], [2], [6]], np.float32))
    users = Rows(np.array([[1, -1]], np.int8), np.array([[1]], np.float32))
    representations = Representations(users, items, (2,), np.ones(1, np.float32))
    train = Interactions.from_pairs([0], [0], 1, 3)
    fold_in = FoldIn(representations, train, np.array([1, 4, 9]))
    # ([1, -1] / sqrt 1 + [2, 2] / sqrt 4) / sqrt 2 = [2, 0] / sqrt 2;  [-6, 6] / sqrt 9 = [-2, 2]
    rows = fold_in([[1, 0], [2]])
    np.testing.assert_array_equal(rows.values[1], [-1, 1])
    assert rows.values[0, 0] == 1
    np.testing.assert_allclose(rows.scales, [[1 / np.sqrt(2)], [2]], rtol=1e-5)


def test_float_layers_are_exact():
    train = blocks(np.random.default_rng(0))
    users, items = propagate(train, 16, 2)
    turns = [rotation(16, seed) for seed in range(3)]
    users, items = ([x @ w for x, w in zip(side, turns, strict=True)] for side in (users, items))
    representations = Representations(
        Rows(np.concatenate(users, axis=1)), Rows(np.concatenate(items, axis=1)), (16,) * 3, np.ones(3)
    )
    rows = FoldIn(representations, train, train.item_degrees)([train[user] for user in range(50)])
    np.testing.assert_allclose(rows.values[:, 16:32], users[1][:50], atol=1e-4)
    np.testing.assert_allclose(rows.values[:, 32:], users[2][:50], atol=1e-4)
    assert rows.scales is None


@pytest.mark.parametrize("layerwise", [True, False])
def test_folded_in_users_find_what_they_would_have_found(layerwise):
    rng = np.random.default_rng(1)
    both = blocks(rng, per_user=24)
    held_out = rng.random(len(both)) < 0.3
    train, test = (
        Interactions.from_pairs(both.users[part], both.items[part], both.num_users, both.num_items)
        for part in (~held_out, held_out)
    )
    users, items = propagate(train, 64, 2)
    if layerwise:
        turns = [rotation(64, seed) for seed in range(3)]
        users, items = ([x @ w for x, w in zip(side, turns, strict=True)] for side in (users, items))
    else:
        users, items = [sum(users) @ rotation(64, 0)], [sum(items) @ rotation(64, 0)]
    dims, weights = (64,) * len(users), np.ones(len(users), np.float32)
    user_rows, item_rows = quantized(users), quantized(items)

    # half of the users are new: the rotations are fitted without them
    def half(lists, new):
        chosen = (lists.users >= 200) == new
        return Interactions.from_pairs(lists.users[chosen] % 200, lists.items[chosen], 200, lists.num_items)

    known = Rows(user_rows.values[:200], user_rows.scales[:200])
    own = Rows(user_rows.values[200:], user_rows.scales[200:])
    fold_in = FoldIn(Representations(known, item_rows, dims, weights), half(train, False), train.item_degrees)
    folded = fold_in([train[user] for user in range(200, 400)])
    own_recall, folded_recall = (
        evaluate(
            DenseIndex(Representations(rows, item_rows, dims, weights)),
            half(test, True),
            (20,),
            half(train, True),
        ).metrics["recall_20"]
        for rows in (own, folded)
    )
    assert own_recall > 4 * 20 / train.num_items
    assert folded_recall > 0.95 * own_recall


def test_bad_lists():
    representations = Representations(
        quantized([np.ones((2, 4))]), quantized([np.ones((3, 4))]), (4,), np.ones(1, np.float32)
    )
    fold_in = FoldIn(representations, Interactions.from_pairs([0], [0], 2, 3), np.ones(3))
    with pytest.raises(L2QError, match="list 1 is empty"):
        fold_in([[0], []])
    with pytest.raises(L2QError, match="item id 3"):
        fold_in([[3]])
