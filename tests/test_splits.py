"""Splits, by value."""

from dataclasses import replace

import numpy as np
import pytest

from l2q.data import splits
from l2q.data.splits import Cluster, Random, Split, split
from l2q.errors import L2QError
from l2q.interactions import Interactions, name_array, normalize
from l2q.kernels.svd import truncated_svd


def graph(*rows, num_items=None):
    """Interactions with the given items per user."""
    users = np.repeat(np.arange(len(rows)), [len(row) for row in rows])
    items = np.concatenate([np.asarray(row, dtype=int) for row in rows])
    return Interactions.from_pairs(users, items, len(rows), num_items or items.max() + 1)


def pairs(part):
    return set(zip(part.users.tolist(), part.items.tolist(), strict=True))


def test_sizes_are_rounded_half_up_and_leave_one():
    train = graph(*(range(n) for n in (1, 2, 3, 5, 10, 50)))
    fit, val = split(train, fraction=0.3, seed=0)
    assert val.user_degrees.tolist() == [0, 1, 1, 2, 3, 15]  # 0.3 * 5 = 1.5 -> 2
    assert pairs(fit) | pairs(val) == pairs(train)
    assert len(fit) + len(val) == len(train)
    assert (fit.num_users, fit.num_items, val.num_users) == (6, 50, 6)
    assert split(train, fraction=0.29)[1].user_degrees[5] == 15  # .29 * 50 = 14.5, which floats miss
    assert split(train, fraction=0.99)[1].user_degrees.tolist() == [0, 1, 2, 4, 9, 49]
    for fraction in (0, 1):
        with pytest.raises(L2QError, match=f"fraction={fraction} must lie between 0 and 1"):
            split(train, fraction=fraction)


def test_of_users_with_few_items_only_some_give_one():
    """Two items each: one of each would be half of train, five times a tenth of it."""
    train = Interactions.from_pairs(np.repeat(np.arange(100), 2), np.arange(200) % 150, 100, 150)
    fit, val = split(train, fraction=0.1, seed=0)
    assert np.flatnonzero(val.user_degrees).tolist() == list(range(0, 100, 5))
    assert val.user_degrees.max() == 1
    assert sorted([*fit.keys, *val.keys]) == train.keys.tolist()


def test_random_is_seeded_and_even():
    train = graph(*[range(10)] * 2000)
    val = split(train, fraction=0.2, seed=3)[1]
    assert val.keys.tolist() == split(train, fraction=0.2, seed=3)[1].keys.tolist()
    assert val.keys.tolist() != split(train, fraction=0.2, seed=4)[1].keys.tolist()
    # each of 10 items is held out by 400 of 2,000 users; standard deviation sqrt(2000 * .2 * .8) = 17.9
    assert np.abs(val.item_degrees - 400).max() < 5 * 17.9


def test_a_cluster_takes_the_drawn_items_neighbours():
    # two clusters of directions; 30 % of 6 and of 7 items is 2
    angles = np.radians([0, 10, 25, 90, 105, 130, 60])
    vectors = np.stack((np.cos(angles), np.sin(angles)), axis=1) * np.arange(1, 8)[:, None]
    train = graph([0, 1, 2, 3, 4, 5], range(7), [0, 1, 2, 3, 4], [], num_items=7)
    nearest = {0: 1, 1: 0, 2: 1, 3: 4, 4: 3, 5: 4, 6: 3}  # 6 lies 30 degrees from 3, 35 from 2
    seen = set()
    for seed in range(60):
        fit, val = split(train, Cluster(vectors), fraction=0.3, seed=seed)
        assert val.user_degrees.tolist() == [2, 2, 0, 0]
        assert pairs(fit) | pairs(val) == pairs(train)
        for user in (0, 1):
            held = frozenset(val[user].tolist())
            assert held in {frozenset((item, nearest[item])) for item in train[user].tolist()}
            seen.add((user, held))
    assert seen == {
        *((0, frozenset(p)) for p in [(0, 1), (1, 2), (3, 4), (4, 5)]),
        *((1, frozenset(p)) for p in [(0, 1), (1, 2), (3, 4), (4, 5), (3, 6)]),
    }


