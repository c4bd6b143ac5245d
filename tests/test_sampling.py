"""Negatives are exact and uniform; an epoch is every pair once, whatever the batch size."""

import threading

import numpy as np
import pytest

from l2q.data.sampling import TripletSampler, draw_negatives
from l2q.errors import L2QError
from l2q.interactions import Interactions
from l2q.learning.datamodule import TripletLoader


def random_graph(num_users=40, num_items=12, density=0.6, seed=0):
    has = np.random.default_rng(seed).random((num_users, num_items)) < density
    has[:, 0] &= ~has.all(axis=1)  # every user leaves an item out
    return Interactions.from_pairs(*has.nonzero(), num_users, num_items)


def epoch(train, batch_size=7, seed=0, number=0):
    """All triplets of an epoch, (nnz, 3)."""
    return np.concatenate(
        [np.stack(batch, 1) for batch in TripletSampler(train, batch_size, seed).epoch(number)]
    )


def test_every_pair_once_and_no_negative_is_a_positive():
    train = random_graph()
    have = set(zip(train.users.tolist(), train.items.tolist(), strict=True))
    for number in range(20):
        triplets = epoch(train, number=number)
        assert sorted(map(tuple, triplets[:, :2].tolist())) == sorted(have)
        assert not have & set(map(tuple, triplets[:, [0, 2]].tolist()))
        assert triplets[:, 2].min() >= 0
        assert triplets[:, 2].max() < train.num_items


def test_candidates_are_independent_negatives_of_the_same_pairs():
    train = random_graph(200, 40)
    one = epoch(train, number=3)
    parts = []
    for users, pos_items, neg_items in TripletSampler(train, 7, 0, candidates=3).epoch(3):
        parts.append(np.column_stack([users, pos_items, neg_items.reshape(3, -1).T]))
    three = np.concatenate(parts)
    assert (three[:, :3] == one).all()  # one candidate more changes nothing of what was drawn before
    have = set(zip(train.users.tolist(), train.items.tolist(), strict=True))
    for candidate in (3, 4):
        assert not have & set(map(tuple, three[:, [0, candidate]].tolist()))
    for first, second in ((2, 3), (2, 4), (3, 4)):
        # users miss 12 to 24 of the 40 items, so that equal draws are one in 12 to 24
        assert 0.03 < (three[:, first] == three[:, second]).mean() < 0.1


def test_without_candidates_there_are_the_same_pairs_alone():
    train = random_graph(200, 40)
    found, usual = (TripletSampler(train, 7, 0, candidates=number).epoch(3) for number in (0, 1))
    for (users, pos_items, neg_items), expected in zip(found, usual, strict=True):
        np.testing.assert_array_equal(users, expected.users)
        np.testing.assert_array_equal(pos_items, expected.pos_items)
        assert len(neg_items) == 0


def test_the_only_missing_item_is_the_negative():
    train = Interactions.from_pairs(*(~np.eye(50, dtype=bool)).nonzero(), 50, 50)
    triplets = epoch(train, 1000)
    assert (triplets[:, 2] == triplets[:, 0]).all()


def test_negatives_are_uniform_over_the_missing_items():
    items = np.array([0, 1, 4, 5, 6, 9])  # both ends, a gap, single items
    users = 20_000
    train = Interactions.from_pairs(np.repeat(np.arange(users), 6), np.tile(items, users), users, 12)
    counts = np.bincount(draw_negatives(train.indptr, train.items, 12, np.uint64(1)), minlength=12)
    missing = [2, 3, 7, 8, 10, 11]
    assert counts[items].sum() == 0
    expected = users
    chi_square = ((counts[missing] - expected) ** 2 / expected).sum()
    assert 0.21 < chi_square < 20.5  # 5 degrees of freedom: .001 quantiles on either side


def test_negatives_are_independent_of_the_positive():
    train = Interactions.from_pairs(np.repeat(np.arange(30_000), 2), np.tile([1, 3], 30_000), 30_000, 6)
    drawn = draw_negatives(train.indptr, train.items, 6, np.uint64(9)).reshape(-1, 2)
    table = np.zeros((6, 6))
    np.add.at(table, (drawn[:, 0], drawn[:, 1]), 1)
    table = table[np.ix_([0, 2, 4, 5], [0, 2, 4, 5])]
    assert table.sum() == 30_000
    chi_square = ((table - 1875) ** 2 / 1875).sum()
    assert 3.5 < chi_square < 37.7  # 15 degrees of freedom: .001 quantiles


