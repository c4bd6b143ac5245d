"""Splits, by value."""

from dataclasses import replace

import numpy as np
import pytest

from l2q.data import splits
from l2q.data.splits import Cluster, Random, Split, Time, Users, cold, split
from l2q.errors import L2QError
from l2q.interactions import Interactions, Reading, name_array, normalize
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
    vectors = np.stack((np.cos(angles), np.sin(angles)), axis=1) * np.logspace(-2, 2, 7)[:, None]
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


@pytest.mark.parametrize("how", ["random", "cluster"])
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


def test_clusters_are_told_by_128_directions_where_there_are_so_many():
    events = random_events(0, users=150, items=140, count=3000)
    order = {
        rank: Cluster(truncated_svd(normalize(events), rank, 3)[2]).order(events, 3).tolist()
        for rank in (127, 128, 129)
    }
    assert Cluster().order(events, 3).tolist() == order[128]
    assert order[127] != order[128] != order[129]


@pytest.mark.parametrize("seed", range(4))
def test_items_go_by_their_cosine_to_the_drawn_one(seed):
    events = random_events(1)
    vectors = np.random.default_rng(2).standard_normal((30, 5))
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    order = Cluster(vectors).order(events, seed)
    for user in range(40):
        own = slice(events.indptr[user], events.indptr[user + 1])
        items, numbers = events.items[own], order[own]
        (drawn,) = items[numbers == -np.inf]
        others = items != drawn
        expected = -(unit[items[others]] * unit[drawn]).sum(axis=1)
        np.testing.assert_allclose(numbers[others], expected, rtol=0, atol=1e-12)


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
    with pytest.raises(
        L2QError, match=r"^split=latest is unknown; use random or cluster or last or time or users$"
    ):
        split(train, "latest")
    monkeypatch.setitem(splits.SPLITS, "latest", Latest)
    assert pairs(split(train, "latest", fraction=0.4)[1]) == pairs(held)


def test_a_split_without_an_order_is_none():
    class Nothing(Split):
        least = 2

    with pytest.raises(TypeError, match="abstract"):
        Nothing()


def timed(*events, num_users=None, num_items=None):
    """Interactions of (user, item, time), no pair twice, with a reading."""
    users, items, times = (np.array(column) for column in zip(*sorted(events), strict=True))
    graph = Interactions.from_pairs(users, items, num_users or users.max() + 1, num_items or items.max() + 1)
    return replace(graph, times=times.astype(np.float64), reading=Reading("the table", {}))


