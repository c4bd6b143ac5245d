"""Coverage, Gini, novelty, popularity lift and recall by groups: hand-worked, against naive loops, in any batches."""

from collections import Counter
from math import log2

import numpy as np
import pytest
import torch
from runs import SMALL, run, table
from test_evaluation import TableIndex, random_problem, rows

from l2q.beyond_accuracy import BeyondAccuracy, coverage, gini, novelty, popularity_lift, thirds
from l2q.errors import L2QError
from l2q.evaluation import evaluate


def test_coverage_and_gini_by_hand():
    """Of four items one is never recommended: c = 0, 1, 1, 4 gives (-3 * 0 - 1 * 1 + 1 * 1 + 3 * 4) / (3 * 6)."""
    counts = np.array([1, 0, 4, 1])
    assert coverage(counts) == 3 / 4
    assert gini(counts) == pytest.approx(12 / 18, rel=1e-15)


@pytest.mark.parametrize(
    ("counts", "expected"),
    [([5, 5, 5], 0), ([0, 9, 0], 1), ([0, 0, 0], 0), ([7], 0)],
    ids=["equal", "one item for all", "nothing", "one item"],
)
def test_the_ends_of_gini(counts, expected):
    assert gini(np.array(counts)) == expected


def test_novelty_by_hand():
    """Items of 4, 1 and 0 of 8 users are 1, 3 and 3 bits; they are recommended 1, 2 and 1 times."""
    assert novelty(np.array([1, 2, 1]), np.array([4, 1, 0]), 8) == pytest.approx((1 + 2 * 3 + 3) / 4)


def test_lift_by_hand():
    assert popularity_lift(np.array([4.0, 2.0]), np.array([1.0, 3.0])) == pytest.approx(0.5)


def test_thirds_hold_equal_interactions_and_keep_equals_together():
    """Of 12 interactions 4 are more popular than the items of 2, and 8 than those of 1 or none."""
    assert thirds(np.array([1, 4, 2, 0, 2, 1, 1, 1])).tolist() == [2, 0, 1, 2, 1, 2, 2, 2]
    assert thirds(np.array([3, 3, 3])).tolist() == [0, 0, 0]
    assert thirds(np.array([0, 0])).tolist() == [0, 0]
    # the boundary falls into an item: the larger one is head still
    assert thirds(np.array([9, 2, 1])).tolist() == [0, 2, 2]


def test_hand_worked():
    """Items 0 to 3 have 3, 2, 1 and 0 of 3 users: of 6 interactions none is above item 0, 3 are above item 1, and 5
    or more above the others. User 0 has all of items 0 to 2 and gets 3; user 1 has 0, 1 and gets 2; user 2 has 0 and
    gets 1."""
    train = rows([0, 1, 2], [0, 1], [0], num_items=4)
    test = rows([3], [2, 3], [1], num_items=4)
    found = evaluate(TableIndex([[4, 3, 2, 1]] * 3), test, [1], exclude=train, beyond=[1])
    assert found.metrics["recall_1"] == pytest.approx((1 + 1 / 2 + 1) / 3)
    assert found.beyond == pytest.approx(
        {
            "coverage_1": 3 / 4,
            "gini_1": (-3 * 0 - 1 + 1 + 3) / (3 * 3),
            "novelty_1": (log2(3) + log2(3) + log2(3 / 2)) / 3,  # nobody has item 3: as if one user had it
            # recommended 0, 1, 2 users; owned (3 + 2 + 1) / 3, (3 + 2) / 2, 3
            "popularity_lift_1": (0 + 1 + 2) / (2 + 2.5 + 3) - 1,
            # no test item is head
            "mid_recall_1": 1.0,
            "tail_recall_1": (1 + 1 / 2) / 2,
            "heavy_users_recall_1": 1.0,
            "medium_users_recall_1": 1 / 2,
            "light_users_recall_1": 1.0,
        },
        rel=1e-15,
    )