def test_an_epoch_depends_on_seed_and_number_alone():
    train = random_graph()
    first = epoch(train, 7, seed=1, number=2)
    sampler = TripletSampler(train, 64, 1)
    list(sampler.epoch(0))  # epochs before, and another batch size, change nothing
    again = np.concatenate([np.stack(batch, 1) for batch in sampler.epoch(2)])
    assert (first == again).all()
    for other in (epoch(train, 7, seed=2, number=2), epoch(train, 7, seed=1, number=3)):
        assert (first[:, :2] != other[:, :2]).any()  # another order
        order, other_order = (np.lexsort((t[:, 1], t[:, 0])) for t in (first, other))
        assert (first[order, 2] != other[other_order, 2]).mean() > 0.5  # other negatives of the same pairs


@pytest.mark.parametrize("numbers", [[0, 1, 2], [3, 3, 5, 0], [7, 8]])
def test_a_loader_that_draws_ahead_gives_the_epoch_it_is_asked_for(numbers):
    train = random_graph()
    loader = TripletLoader(TripletSampler(train, 7, 0))
    for loader.epoch in numbers:
        triplets = np.concatenate([np.stack([part.numpy() for part in batch], 1) for batch in loader])
        assert (triplets == epoch(train, number=loader.epoch)).all()


@pytest.mark.parametrize(
    ("batch_size", "sizes"), [(4, [4, 4, 2]), (5, [5, 5]), (10, [10]), (99, [10]), (1, [1] * 10)]
)
def test_batch_boundaries(batch_size, sizes):
    train = Interactions.from_pairs(np.repeat(np.arange(5), 2), np.tile([0, 2], 5), 5, 4)
    sampler = TripletSampler(train, batch_size, 0)
    batches = list(sampler.epoch(0))
    assert len(sampler) == len(sizes)
    assert [len(batch.users) for batch in batches] == sizes
    assert {part.dtype for batch in batches for part in batch} == {np.dtype(np.int64)}


@pytest.mark.parametrize("batch_size", [1, 7, 40, 10**6])
def test_by_users_a_batch_has_all_pairs_of_its_users(batch_size):
    train = random_graph(300, 12, density=0.3, seed=1)
    assert (train.user_degrees == 0).any()  # who has nothing is in no batch
    sampler = TripletSampler(train, batch_size, 0, candidates=2, by_users=True)
    have = set(zip(train.users.tolist(), train.items.tolist(), strict=True))
    seen, orders = [], []
    for number in (0, 1):
        batches = list(sampler.epoch(number))
        assert len(batches) == len(sampler)
        orders.append([batch.users.tolist() for batch in batches])
        found = []
        for users, pos_items, neg_items in batches:
            distinct, counts = np.unique(users, return_counts=True)
            np.testing.assert_array_equal(counts, train.user_degrees[distinct])
            found += zip(users.tolist(), pos_items.tolist(), strict=True)
            assert not have & set(zip(np.tile(users, 2).tolist(), neg_items.tolist(), strict=True))
        assert sorted(found) == sorted(have)
        seen.append([len(np.unique(batch.users)) for batch in batches])
    assert max(seen[0]) - min(seen[0]) <= 1  # as many users in each
    assert orders[0] != orders[1] or len(sampler) == 1
    mean = len(train) / len(sampler)
    assert mean <= batch_size or len(sampler) == (train.user_degrees > 0).sum()


def test_the_order_is_shuffled():
    train = Interactions.from_pairs(np.arange(10_000), np.zeros(10_000), 10_000, 2)
    users = epoch(train, 512)[:, 0]
    # correlation of a random order: standard deviation 1 / sqrt(n) = .01
    assert abs(np.corrcoef(users, np.arange(10_000))[0, 1]) < 0.04


def test_users_with_every_item_take_no_part():
    train = Interactions.from_pairs([0, 0, 1, 2, 2], [0, 1, 1, 0, 1], 3, 2)
    assert epoch(train).tolist() == [[1, 1, 0]]
    assert len(TripletSampler(train, 1, 0)) == 1
    full = Interactions.from_pairs([0, 0], [0, 1], 2, 2)
    with pytest.raises(L2QError, match="no train pair has a negative"):
        TripletSampler(full, 1, 0)
    with pytest.raises(L2QError, match="batch_size=0 must be at least 1"):
        TripletSampler(train, 0, 0)


def test_an_abandoned_epoch_leaves_no_thread_behind():
    before = threading.active_count()
    batches = TripletSampler(random_graph(), 3, 0).epoch(0)
    next(batches)
    assert threading.active_count() == before + 1  # the next batch is drawn beside us
    batches.close()
    assert threading.active_count() == before