def random_events(seed, users=40, items=30, count=400, moments=10**6):
    rng = np.random.default_rng(seed)
    keys = rng.choice(users * items, size=count, replace=False)
    return timed(*zip(keys // items, keys % items, rng.integers(moments, size=count), strict=True),
                 num_users=users, num_items=items)  # fmt: skip


def test_last_holds_out_the_latest_item_of_everyone_with_two():
    events = timed((0, 0, 5), (0, 1, 9), (0, 2, 7), (1, 3, 4), (2, 0, 1), (2, 3, 2))
    for fraction in (0.1, 0.9):  # plays no part
        rest, held = split(events, "last", fraction=fraction)
        assert pairs(held) == {(0, 1), (2, 3)}
        assert pairs(rest) == pairs(events) - pairs(held)
        assert (held.times.tolist(), rest.times.tolist()) == ([9, 2], [5, 7, 4, 1])
    assert held.reading.split == (
        "split by time: the latest item of each user is test; 4 train and 2 test pairs; new in test: 1 item"
    )


def test_last_draws_among_equal_times_and_never_before_them():
    events = timed(*((user, item, min(item, 6)) for user in range(300) for item in range(10)))
    held = split(events, "last", seed=1)[1]
    assert held.user_degrees.tolist() == [1] * 300
    drawn = np.bincount(held.items, minlength=10)
    assert drawn[:6].sum() == 0
    assert np.abs(drawn[6:] - 75).max() < 5 * 7.5  # sqrt(300 / 4 * 3 / 4) = 7.5
    assert held.keys.tolist() == split(events, "last", seed=1)[1].keys.tolist()
    assert held.keys.tolist() != split(events, "last", seed=2)[1].keys.tolist()


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("moments", [10**6, 50, 4])
def test_by_time_every_train_pair_lies_before_every_test_pair(seed, moments):
    events = random_events(seed, moments=moments)
    for fraction in (0.05, 0.2, 0.7):
        rest, held = split(events, "time", fraction=fraction)
        assert rest.times.max() < held.times.min()
        assert sorted([*rest.keys, *held.keys]) == events.keys.tolist()
        # no other moment brings the part nearer to the fraction
        sizes = [(events.times >= moment).sum() for moment in np.unique(events.times)[1:]]
        assert abs(len(held) - fraction * 400) == min(abs(size - fraction * 400) for size in sizes)


def test_by_time_newcomers_stay_in_test_and_are_counted():
    events = timed((0, 0, 1), (0, 1, 1), (1, 0, 2), (1, 1, 2), (0, 2, 3), (2, 1, 3), (2, 2, 4), (3, 2, 4))
    rest, held = split(events, "time", fraction=0.5)
    assert pairs(held) == {(0, 2), (2, 1), (2, 2), (3, 2)}
    assert cold(rest, held) == {"user": 2, "item": 1}
    assert held.reading.split == (
        "split by time: test begins at 3; 4 train and 4 test pairs; new in test: 2 users, 1 item"
    )
    assert rest.reading == held.reading
    assert events.reading.split == ""


def test_dates_are_said_as_dates():
    day = 86400
    start = 1_300_000_000 // day * day
    events = timed(*((user, item, start + item * day) for user in range(4) for item in range(10)))
    assert (
        "test begins at 2011-03-21 00:00; 32 train and 8 test pairs" in split(events, "time")[1].reading.split
    )


def test_pairs_without_a_time_are_train():
    events = timed(*((user, item, item if item else np.nan) for user in range(4) for item in range(5)))
    held = split(events, "time", fraction=0.2)[1]
    assert held.items.tolist() == [4] * 4
    assert "4 pairs without a time stay in train" in held.reading.split
    assert split(events, "last")[1].items.tolist() == [4] * 4


def test_without_times_the_column_is_asked_for():
    for how in ("time", "last"):
        with pytest.raises(
            L2QError, match=f"^split={how} needs the time .* name its column: dataset.time=COL"
        ):
            split(graph(range(4), range(3)), how)
    with pytest.raises(L2QError, match=r"^split=time: all events have one time, .* use split=random$"):
        split(timed(*((user, item, 7) for user in range(4) for item in range(5))), "time")


@pytest.mark.parametrize("has_times", [True, False])
def test_users_left_out_are_in_test_alone_and_bring_the_rest_along(has_times):
    events = random_events(3, users=50)
    if not has_times:
        events = replace(events, times=None)
    rest, held = split(events, "users", fraction=0.3, seed=4)
    given = held.given
    out = np.flatnonzero(held.user_degrees)
    assert len(out) == round(0.3 * np.count_nonzero(events.user_degrees >= 2))
    assert rest.user_degrees[out].tolist() == [0] * len(out)
    assert np.flatnonzero(given.user_degrees).tolist() == out.tolist()
    assert sorted([*rest.keys, *held.keys, *given.keys]) == events.keys.tolist()
    degrees = events.user_degrees[out]
    assert held.user_degrees[out].tolist() == np.clip(np.floor(0.3 * degrees + 0.5), 1, degrees - 1).tolist()
    if has_times:  # what is to be found comes last
        for user in out:
            ends = given.times[given.users == user].max(), held.times[held.users == user].min()
            assert ends[0] <= ends[1]
    again, other = (split(events, "users", fraction=0.3, seed=seed)[1] for seed in (4, 5))
    assert held.keys.tolist() == again.keys.tolist() != other.keys.tolist()
    assert (
        f"split by users: {len(out)} are in test alone, folded in by {len(given)} given pairs; "
        in held.reading.split
    )
    assert cold(rest, held)["user"] == 0


def test_users_of_one_item_are_not_left_out():
    assert len(Users()(graph([0], [1], [0, 1]), 0.5, 0)[1]) == 0
    rest, held = Users()(graph([0, 1], [1], [0, 1]), 0.5, 0)
    assert (len(held), len(held.given), len(rest)) == (1, 1, 3)


@pytest.mark.parametrize(("fraction", "count"), [(0.01, 1), (0.99, 3)])
def test_at_least_one_user_is_left_out_and_one_stays(fraction, count):
    _, held = Users()(graph([0, 1], [0, 1], [0, 1], [0, 1], [0]), fraction, 0)
    assert np.count_nonzero(held.user_degrees) == count


@pytest.mark.parametrize(
    ("time", "said"),
    [
        (1e8, "100000000"),
        (1e8 + 1, "1973-03-03 09:46"),
        (1e10 - 1, "2286-11-20 17:46"),
        (1e10, "10000000000"),
    ],
)
def test_a_time_between_1973_and_2286_is_said_as_a_date(time, said):
    events = timed((0, 0, 0), (0, 1, time), (1, 0, 0), (1, 1, time))
    assert f"test begins at {said}; 2 train" in split(events, "time", fraction=0.5)[1].reading.split


def test_auto_is_by_time_where_that_leaves_something_to_test_with():
    events = random_events(0)
    by_time = split(events, "auto", fraction=0.3)[1]
    assert by_time.keys.tolist() == split(events, "time", fraction=0.3)[1].keys.tolist()
    assert by_time.reading.split.startswith("split by time: ")
    at_random = split(events, "random", fraction=0.3, seed=2)[1].keys.tolist()
    one_time = replace(events, times=np.full(len(events), 5.0))
    one_after_the_other = replace(events, times=events.users.astype(np.float64))
    for other, why in (
        (replace(events, times=None), ""),
        (one_time, "; not by time, since all events have one"),
        (one_after_the_other, "; not by time, since 11 of 11 test users would have no train items"),
    ):
        held = split(other, "auto", fraction=0.3, seed=2)[1]
        assert held.keys.tolist() == at_random
        assert held.reading.split.startswith("split at random: 30% of each user's items are test; ")
        assert held.reading.split.endswith(f" test pairs{why}")


def naive_core(train, least):
    """Pairs (user, item) that are left, one user or item taken away at a time."""
    left = set(train)
    while True:
        for side in (0, 1):
            counts = {}
            for pair in left:
                counts[pair[side]] = counts.get(pair[side], 0) + 1
            poor = {node for node, count in counts.items() if count < least}
            if poor:
                left = {pair for pair in left if pair[side] not in poor}
                break
        else:
            return left


@pytest.mark.parametrize("least", [2, 5, 6])
@pytest.mark.parametrize("how", ["random", "time"])
def test_a_core_is_counted_on_train_alone(least, how):
    events = random_events(1)
    whole = split(events, how)
    train, test = split(events, how, min_events=least)
    left = naive_core(pairs(whole[0]), least)
    assert left
    users, items = (sorted({pair[side] for pair in left}) for side in (0, 1))
    assert (train.user_names.tolist(), train.item_names.tolist()) == (
        [str(user) for user in users],
        [str(item) for item in items],
    )
    assert {(users[user], items[item]) for user, item in pairs(train)} == left
    assert {(users[user], items[item]) for user, item in pairs(test)} == {
        (user, item) for user, item in pairs(whole[1]) if user in users and item in items
    }
    assert (test.num_users, test.num_items) == (len(users), len(items))
    at = {
        tuple(pair): time
        for part in whole
        for *pair, time in zip(part.users.tolist(), part.items.tolist(), part.times.tolist(), strict=True)
    }
    for part in (train, test):
        found = [at[users[user], items[item]] for user, item in zip(part.users, part.items, strict=True)]
        assert part.times.tolist() == found
    assert train.reading.split.endswith(
        f"; min_events={least} leaves out {40 - len(users)} users and {30 - len(items)} items with "
        f"{len(whole[0]) - len(train)} train and {len(whole[1]) - len(test)} test pairs"
    )


def test_a_core_keeps_users_who_bring_enough_along():
    events = random_events(2, count=600)
    train, test = split(events, "users", seed=1, min_events=6)
    assert (train.user_degrees + test.given.user_degrees).min() >= 6
    assert train.item_degrees.min() >= 6
    assert test.given.user_names.tolist() == train.user_names.tolist()
    assert np.count_nonzero(test.given.user_degrees) > 0


def test_a_core_of_nothing_is_refused():
    with pytest.raises(L2QError, match=r"^min_events=50 leaves no train pair; give a lower number$"):
        split(random_events(1), "random", min_events=50)
    with pytest.raises(L2QError, match=r"^min_events=0 must be a whole number of at least 1$"):
        split(random_events(1), "random", min_events=0)


def test_a_split_of_ones_own_is_said_by_its_class():
    events = random_events(0)
    assert split(events, Time())[1].reading.split == split(events, "time")[1].reading.split
    assert split(events, Latest())[1].reading.split.startswith("split by latest: 20% are test; ")