def naive(train, test, scores, k):
    """One user after the other, in Python's numbers."""
    users = [user for user in range(test.num_users) if len(test[user])]
    popularity = Counter(train.items.tolist())
    activity = Counter(train.users.tolist())
    num_users = len(activity)

    def group(counts, one):
        above = sum(count for count in counts.values() if count > counts[one])
        return min(3 * above // sum(counts.values()), 2)

    lists = {}
    for user in users:
        left = [item for item in range(test.num_items) if item not in train[user]]
        lists[user] = sorted(left, key=lambda item: (-scores[user, item], item))[:k]
    given = [item for user in users for item in lists[user]]
    counts = sorted(given.count(item) for item in range(test.num_items))
    found = {f"coverage_{k}": len(set(given)) / test.num_items}
    apart = sum(abs(a - b) for a in counts for b in counts)  # the mean difference that Gini is
    found[f"gini_{k}"] = apart / (2 * (test.num_items - 1) * len(given))
    found[f"novelty_{k}"] = np.mean([-log2(max(popularity[item], 1) / num_users) for item in given])
    both = [user for user in users if len(train[user])]
    got, had = (
        np.mean([np.mean([popularity[item] / num_users for item in items[user]]) for user in both])
        for items in (lists, train)
    )
    found[f"popularity_lift_{k}"] = (got - had) / had
    for which, name in enumerate(("head", "mid", "tail")):
        shares = []
        for user in users:
            wanted = {item for item in test[user].tolist() if group(popularity, item) == which}
            if wanted:
                shares.append(len(wanted & set(lists[user])) / len(wanted))
        found[f"{name}_recall_{k}"] = np.mean(shares)
    for which, name in enumerate(("heavy", "medium", "light")):
        shares = [
            len(set(lists[user]) & set(test[user].tolist())) / len(test[user])
            for user in users
            if group(activity, user) == which
        ]
        found[f"{name}_users_recall_{k}"] = np.mean(shares)
    return found


def skewed_problem():
    """As ``random_problem``, with items and users of very different popularity, and a user without train items."""
    train, test, scores = random_problem()
    rng = np.random.default_rng(1)
    kept = rng.random(len(train)) < (0.1 + 0.9 / (1 + train.items / 6)) * (0.2 + 0.8 * train.users / 57)
    kept &= train.users != 7
    return train.select(kept), test, scores - np.arange(40) / 8


@pytest.mark.parametrize("k", [1, 7])
def test_naive_loop(k):
    train, test, scores = skewed_problem()
    found = evaluate(TableIndex(scores), test, [3], exclude=train, beyond=[k]).beyond
    assert found == pytest.approx(naive(train, test, scores, k), rel=1e-12)
    assert len(set(found.values())) == 10


def test_what_was_measured_before_stays_as_it_was():
    train, test, scores = random_problem()
    plain = evaluate(TableIndex(scores), test, [2, 5], exclude=train)
    found = evaluate(TableIndex(scores), test, [2, 5], exclude=train, beyond=[9])
    assert plain.beyond == {}
    assert found.metrics == plain.metrics
    assert found.per_user.keys() == plain.per_user.keys()
    assert all((found.per_user[key] == plain.per_user[key]).all() for key in plain.per_user)


def measured(metric, order, train, test, scores, size):
    """``metric`` fed with users in this order, so many at once."""
    for start in range(0, len(order), size):
        users = order[start : start + size]
        _, items = TableIndex(scores).search(users, 6, train)
        hits = np.array([np.isin(row, test[user]) for user, row in zip(users, items, strict=True)])
        metric.update(users, items, hits)
    return metric


def test_batches_and_ranks_change_no_bit():
    """Any order and size of batches, and two ranks whose states are summed, as torchmetrics sums them."""
    train, test, scores = skewed_problem()
    users = np.flatnonzero(test.user_degrees)
    whole = measured(BeyondAccuracy(train, test, [3, 6]), users, train, test, scores, len(users)).compute()
    mixed = np.random.default_rng(0).permutation(users)
    assert measured(BeyondAccuracy(train, test, [3, 6]), mixed, train, test, scores, 5).compute() == whole
    ranks = [
        measured(BeyondAccuracy(train, test, [3, 6]), part, train, test, scores, 4)
        for part in (users[::3], users[1::3], users[2::3])
    ]
    assert ranks[1].compute() != whole
    for rank in ranks[1:]:
        ranks[0].merge_state(rank)
    assert ranks[0].compute() == whole
    assert len(whole) == 20


def test_padding_counts_nowhere():
    """User 1 has one item left: of three ranks two are padding."""
    train, test = rows([2], [1, 2], num_items=3), rows([0], [0], num_items=3)
    found = evaluate(TableIndex(np.zeros((2, 3))), test, [3], exclude=train, beyond=[3]).beyond
    assert found["coverage_3"] == 2 / 3  # item 2 is nobody's to get
    assert found["gini_3"] == pytest.approx((-2 * 0 + 0 * 1 + 2 * 2) / (2 * 3))
    assert found["popularity_lift_3"] == pytest.approx((1 / 2 + 0) / (2 + 3 / 2) - 1)


def test_tensors_are_as_good_as_arrays():
    train, test, scores = random_problem()
    users = np.flatnonzero(test.user_degrees)
    _, items = TableIndex(scores).search(users, 4, train)
    hits = np.array([np.isin(row, test[user]) for user, row in zip(users, items, strict=True)])
    of_arrays, of_tensors = BeyondAccuracy(train, test, [4]), BeyondAccuracy(train, test, [4])
    of_arrays.update(users, items, hits)
    of_tensors.update(*(torch.as_tensor(part) for part in (users, items, hits)))
    assert of_tensors.compute() == of_arrays.compute()


def test_it_needs_a_train_part_and_cutoffs_of_the_catalogue():
    train, test, scores = random_problem()
    with pytest.raises(L2QError, match="give exclude=train"):
        evaluate(TableIndex(scores), test, [5], beyond=[5])
    with pytest.raises(L2QError, match=r"beyond=\[41\]: give cut-offs from 1 to 40"):
        evaluate(TableIndex(scores), test, [5], exclude=train, beyond=[41])


def test_a_run_measures_test_and_teacher_at_the_cutoff_that_decides(tmp_path):
    """45 items: 11. Validation, which is read every few epochs, does without. So alike are the users of this table that
    none is of the middle group."""
    words = table(tmp_path / "events.csv")
    metrics = run(tmp_path / "a", "model=lightgcn", *words, *SMALL)
    names = ["coverage", "gini", "novelty", "popularity_lift", "head_recall", "mid_recall", "tail_recall"]
    names += ["heavy_users_recall", "light_users_recall"]
    asked = {f"test/{name}_11" for name in names}
    assert {key for key in metrics if key.endswith("_11")} == asked
    words += ["model.bits=16", "model.descent.intruder_rounds=2", "model.embeddings.steps=30"]
    fitted = run(tmp_path / "b", "model=l2q_plus", *words)
    beside = {key.replace("test/", "test/teacher/") for key in asked}
    assert {key for key in fitted if key.endswith("_11")} == asked | beside