def test_a_cluster_breaks_ties_by_lower_id_and_survives_zero_vectors():
    vectors = np.ones((8, 3), dtype=np.float32)
    vectors[7] = 0
    train = graph(range(8), num_items=8)
    held = {
        tuple(split(train, Cluster(vectors), fraction=0.25, seed=seed)[1][0].tolist()) for seed in range(50)
    }
    # the drawn item with the lowest other one; item 7 is as near to all: cosine 0
    assert held == {(0, item) for item in range(1, 8)}


def test_a_cluster_equals_a_loop_on_a_random_graph():
    rng = np.random.default_rng(0)
    train = graph(
        *[rng.choice(300, size=rng.integers(1, 60), replace=False) for _ in range(5000)], num_items=300
    )
    assert len(train) > 2 * 65536  # several blocks
    vectors = rng.normal(size=(300, 8))
    val = split(train, Cluster(vectors), fraction=0.15, seed=5)[1]
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    for user in range(0, 5000, 50):
        row, size = train[user], int(np.floor(0.15 * len(train[user]) + 0.5))
        if len(row) < 6:
            assert len(val[user]) == 0
            continue
        corners = [set(row[np.argsort(-unit[row] @ unit[item])][: max(size, 1)].tolist()) for item in row]
        assert set(val[user].tolist()) in corners


@pytest.mark.parametrize("how", splits.SPLITS)
def test_both_parts_are_all_there_is(how):
    train = graph(*[range(user % 9) for user in range(1, 60)])
    train = replace(train, user_names=name_array([f"u{user}" for user in range(59)]))
    rest, held = split(train, how, fraction=0.25, seed=1)
    assert sorted([*rest.keys, *held.keys]) == train.keys.tolist()
    degrees = train.user_degrees
    sizes = np.where(degrees < splits.SPLITS[how].least, 0, np.maximum(np.floor(degrees / 4 + 0.5), 1))
    assert held.user_degrees.tolist() == sizes.tolist()
    for part in (rest, held):
        assert (part.num_users, part.num_items) == (train.num_users, train.num_items)
        assert part.user_names is train.user_names
        assert part.item_names is None
    assert held.keys.tolist() == split(train, how, fraction=0.25, seed=1)[1].keys.tolist()
    assert held.keys.tolist() != split(train, how, fraction=0.25, seed=2)[1].keys.tolist()


def test_a_name_is_its_class_and_random_the_default():
    train = graph(*[range(8)] * 40)
    usual = split(train)[1].keys.tolist()
    assert usual == split(train, "random", fraction=0.2, seed=0)[1].keys.tolist()
    assert usual == split(train, Random())[1].keys.tolist()
    vectors = truncated_svd(normalize(train), 8, 3)[2]  # as many as 8 items have
    by_name, by_class = (split(train, how, seed=3)[1].keys.tolist() for how in ("cluster", Cluster(vectors)))
    assert by_name == by_class != split(train, Random(), seed=3)[1].keys.tolist()


class Latest(Split):
    """The items with the highest ids, as if these told the time; of users with at least 3."""

    least = 3

    def order(self, interactions, seed):
        return -interactions.items - seed


def test_a_class_of_ones_own_says_who_gives_and_what_goes_first(monkeypatch):
    train = graph([5, 9], [0, 4, 7], [1, 2, 3, 6, 8])
    rest, held = split(train, Latest(), fraction=0.4)
    assert pairs(held) == {(1, 7), (2, 6), (2, 8)}
    assert pairs(rest) == pairs(train) - pairs(held)
    with pytest.raises(L2QError, match=r"^split=latest is unknown; use random or cluster$"):
        split(train, "latest")
    monkeypatch.setitem(splits.SPLITS, "latest", Latest)
    assert pairs(split(train, "latest", fraction=0.4)[1]) == pairs(held)


def test_a_split_without_an_order_is_none():
    class Nothing(Split):
        least = 2

    with pytest.raises(TypeError, match="abstract"):
        Nothing()
